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


@dataclasses.dataclass(frozen=True)
class Field:
  """One config field.

  Args:
    default: its value in `default_config()`. Its type is the field's; a
      duration is unset at -1, milestones at ().
    meaning: one line for the reader.
    allowed: what it may hold, in words.
    check: the same as a predicate on a set value.
  """

  default: Any
  meaning: str
  allowed: str
  check: Callable[[Any], bool]


def _whole(low: int) -> tuple[str, Callable[[Any], bool]]:
  return f'a whole number >= {low}', lambda v: v >= low


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
    numbers = all(
      isinstance(v, (int, float)) and math.isfinite(v) and v > 0 for v in values
    )
    return numbers and list(values) == sorted(set(values))

  return f'rising {kind} > 0, as (60, 120, 160)', check


def _duration(low: int = 0, high: float = math.inf) -> Any:
  words, check = _real(low, high)
  return f'{words}; -1: unset', lambda v: v == -1 or check(v)


def _channels(low: float, *, open_low: bool) -> Any:
  _, check = _real(low, open_low=open_low)
  sign = '>' if open_low else '>='
  return (
    f'one number {sign} {low:g} per channel',
    lambda v: len(v) > 0 and all(map(check, v)),
  )


_ANY = 'any text', lambda v: True
_SWITCH = 'true or false', lambda v: True

FIELDS: dict[str, Field] = {
  'seed': Field(0, 'initialisation, batch order, augmentation', *_whole(0)),
  'epochs': Field(30, 'passes over the training set', *_whole(1)),
  'batch_size': Field(32, 'examples an update, all devices', *_whole(1)),
  'eval_batch_size': Field(500, 'examples a call, evaluation', *_whole(1)),
  'parallel': Field(
    'auto',
    'how devices share a batch; auto: pmap on several of one process, or jit',
    *_one_of('auto', 'pmap', 'jit'),
  ),
  'log_every_steps': Field(
    50, 'updates a log row; also the most updates a compiled call', *_whole(1)
  ),
  'eval_every_epochs': Field(1, 'epochs between evaluations', *_whole(1)),
  'checkpoint_every_epochs': Field(1, 'epochs between saves', *_whole(1)),
  'data.name': Field(
    'digits', 'digits, cifar100, any prepared TFDS set, folder or npz', *_ANY
  ),
  'data.path': Field(
    '', "TFDS data_dir ('' = its default), image folder or .npz file", *_ANY
  ),
  'data.image_size': Field(
    0, 'resize images to this side in pixels; 0 = as stored', *_whole(0)
  ),
  'data.download': Field(True, 'a missing set may be prepared', *_SWITCH),
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
  'model.name': Field('resnet18', 'the network', *_ANY),
  'model.stem': Field(
    'cifar',
    'cifar: 3x3, no pool; imagenet: 7x7 stride 2 and max-pool',
    *_one_of('cifar', 'imagenet'),
  ),
  'model.width': Field(64, 'channels of the first stage', *_whole(1)),
  'model.dtype': Field(
    'float32',
    'of activations; parameters, statistics and loss stay float32',
    *_one_of('float32', 'bfloat16'),
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
    'y_hat; prior: the class frequencies of the training set',
    *_one_of('uniform', 'prior'),
  ),
  'smoothing.drop_epochs': Field(
    -1.0, 'epoch s of TSLA(s): theta is 0 from there on', *_duration()
  ),
  'smoothing.drop_steps': Field(-1, 'the same in updates', *_duration()),
  'smoothing.drop_percent': Field(
    -1.0, 'the same in percent of the run', *_duration(high=100)
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
    -1.0, 'the same in percent of the run', *_duration(high=100)
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


def config_hash(config: ml_collections.ConfigDict) -> str:
  """Eight hex digits that name this config's contents."""
  text = json.dumps(flatten(config), sort_keys=True)
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
  """Checks every field and what they say together, before anything runs.

  Raises:
    InputError: an unknown field, a wrong type, a value out of range, two units
      for one duration, or a stage that would never be reached.
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
  # One step an epoch: the order of events does not depend on the data.
  resolve_durations(config, steps_per_epoch=1_000_000)


def _check_value(name: str, field: Field, value: Any) -> None:
  value = tuple(value) if isinstance(value, list) else value
  if type(value) is not type(field.default) or not field.check(value):
    raise InputError(
      f'config.{name} = {value!r}: {field.meaning}',
      allowed=field.allowed,
      cure=f'--config.{name}=…',
    )


@dataclasses.dataclass(frozen=True)
class Durations:
  """Every duration of a run, in updates: all the trainer ever sees.

  Example:
    >>> config = default_config()
    >>> with config.unlocked():
    ...   config.smoothing.schedule = 'two_stage'
    ...   config.smoothing.theta = 0.1
    ...   config.smoothing.drop_epochs = 20
    >>> durations = resolve_durations(config, steps_per_epoch=44)
    >>> durations.total_steps, durations.drop_step
    (1320, 880)
  """

  steps_per_epoch: int
  total_steps: int
  drop_step: int | None  # end of smoothing; None where it has no end
  milestones: tuple[int, ...]  # updates at which the rate is multiplied
  warmup_steps: int


def resolve_durations(
  config: ml_collections.ConfigDict, steps_per_epoch: int
) -> Durations:
  """Turns epochs, updates and percents of `config` into updates.

  Args:
    config: a whole config.
    steps_per_epoch: updates a pass over the training set.

  Raises:
    InputError: several units at once, a unit missing or superfluous, an event
      at or after the end of the run.
  """
  drop = _resolve(config, 'smoothing', 'drop', steps_per_epoch)
  milestones = _resolve(config, 'optimizer', 'milestone', steps_per_epoch)
  warmup = _resolve(config, 'optimizer', 'warmup', steps_per_epoch)
  _match(
    config, 'smoothing', 'drop', drop, users=('two_stage', 'linear', 'cosine')
  )
  _match(config, 'optimizer', 'milestone', milestones, users=('step',))
  return Durations(
    steps_per_epoch=steps_per_epoch,
    total_steps=config.epochs * steps_per_epoch,
    drop_step=drop[0] if drop else None,
    milestones=milestones,
    warmup_steps=warmup[0] if warmup else 0,
  )


def _resolve(
  config: ml_collections.ConfigDict,
  section: str,
  stem: str,
  steps_per_epoch: int,
) -> tuple[int, ...]:
  """The duration `section.stem_{epochs,steps,percent}` in updates; () if unset.

  Every duration of the package goes through here.
  """
  total = config.epochs * steps_per_epoch
  scales = {'epochs': steps_per_epoch, 'steps': 1, 'percent': total / 100}
  given = {
    f'config.{section}.{stem}_{unit}': (
      config[section][f'{stem}_{unit}'],
      scale,
    )
    for unit, scale in scales.items()
    if config[section][f'{stem}_{unit}'] not in (-1, ())
  }
  if not given:
    return ()
  if len(given) > 1:
    raise InputError(
      ', '.join(f'{name} = {value}' for name, (value, _) in given.items())
      + ': several units for one duration',
      allowed='exactly one of ' + ', '.join(given),
      cure='set the others to ' + ('()' if stem == 'milestone' else '-1'),
    )
  ((name, (value, scale)),) = given.items()
  values = value if isinstance(value, tuple) else (value,)
  steps = tuple(round(v * scale) for v in values)
  if max(steps, default=0) >= total:
    raise InputError(
      f'{name} = {value}: at or after the end of the run',
      allowed=f'before epoch {config.epochs}',
      cure=f'--{name}=… or --config.epochs=…',
    )
  return steps


def _match(
  config: ml_collections.ConfigDict,
  section: str,
  stem: str,
  steps: tuple[int, ...],
  users: tuple[str, ...],
) -> None:
  """A duration is set if, and only if, the section's schedule uses it."""
  schedule = config[section].schedule
  if bool(steps) == (schedule in users):
    return
  fields = f'config.{section}.{stem}_epochs (or _steps, _percent)'
  if steps:
    raise InputError(
      f'{fields} is set, but config.{section}.schedule = {schedule!r} has no '
      'use for it',
      allowed=f'with schedule {" or ".join(users)}',
      cure=f'leave it out, or --config.{section}.schedule={users[0]}',
    )
  raise InputError(
    f'{fields} is not set, but config.{section}.schedule = {schedule!r} needs '
    'it',
    cure=f'--config.{section}.{stem}_epochs=…',
  )


def help_text() -> str:
  """Every field with type, default and meaning, one a line."""
  return '\n'.join(
    f'  --config.{name}: {type(field.default).__name__} = {field.default!r}\n'
    f'      {field.meaning} ({field.allowed})'
    for name, field in FIELDS.items()
  )
