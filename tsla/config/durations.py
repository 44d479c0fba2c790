"""Epochs, updates and percents of a config become updates, in one place."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tsla.errors import InputError

if TYPE_CHECKING:  # else the standard library suffices
  import ml_collections

_MOST_STEPS = 2**31 - 1  # they are counted in int32


@dataclasses.dataclass(frozen=True)
class Durations:
  """Every duration of a run, in updates: all the trainer ever sees.

  Example:
    >>> from tsla.config.forms import default_config
    >>> config = default_config()
    >>> config.smoothing.schedule = 'two_stage'
    >>> config.smoothing.drop_epochs = 20.0
    >>> durations = resolve(config, steps_per_epoch=44)
    >>> durations.total_steps, durations.drop_step
    (1320, 880)
  """

  steps_per_epoch: int
  total_steps: int
  drop_step: int | None  # end of smoothing; None where it has no end
  milestones: tuple[int, ...]  # updates at which the rate is multiplied
  warmup_steps: int
  min_step: int = 0  # schedule auto: nothing is decided before
  max_step: int | None = None  # and here smoothing ends; None: never
  keep_steps: tuple[int, ...] = ()  # whose checkpoints stay
  save_every: int = 0  # updates between checkpoints; 0: never, and so on
  eval_every: int = 0
  probe_every: int = 0


def resolve(
  config: 'ml_collections.ConfigDict', steps_per_epoch: int = 0
) -> Durations:
  """Turns epochs, updates and percents of `config` into updates.

  Args:
    config: a whole config.
    steps_per_epoch: updates a pass over the training set; 0: as many as there
      may be, for what is wrong whatever the size of the data set.

  Raises:
    InputError: several units at once, a unit missing or superfluous, an event
      at or after the end of the run.
  """
  steps_per_epoch = steps_per_epoch or _MOST_STEPS // config.epochs
  total = config.epochs * steps_per_epoch
  if total > _MOST_STEPS:
    raise InputError(
      f'config.epochs = {config.epochs}: {total} updates',
      allowed=f'at most {_MOST_STEPS} updates',
    )

  def steps(section: str, stem: str) -> tuple[int, ...]:
    names = (f'{stem}_{unit}' for unit in ('epochs', 'steps', 'percent'))
    values = {
      f'config.{section}.{name}': config[section][name]
      for name in names
      if name in config[section]
    }
    return _to_steps(values, total, steps_per_epoch)

  drop, least, most = (steps('smoothing', x) for x in ('drop', 'min', 'max'))
  milestones, warmup = (steps('optimizer', x) for x in ('milestone', 'warmup'))
  schedule = config.smoothing.schedule
  decays = ('linear', 'cosine')
  users = ('two_stage', *decays, 'reversed')
  _match('config.smoothing', 'drop', drop, schedule, users)
  if schedule in decays and drop == (0,):
    raise InputError(
      f'config.smoothing.drop_* is update 0, but a {schedule} decay takes time',
      allowed='1 update or more',
      cure='--config.smoothing.drop_epochs=…',
    )
  _match(
    *('config.optimizer', 'milestone', milestones),
    *(config.optimizer.schedule, ('step',)),
  )
  bounds = (
    f'config.smoothing.min_epochs = {config.smoothing.min_epochs} and '
    f'max_epochs = {config.smoothing.max_epochs}'
  )
  if (least or most) and schedule != 'auto':
    raise InputError(
      f'{bounds} with smoothing.schedule = {schedule!r}',
      allowed='with schedule auto',
      cure='leave them out, or --config.smoothing.schedule=auto',
    )
  if most and most <= (least or (0,)):
    raise InputError(
      f'{bounds}: nothing could be decided',
      allowed='min_epochs < max_epochs',
      cure='--config.smoothing.max_epochs=…',
    )
  return Durations(
    steps_per_epoch=steps_per_epoch,
    total_steps=total,
    drop_step=drop[0] if drop else None,
    milestones=milestones,
    warmup_steps=warmup[0] if warmup else 0,
    min_step=least[0] if least else 0,
    max_step=most[0] if most else None,
    keep_steps=tuple(
      epoch * steps_per_epoch for epoch in config.checkpoint_keep_epochs
    ),
    save_every=config.checkpoint_every_epochs * steps_per_epoch,
    eval_every=config.eval_every_epochs * steps_per_epoch,
    probe_every=config.variance.every_epochs * steps_per_epoch,
  )


def _to_steps(
  values: Mapping[str, Any], total: int, steps_per_epoch: int
) -> tuple[int, ...]:
  """The duration that one of the fields sets, in updates; () if none does.

  Every duration of the package goes through here.

  Args:
    values: by field name, whose last word is the unit; -1 and () are unset.
    total: updates of the whole run.
    steps_per_epoch: updates a pass over the training set.
  """
  scales = {'epochs': steps_per_epoch, 'steps': 1, 'percent': total / 100}
  given = {name: v for name, v in values.items() if v not in (-1, ())}
  if not given:
    return ()
  if len(given) > 1:
    raise InputError(
      ', '.join(f'{name} = {value}' for name, value in given.items())
      + ': several units for one duration',
      allowed='exactly one of ' + ', '.join(given),
      cure='set the others to '
      + ('()' if isinstance(next(iter(given.values())), tuple) else '-1'),
    )
  ((name, value),) = given.items()
  scale = scales[name.rpartition('_')[2]]
  numbers = value if isinstance(value, tuple) else (value,)
  steps = tuple(round(number * scale) for number in numbers)
  if max(steps, default=0) >= total:
    raise InputError(
      f'{name} = {value}: at or after the end of the run',
      allowed=f'before epoch {total // steps_per_epoch}',
      cure=f'--{name}=… or --config.epochs=…',
    )
  if any(a >= b for a, b in itertools.pairwise(steps)):
    raise InputError(
      f'{name} = {value}: two of them fall on one update, as {steps}',
      allowed='one update or more between them',
    )
  return steps


def _match(
  section: str,
  stem: str,
  steps: tuple[int, ...],
  schedule: str,
  users: tuple[str, ...],
) -> None:
  """A duration is set if, and only if, the section's schedule uses it."""
  if bool(steps) == (schedule in users):
    return
  fields = f'{section}.{stem}_epochs (or _steps, _percent)'
  if steps:
    raise InputError(
      f'{fields} is set, but {section}.schedule = {schedule!r} has no use for '
      'it',
      allowed=f'with schedule {" or ".join(users)}',
      cure=f'leave it out, or --{section}.schedule={users[0]}',
    )
  raise InputError(
    f'{fields} is not set, but {section}.schedule = {schedule!r} needs it',
    cure=f'--{section}.{stem}_epochs=…',
  )
