"""Epochs, updates and percents of a config become updates, in one place."""

import dataclasses
import itertools
from typing import TYPE_CHECKING

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


def resolve(
  config: 'ml_collections.ConfigDict', steps_per_epoch: int
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
  decays = ('linear', 'cosine')
  _match(
    config,
    *('smoothing', 'drop', drop),
    users=('two_stage', *decays, 'reversed'),
  )
  if config.smoothing.schedule in decays and drop == (0,):
    raise InputError(
      f'config.smoothing.drop_* is update 0, but a {config.smoothing.schedule} '
      'decay takes time',
      allowed='1 update or more',
      cure='--config.smoothing.drop_epochs=…',
    )
  _match(config, 'optimizer', 'milestone', milestones, users=('step',))
  least = _resolve(config, 'smoothing', 'min', steps_per_epoch)
  most = _resolve(config, 'smoothing', 'max', steps_per_epoch)
  _check_bounds(config, least, most)
  return Durations(
    steps_per_epoch=steps_per_epoch,
    total_steps=config.epochs * steps_per_epoch,
    drop_step=drop[0] if drop else None,
    milestones=milestones,
    warmup_steps=warmup[0] if warmup else 0,
    min_step=least[0] if least else 0,
    max_step=most[0] if most else None,
    keep_steps=tuple(
      epoch * steps_per_epoch for epoch in config.checkpoint_keep_epochs
    ),
  )


def check(config: 'ml_collections.ConfigDict') -> None:
  """Raises InputError for what is wrong whatever the size of the data set."""
  resolve(config, steps_per_epoch=_MOST_STEPS // config.epochs)


def _resolve(
  config: 'ml_collections.ConfigDict',
  section: str,
  stem: str,
  steps_per_epoch: int,
) -> tuple[int, ...]:
  """The duration `section.stem_{epochs,steps,percent}` in updates; () if unset.

  Every duration of the package goes through here.
  """
  total = config.epochs * steps_per_epoch
  if total > _MOST_STEPS:
    raise InputError(
      f'config.epochs = {config.epochs}: {total} updates',
      allowed=f'at most {_MOST_STEPS} updates',
    )
  scales = {'epochs': steps_per_epoch, 'steps': 1, 'percent': total / 100}
  given = {
    f'config.{section}.{stem}_{unit}': (
      config[section][f'{stem}_{unit}'],
      scale,
    )
    for unit, scale in scales.items()
    if f'{stem}_{unit}' in config[section]
    and config[section][f'{stem}_{unit}'] not in (-1, ())
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
  if any(a >= b for a, b in itertools.pairwise(steps)):
    raise InputError(
      f'{name} = {value}: two of them fall on one update, as {steps}',
      allowed='one update or more between them',
    )
  return steps


def _match(
  config: 'ml_collections.ConfigDict',
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


def _check_bounds(
  config: 'ml_collections.ConfigDict',
  least: tuple[int, ...],
  most: tuple[int, ...],
) -> None:
  """Only schedule auto decides between two updates, the earlier one first."""
  fields = (
    f'config.smoothing.min_epochs = {config.smoothing.min_epochs} and '
    f'max_epochs = {config.smoothing.max_epochs}'
  )
  if (least or most) and config.smoothing.schedule != 'auto':
    raise InputError(
      f'{fields} with smoothing.schedule = {config.smoothing.schedule!r}',
      allowed='with schedule auto',
      cure='leave them out, or --config.smoothing.schedule=auto',
    )
  if most and most <= (least or (0,)):
    raise InputError(
      f'{fields}: nothing could be decided',
      allowed='min_epochs < max_epochs',
      cure='--config.smoothing.max_epochs=…',
    )
