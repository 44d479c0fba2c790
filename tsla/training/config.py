"""What every field of a run's config means, its default, what it may hold.

The table `FIELDS` is the one place: defaults, validation, `main.py --help` and
the reader all take it from there. A config file under `configs/` starts from
`default_config()` and changes the few fields that make its experiment.
"""

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import ml_collections

from tsla.errors import InputError
from tsla.models import resnet


@dataclasses.dataclass(frozen=True)
class Field:
  """One config field.

  Args:
    default: its value in `default_config()`. Its type is the field's; a
      duration is unset at -1, milestones at ().
    meaning: one line for the reader.
    allowed: what it may hold, in words.
    check: the same as a predicate on a set value.
    identity: whether another value makes another run; False for what only says
      where the data lies or how the devices share the work.
  """

  default: Any
  meaning: str
  allowed: str
  check: Callable[[Any], bool]
  identity: bool = True


def _whole(
  low: int, high: int = 2**31 - 1
) -> tuple[str, Callable[[Any], bool]]:
  return f'a whole number >= {low}', lambda v: low <= v <= high


def _real(
  low: float, high: float = math.inf, *, open_low: bool = False
) -> tuple[str, Callable[[Any], bool]]:
  def check(value: float) -> bool:
    above = value > low if open_low else value >= low
    return math.isfinite(value) and above and value <= high

  sign = '>' if open_low else '>='
  upper = '' if high == math.inf else f' and <= {high:g}'
  return f'a number {sign} {low:g}{upper}', check


def _one_of(*names: str) -> tuple[str, Callable[[Any], bool]]:
  return 'one of ' + ', '.join(names), lambda v: v in names


def _rising(kind: str) -> tuple[str, Callable[[Any], bool]]:
  def check(values: tuple[float, ...]) -> bool:
    numbers = all(type(v) in (int, float) and 0 < v < math.inf for v in values)
    return numbers and list(values) == sorted(set(values))

  return f'rising {kind} > 0, as (60, 120, 160)', check


def _duration(below: float = math.inf) -> Any:
  words, check = _real(0)
  words += '' if below == math.inf else f' and < {below:g}'
  return f'{words}; -1: unset', lambda v: v == -1 or (check(v) and v < below)


def _channels(low: float, *, open_low: bool) -> Any:
  _, check = _real(low, open_low=open_low)
  sign = '>' if open_low else '>='
  return (
    f'one number {sign} {low:g} per channel',
    lambda v: len(v) > 0 and all(isinstance(x, float) and check(x) for x in v),
  )


_ANY = 'any text', lambda v: True
_PATH = 'a path of a local or mounted disk', lambda v: '://' not in v
_SWITCH = 'true or false', lambda v: True

FIELDS: dict[str, Field] = {
  'seed': Field(
    0, 'initialisation, batch order, augmentation', *_whole(0, 2**32 - 1)
  ),
  'epochs': Field(30, 'passes over the training set', *_whole(1)),
  'batch_size': Field(32, 'examples an update, all devices', *_whole(1)),
  'eval_batch_size': Field(
    500, 'examples a call, evaluation', *_whole(1), identity=False
  ),
  'parallel': Field(
    'auto',
    'how devices share a batch; auto: pmap on several of one process, or jit',
    *_one_of('auto', 'pmap', 'jit'),
    identity=False,
  ),
  'log_every_steps': Field(
    50, 'updates a log row; also the most updates a compiled call', *_whole(1)
  ),
  'eval_every_epochs': Field(1, 'epochs between evaluations', *_whole(1)),
  'checkpoint_every_epochs': Field(1, 'epochs between saves', *_whole(1)),
  'checkpoint_keep_epochs': Field(
    (),
    'epochs that are saved and kept, to fork other runs from',
    *_rising('whole epochs'),
    identity=False,
  ),
  'watchdog_minutes': Field(
    60.0,
    'a run that does nothing for so long dumps its stacks and ends; 0 = never',
    *_real(0),
    identity=False,
  ),
  'init.fork_from': Field(
    '', 'RUN@EPOCH: begin where that run was after that epoch', *_PATH
  ),
  'data.name': Field(
    'digits', 'digits, cifar100, any prepared TFDS set, folder or npz', *_ANY
  ),
  'data.path': Field(
    '',
    "TFDS data_dir ('' = ~/tensorflow_datasets), image folder, .npz",
    *_PATH,
    identity=False,
  ),
  'data.image_size': Field(
    0, 'resize to this side, square, aspect not kept; 0 = as stored', *_whole(0)
  ),
  'data.skip_corrupt': Field(
    False,
    'damaged images are left out and counted, not refused',
    *_SWITCH,
    identity=False,
  ),
  'data.download': Field(
    True, 'a missing set may be prepared', *_SWITCH, identity=False
  ),
  'data.mean': Field(
    (0.5,), 'subtracted from pixels in [0, 1]', *_channels(0, open_low=False)
  ),
  'data.std': Field(
    (0.5,), 'divides them afterwards', *_channels(0, open_low=True)
  ),
  'augment.pad': Field(
    0, 'zero pixels a side before a random crop to the old size', *_whole(0)
  ),
  'augment.crop': Field(
    0, 'side of a random crop, centre crop in evaluation; 0 = off', *_whole(0)
  ),
  'augment.flip': Field(False, 'random horizontal flip', *_SWITCH),
  'model.name': Field(
    'resnet18', 'the network', *_one_of(*resnet.ARCHITECTURES)
  ),
  'model.stem': Field(
    'cifar',
    'cifar: 3x3, no pool; imagenet: 7x7 stride 2 and max-pool',
    *_one_of(*resnet.STEMS),
  ),
  'model.width': Field(64, 'channels of the first stage', *_whole(1)),
  'model.dtype': Field(
    'float32',
    'of activations; parameters, statistics and loss stay float32',
    *_one_of('float32', 'bfloat16'),
  ),
  'model.weights': Field(
    '',
    "torchvision's or timm's weights to start from, .safetensors or .pth",
    *_PATH,
  ),
  'model.weights_sha256': Field(
    '', "that file's SHA-256, checked if it is given", *_ANY
  ),
  'smoothing.schedule': Field(
    'none',
    'theta over time; two_stage is TSLA, constant is LSR',
    *_one_of('none', 'constant', 'two_stage', 'linear', 'cosine'),
  ),
  'smoothing.theta': Field(
    0.0, 'mass moved from the label to y_hat, over all K classes', *_real(0, 1)
  ),
  'smoothing.target': Field(
    'uniform',
    'y_hat; prior: class frequencies of the training set; teacher: its softmax',
    *_one_of('uniform', 'prior', 'teacher'),
  ),
  'smoothing.drop_epochs': Field(
    -1.0, 'epoch s of TSLA(s): theta is 0 from there on', *_duration()
  ),
  'smoothing.drop_steps': Field(-1, 'the same in updates', *_duration()),
  'smoothing.drop_percent': Field(
    -1.0, 'the same in percent of the run', *_duration(below=100)
  ),
  'teacher.run': Field(
    '', 'directory of the finished run whose network gives y_hat', *_PATH
  ),
  'teacher.view': Field(
    'augmented',
    'what it sees: each augmented image, or once each image as it is',
    *_one_of('augmented', 'clean'),
  ),
  'teacher.temperature': Field(
    1.0, 'its logits are divided by it', *_real(0, open_low=True)
  ),
  'optimizer.name': Field(
    'sgd', 'the base optimiser', *_one_of('sgd', 'adamw', 'lamb')
  ),
  'optimizer.learning_rate': Field(
    0.1, 'the highest rate', *_real(0, open_low=True)
  ),
  'optimizer.momentum': Field(0.9, 'of sgd', *_real(0, 1)),
  'optimizer.nesterov': Field(False, "sgd's Nesterov form", *_SWITCH),
  'optimizer.weight_decay': Field(
    0.0, 'sgd: L2 added to the gradient; else decoupled', *_real(0)
  ),
  'optimizer.schedule': Field(
    'constant',
    'learning rate over time',
    *_one_of('constant', 'step', 'cosine'),
  ),
  'optimizer.milestone_epochs': Field(
    (), 'step: the rate is multiplied at these', *_rising('epochs')
  ),
  'optimizer.milestone_steps': Field(
    (), 'the same in updates', *_rising('updates')
  ),
  'optimizer.milestone_percent': Field(
    (), 'the same in percent of the run', *_rising('percents')
  ),
  'optimizer.decay_factor': Field(
    0.1, 'step: what it is multiplied by', *_real(0, 1, open_low=True)
  ),
  'optimizer.warmup_epochs': Field(
    -1.0, 'the rate rises linearly until here', *_duration()
  ),
  'optimizer.warmup_steps': Field(-1, 'the same in updates', *_duration()),
  'optimizer.warmup_percent': Field(
    -1.0, 'the same in percent of the run', *_duration(below=100)
  ),
}


def default_config() -> ml_collections.ConfigDict:
  """All fields at their defaults, locked against unknown names.

  Example:
    >>> config = default_config()
    >>> config.smoothing.schedule, config.optimizer.momentum
    ('none', 0.9)
  """
  config = ml_collections.ConfigDict()
  for name, field in FIELDS.items():
    *section, leaf = name.split('.')
    place = config
    for part in section:
      if part not in place:
        place[part] = ml_collections.ConfigDict()
      place = place[part]
    place[leaf] = field.default
  return config.lock()


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as `{'section.field': value}`, JSON-ready."""
  flat: dict[str, Any] = {}
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      flat |= {f'{name}.{k}': v for k, v in flatten(value).items()}
    else:
      flat[name] = list(value) if isinstance(value, tuple) else value
  return flat


def identity(flat: dict[str, Any]) -> dict[str, Any]:
  """The fields that make a run this run, where they differ from the default.

  So a field that a later version adds changes no run that does not use it.

  Args:
    flat: as from `flatten`, also one that an earlier version wrote.

  Example:
    >>> config = default_config()
    >>> config.seed, config.data.path = 3, 'elsewhere'
    >>> identity(flatten(config))
    {'seed': 3}
  """
  defaults = flatten(default_config())
  return {
    name: value
    for name, value in flat.items()
    if name not in FIELDS or (FIELDS[name].identity and value != defaults[name])
  }


def config_hash(config: ml_collections.ConfigDict) -> str:
  """Eight hex digits that name this config's `identity` and its data.

  A folder or an .npz is known by its path only, a TFDS set by its name.
  """
  fields = identity(flatten(config))
  if config.data.name in ('folder', 'npz'):
    fields['data.path'] = config.data.path
  text = json.dumps(fields, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def check_field_name(name: str) -> None:
  """Raises InputError, with the nearest known name, for an unknown field."""
  if name in FIELDS:
    return
  sections = {known.split('.')[0] for known in FIELDS if '.' in known}
  if name in sections:
    inside = [known for known in FIELDS if known.startswith(name + '.')]
    raise InputError(
      f'config.{name}: a section, not a field', allowed=', '.join(inside)
    )
  leaves = {known.split('.')[-1]: known for known in FIELDS}
  near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.6)
  near = near or [
    leaves[leaf]
    for leaf in difflib.get_close_matches(name.split('.')[-1], leaves, n=1)
  ]
  raise InputError(
    f'config.{name}: no such field',
    cure=f'--config.{near[0]}=…' if near else 'python main.py --help lists all',
  )


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks every field, and θ against its schedule, before anything runs.

  What depends on the data set is checked when that is known:
  `tsla.training.durations.resolve`, `tsla.training.build.check_fits`.

  Raises:
    InputError: an unknown or missing field, a wrong type, a value out of range,
      a θ that no schedule uses or a schedule without one.
  """
  flat = flatten(config)
  for name in flat:
    check_field_name(name)
  for name, field in FIELDS.items():
    if name not in flat:
      raise InputError(
        f'config.{name}: missing', cure='start from default_config()'
      )
    _check_value(name, field, flat[name])
  if config.model.weights and config.init.fork_from:
    raise InputError(
      f'config.model.weights = {config.model.weights!r} and init.fork_from = '
      f'{config.init.fork_from!r}: a run begins in one place',
      cure='--config.model.weights= or --config.init.fork_from=',
    )
  if (config.smoothing.target == 'teacher') != bool(config.teacher.run):
    raise InputError(
      f'config.teacher.run = {config.teacher.run!r} with smoothing.target = '
      f'{config.smoothing.target!r}',
      allowed='a directory with target teacher, empty with any other',
      cure='--config.teacher.run=WORKDIR_OF_A_FINISHED_RUN',
    )
  theta, schedule = config.smoothing.theta, config.smoothing.schedule
  if (theta > 0) != (schedule != 'none'):
    raise InputError(
      f'config.smoothing.theta = {theta} with smoothing.schedule = '
      f'{schedule!r}',
      allowed='theta = 0 with schedule none, theta > 0 with any other',
      cure='--config.smoothing.theta=… or --config.smoothing.schedule=…',
    )


def _check_value(name: str, field: Field, value: Any) -> None:
  value = tuple(value) if isinstance(value, list) else value
  if type(value) is not type(field.default) or not field.check(value):
    raise InputError(
      f'config.{name} = {value!r}: {field.meaning}',
      allowed=field.allowed,
      cure=f'--config.{name}=…',
    )


def help_text() -> str:
  """Every field with type, default and meaning, one a line."""
  return '\n'.join(
    f'  --config.{name}: {type(field.default).__name__} = {field.default!r}\n'
    f'      {field.meaning} ({field.allowed})'
    for name, field in FIELDS.items()
  )
