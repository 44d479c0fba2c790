"""The table of a run's fields: default, meaning, what each may hold."""

import dataclasses
import difflib
import math
from collections.abc import Callable
from typing import Any

import ml_collections

from tsla.errors import InputError
from tsla.models import resnet
from tsla.smoothing import rules

# A part of a config, as `config.smoothing`; a whole one is called ConfigDict.
Section = ml_collections.ConfigDict


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
      where data or teacher lie, which are known by their content, or how the
      devices share the work.
  """

  default: Any
  meaning: str
  allowed: str
  check: Callable[[Any], bool]
  identity: bool = True


def _real(
  low: float, high: float = math.inf, *, open_low: bool = False
) -> tuple[str, Callable[[Any], bool]]:
  def check(value: float) -> bool:
    above = value > low if open_low else value >= low
    return math.isfinite(value) and above and value <= high

  sign = '>' if open_low else '>='
  upper = '' if high == math.inf else f' and <= {high:g}'
  return f'a number {sign} {low:g}{upper}', check


def _whole(low: int, high: int = 2**31 - 1) -> Any:
  return f'a whole number >= {low}', _real(low, high)[1]


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
_RULE_WORDS = 'one of ' + ', '.join(rules.NAMES)
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
  'data.label_noise': Field(
    0.0,
    'part of the training labels that is replaced, each by another class',
    *_real(0, 1),
  ),
  'data.label_noise_seed': Field(
    0, 'which labels, and by what', *_whole(0, 2**32 - 1)
  ),
  'data.held_out': Field(
    0.0,
    'part of the training set that is not trained on, for the rule plateau',
    *_real(0, 0.9),
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
    'theta over time; two_stage is TSLA, constant is LSR, reversed smooths '
    'after s, rising to the end; auto: a rule finds s',
    *_one_of(
      *('none', 'constant', 'two_stage', 'linear', 'cosine', 'reversed'),
      *('rising', 'auto'),
    ),
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
    -1.0,
    'epoch s of TSLA(s): theta is 0 from there on; reversed: until there',
    *_duration(),
  ),
  'smoothing.drop_steps': Field(-1, 'the same in updates', *_duration()),
  'smoothing.drop_percent': Field(
    -1.0, 'the same in percent of the run', *_duration(below=100)
  ),
  'smoothing.rule': Field(
    '',
    'auto: what ends smoothing, or optimal: theta is the measured best',
    f'{_RULE_WORDS}, with schedule auto only',
    lambda v: v in ('', *rules.NAMES),
  ),
  'smoothing.patience': Field(
    2, 'auto: probes in a row at which the rule must fire', *_whole(1)
  ),
  'smoothing.min_epochs': Field(
    -1.0, 'auto: nothing is decided before', *_duration()
  ),
  'smoothing.max_epochs': Field(
    -1.0, 'auto: theta is 0 from there on at the latest', *_duration()
  ),
  'smoothing.reset_momentum': Field(
    False, 'momentum begins anew where smoothing ends', *_SWITCH
  ),
  'variance.every_epochs': Field(
    0, "epochs between probes of the gradient's variance; 0 = off", *_whole(0)
  ),
  'variance.num_batches': Field(
    32, 'mini-batches a probe, always the same', *_whole(3)
  ),
  'variance.augment': Field(
    True, 'the probe sees augmented images, always the same', *_SWITCH
  ),
  'variance.mode': Field(
    'exact',
    'of all parameters, or of the last layer: no backward pass',
    *_one_of('exact', 'last_layer'),
  ),
  'teacher.run': Field(
    '',
    'directory of the finished run whose network gives y_hat',
    *_PATH,
    identity=False,
  ),
  'teacher.weights': Field(
    '',
    "or torchvision's or timm's weights of that network, .safetensors or .pth",
    *_PATH,
    identity=False,
  ),
  'teacher.weights_sha256': Field(
    '', "that file's SHA-256, checked if it is given", *_ANY, identity=False
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


def check_field_name(name: str) -> None:
  """Raises InputError, with the nearest known name, for an unknown field."""
  if name in FIELDS:
    return
  if inside := [known for known in FIELDS if known.startswith(name + '.')]:
    raise InputError(
      f'config.{name}: a section, not a field', allowed=', '.join(inside)
    )
  leaves = {known.split('.')[-1]: known for known in FIELDS}
  near = difflib.get_close_matches(name, FIELDS, n=1) or [
    leaves[leaf]
    for leaf in difflib.get_close_matches(name.split('.')[-1], leaves, n=1)
  ]
  raise InputError(
    f'config.{name}: no such field',
    cure=f'--config.{near[0]}=…' if near else 'python main.py --help lists all',
  )


def check_value(name: str, value: Any) -> None:
  """Raises InputError for a value that the field may not hold."""
  field = FIELDS[name]
  value = tuple(value) if isinstance(value, list) else value
  if type(value) is not type(field.default) or not field.check(value):
    raise InputError(
      f'config.{name} = {value!r}: {field.meaning}',
      allowed=field.allowed,
      cure=f'--config.{name}=…',
    )
