"""The table of a run's fields: default, meaning, what each may hold."""

import difflib
import math
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import ml_collections

from tsla import programs
from tsla.config import tables
from tsla.config.durations import UNITS
from tsla.data import images
from tsla.errors import InputError
from tsla.models import resnet

MOST = 2**31 - 1  # of what is counted
# A whole config, and a part of one, as `config.smoothing`.
Config = ml_collections.ConfigDict
Section = Config


class Field(NamedTuple):
  """One config field; its type is that of its default."""

  default: Any  # a duration is unset at -1, milestones at ()
  meaning: str  # one line for the reader
  allowed: str  # what it may hold, in words
  check: Callable[[Any], bool]  # the same as a predicate on a set value
  # Whether another value makes another run; False for what only says where data
  # or teacher lie, which are known by their content, or how devices share work.
  identity: bool = True
  example: str = '…'  # a value for who has to set it
  duration: str = ''  # of a field that holds one, its name without the unit


# The kinds of fields; what else they are given goes to `Field`.
def _number(
  default: float,
  meaning: str,
  low: float = 0,
  high: float | None = None,
  *,
  open_low: bool = False,
  **more: Any,
) -> Field:
  """A whole number if the default is one."""
  whole = isinstance(default, int)
  most = (MOST if whole else sys.float_info.max) if high is None else high
  words = f'a {"whole " * whole}number {">" if open_low else ">="} {low}'
  words += '' if high is None else f' and <= {high}'

  def check(value: float) -> bool:
    return low <= value <= most and not (open_low and value == low)

  return Field(default, meaning, words, check, **more)


def _choice(
  meaning: str, names: Iterable[str], default: str | None = None, **more: Any
) -> Field:
  """One of the names, by default the first; of `FORM` any of that form."""
  names = tuple(names)
  default = names[0] if default is None else default

  def check(value: str) -> bool:
    own = programs.FORM in names and programs.is_own(value)
    return own or value in {default, *names} - {programs.FORM}

  return Field(default, meaning, f'one of {", ".join(names)}', check, **more)


def _rising(
  meaning: str, kind: str, *, types: tuple[type, ...] = (int,), **more: Any
) -> Field:
  def check(values: tuple[float, ...]) -> bool:
    numbers = all(type(v) in types and 0 < v <= MOST for v in values)
    return numbers and list(values) == sorted(set(values))

  words = f'rising {kind} > 0, as (60, 120, 160)'
  return Field((), meaning, words, check, **more)


def _duration(
  name: str, meaning: str, *, several: bool = False
) -> dict[str, Field]:
  """The fields of a duration, or of several that rise: one for each unit."""

  def field(unit: str) -> Field:
    words = meaning if unit == 'epochs' else f'or in {unit} of the run'
    if several:
      types = (int,) if unit == 'steps' else (int, float)
      return _rising(words, unit, types=types, duration=name)
    below = 100 if unit == 'percent' else MOST + 1
    return Field(
      -1 if unit == 'steps' else -1.0,
      words,
      f'a number >= 0 and < {below}; -1: unset',
      lambda value: value == -1 or 0 <= value < below,
      duration=name,
    )

  return {f'{name}_{unit}': field(unit) for unit in UNITS}


def _channels(meaning: str, *, open_low: bool = False) -> Field:
  one = _number(0.5, meaning, open_low=open_low)

  def check(values: tuple[float, ...]) -> bool:
    numbers = all(isinstance(v, float) and one.check(v) for v in values)
    return numbers and len(values) > 0

  words = f'one{one.allowed[1:]} per channel'
  return Field((one.default,), meaning, words, check)


_seed = partial(_number, 0, high=2**32 - 1)
_switch = partial(Field, allowed='true or false', check=lambda v: True)
_text = partial(Field, allowed='any text', check=lambda v: True)
_disk = 'a path of a local or mounted disk'
_path = partial(Field, '', allowed=_disk, check=lambda v: '://' not in v)

# What may follow from a data set; see `tsla.config.from_data`.
FOLLOWING = (
  *('data.name', 'data.image_size', 'data.mean', 'data.std', 'batch_size'),
  *('optimizer.learning_rate', 'model.stem'),
  *('augment.pad', 'augment.crop', 'augment.flip'),
)
# What versions before called otherwise; what they had at its default is gone.
RENAMED = {'data.held_out': ('data.validation', 0.0)}

FIELDS: dict[str, Field] = {
  'seed': _seed('initialisation, batch order, augmentation'),
  'epochs': _number(30, 'passes over the training set', 1),
  'batch_size': _number(32, 'examples an update, all devices', 1),
  'eval_batch_size': _number(
    500, 'examples a call, evaluation', 1, identity=False
  ),
  'parallel': _choice(
    'how devices share a batch; auto: pmap on several of one process, or jit',
    ('auto', 'pmap', 'jit'),
    identity=False,
  ),
  'log_every_steps': _number(
    50, 'updates a log row; also the most updates a compiled call', 1
  ),
  'eval_every_epochs': _number(1, 'epochs between evaluations', 1),
  'eval_test_curve': _switch(
    True, 'each of them is of the test set too, else only the last one'
  ),
  'eval_metrics': _choice(
    "metrics of one's own: (logits, labels) to {name: one value an example}",
    (programs.FORM,),
    '',
  ),
  'checkpoint_every_epochs': _number(1, 'epochs between saves', 1),
  'checkpoint_keep_epochs': _rising(
    'epochs that are saved and kept, to fork other runs from',
    'whole epochs',
    identity=False,
  ),
  'watchdog_minutes': _number(
    60.0,
    'a run that does nothing for so long dumps its stacks and ends; 0 = never',
    identity=False,
  ),
  'from_data': Field(
    (),
    'fields that follow from the data set, unless they are given',
    'names of ' + ', '.join(FOLLOWING),
    lambda names: all(name in FOLLOWING for name in names),
  ),
  'init.fork_from': _path('RUN@EPOCH: begin as that run was after that epoch'),
  'data.name': _text(
    'digits', 'digits, cifar100, any prepared TFDS set, folder or npz'
  ),
  'data.path': _path(
    "TFDS data_dir ('' = ~/tensorflow_datasets), image folder or CSV, .npz",
    identity=False,
  ),
  'data.image_size': _number(
    0,
    'resize to this side, square, aspect not kept; 0 = as stored',
    high=math.isqrt(images.MOST_PIXELS),
  ),
  'data.skip_corrupt': _switch(
    False, 'damaged images are skipped and counted, not refused', identity=False
  ),
  'data.feed': _choice(
    'where images lie: resident on each device, or mapped from the disk, read '
    'ahead; auto: mapped if they take over half of a device',
    ('auto', 'resident', 'mapped'),
    identity=False,
  ),
  'data.download': _switch(True, 'a missing set is prepared', identity=False),
  'data.mean': _channels('subtracted from pixels in [0, 1]'),
  'data.std': _channels('divides them afterwards', open_low=True),
  'data.label_noise': _number(
    0.0, 'part of the training labels replaced, each by another class', 0, 1
  ),
  'data.label_noise_seed': _seed('which labels, and by what'),
  'data.validation': _number(
    0.0,
    'part of each training class not trained on, by which to select; 0 = none',
    high=0.9,
    example='0.1',
  ),
  'augment.pad': _number(
    0, 'zero pixels a side before a random crop to the old size'
  ),
  'augment.crop': _number(
    0, 'side of a random crop, centre crop in evaluation; 0 = off'
  ),
  'augment.crop_area': _number(
    0.0,
    'smallest share of its image that a random-resized crop has, out of the '
    'stored pixels, to augment.crop or the old size; usual: 0.08; 0 = off',
    high=1,
  ),
  'augment.flip': _switch(False, 'random horizontal flip'),
  'model.name': _choice('the network', tables.TABLES['model.name'], 'resnet18'),
  'model.options': _text('', 'of the network, as depth=2'),
  'model.stem': _choice(
    'cifar: 3x3, no pool; imagenet: 7x7 stride 2 and max-pool', resnet.STEMS
  ),
  'model.width': _number(64, 'channels of the first stage', 1),
  'model.dtype': _choice(
    'of activations; parameters, statistics and loss stay float32',
    ('float32', 'bfloat16'),
  ),
  'model.weights': _path(
    "to start from: a run, or torchvision's or timm's .safetensors or .pth"
  ),
  'model.weights_sha256': _text('', "that file's SHA-256, checked if given"),
  'smoothing.method': _choice(
    'what is added to cross-entropy, theta times',
    tables.TABLES['smoothing.method'],
    'label_smoothing',
  ),
  'smoothing.options': _text(
    '', 'of method, target, schedule and rule, as m=5, temperature=2.0'
  ),
  'smoothing.schedule': _choice(
    'theta over time; two_stage is TSLA, constant is LSR, reversed smooths '
    'after s, rising and ramp to the end; auto: a rule finds s',
    tables.SCHEDULES,
    'none',
  ),
  'smoothing.theta': Field(
    0.0,
    'strength; label_smoothing: mass moved to y_hat, over all K classes',
    'a number within the bounds of the method',
    math.isfinite,
    example='0.1',
  ),
  'smoothing.target': _choice(
    'y_hat; prior: class frequencies of the training set; teacher: its '
    'softmax; class_similarity: by how alike the classes are',
    tables.TARGETS,
    'uniform',
  ),
  **_duration(
    'smoothing.drop',
    'epoch s of TSLA(s): theta is 0 from there on; reversed: until there',
  ),
  'smoothing.rule': _choice(
    'auto: what ends smoothing, or optimal: theta is the measured best',
    tables.RULES,
    '',
    example='delta',
  ),
  'smoothing.patience': _number(
    2, 'auto: probes in a row at which the rule must fire', 1
  ),
  **_duration('smoothing.min', 'auto: nothing is decided before'),
  **_duration('smoothing.max', 'auto: theta is 0 from there at the latest'),
  'smoothing.reset_momentum': _switch(
    False, 'momentum begins anew where smoothing ends'
  ),
  'variance.every_epochs': _number(
    0, "epochs between probes of the gradient's variance; 0 = off", example='1'
  ),
  'variance.num_batches': _number(32, 'batches a probe, always the same', 3),
  'variance.augment': _switch(
    True, 'the probe sees augmented images, always the same'
  ),
  'variance.mode': _choice(
    'of all parameters, or of the last layer: no backward pass',
    ('exact', 'last_layer'),
  ),
  'teacher.run': _path(
    'directory of the finished run whose network gives y_hat',
    identity=False,
    example='WORKDIR_OF_A_FINISHED_RUN',
  ),
  'teacher.weights': _path(
    'or a file of its weights, as model.weights', identity=False, example='FILE'
  ),
  'teacher.weights_sha256': _text(
    '', "that file's SHA-256, checked if given", identity=False
  ),
  'teacher.matrix': _path(
    'for class_similarity a K x K .csv file, a row a class, each of sum 1',
    identity=False,
    example='FILE',
  ),
  'teacher.view': _choice(
    'what it sees: each augmented image, or once each image as it is',
    ('augmented', 'clean'),
  ),
  'teacher.temperature': _number(1.0, 'divides its logits', open_low=True),
  'optimizer.name': _choice('the base optimiser', tables.OPTIMIZERS),
  'optimizer.learning_rate': _number(0.1, 'the highest rate', open_low=True),
  'optimizer.momentum': _number(0.9, 'of sgd', 0, 1),
  'optimizer.nesterov': _switch(False, "sgd's Nesterov form"),
  'optimizer.weight_decay': _number(
    0.0, 'sgd: L2 added to the gradient; else decoupled'
  ),
  'optimizer.schedule': _choice('the rate over time', tables.LEARNING_RATES),
  **_duration(
    'optimizer.milestone', 'step: multiplies the rate at these', several=True
  ),
  'optimizer.decay_factor': _number(
    0.1, 'step: what it is multiplied by', 0, 1, open_low=True
  ),
  **_duration('optimizer.warmup', 'the rate rises linearly until here'),
}


def check_field_name(name: str) -> None:
  """Raises InputError, with the nearest known name, for an unknown field."""
  if name in FIELDS:
    return
  if name in RENAMED:
    now, default = RENAMED[name]
    earlier = 'of an earlier version, whose parts were other ones'
    allowed = f'{now}; a run of that version only with {name} = {default}'
    cure = f'--config.{now}={FIELDS[now].example}, and train anew'
    raise InputError(f'config.{name}: {earlier}', allowed=allowed, cure=cure)
  if inside := [known for known in FIELDS if known.startswith(name + '.')]:
    problem = f'config.{name}: a section, not a field'
    raise InputError(problem, allowed=', '.join(inside))
  near, (section, _, leaf) = nearest_field(name), name.rpartition('.')
  cure = f'--config.{near}=…' if near else 'python main.py --help lists all'
  options = tables.help_on_options(f'{section}.options')
  if owners := '; '.join(text for text in options if f' {leaf} = ' in text):
    cure = f"--config.{section}.options='{leaf}=…', an option of {owners}"
  raise InputError(f'config.{name}: no such field', cure=cure)


def nearest_field(name: str) -> str:
  """The field that a name may stand for, as 'lr' does; '' if there is none."""
  leaf = name.split('.')[-1]
  leaves = {known.split('.')[-1]: known for known in FIELDS}
  for known in leaves:
    if '_' in known and leaf == ''.join(w[0] for w in known.split('_')):
      return leaves[known]
  found = difflib.get_close_matches(name, FIELDS, n=1)
  near = difflib.get_close_matches(leaf, leaves, n=1)
  return (found or [leaves[known] for known in near] or [''])[0]


def check_value(name: str, value: Any) -> None:
  """Raises InputError for an unknown field or a value that it may not hold."""
  check_field_name(name)
  field = FIELDS[name]
  value = tuple(value) if isinstance(value, list) else value
  if type(value) is not type(field.default) or not field.check(value):
    names = field.allowed.removeprefix('one of ').split(', ')
    near = isinstance(value, str) and difflib.get_close_matches(value, names, 1)
    if programs.FORM in names and str(value).endswith('.py'):
      near = [f'{value}:NAME']
    problem = f'config.{name} = {value!r}: {field.meaning}'
    cure = f'--config.{name}={(near or "…")[0]}'
    raise InputError(problem, allowed=field.allowed, cure=cure)
