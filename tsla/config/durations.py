"""Epochs, updates and percents of a config become updates, in one place."""

import dataclasses
import functools
import itertools
from typing import TYPE_CHECKING

from tsla.errors import InputError

if TYPE_CHECKING:  # else the standard library suffices
  import ml_collections

  from tsla.config.schema import Section

_MOST_STEPS = 2**31 - 1  # they are counted in int32
_DECAYS = ('linear', 'cosine')


@dataclasses.dataclass(frozen=True)
class Durations:
  """Every duration of a run, in updates: all the trainer ever sees."""

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

  Example:
    >>> from tsla.config.forms import default_config
    >>> config = default_config()
    >>> config.smoothing.schedule = 'two_stage'
    >>> config.smoothing.drop_epochs = 20.0
    >>> resolve(config, steps_per_epoch=44).drop_step
    880
  """
  steps_per_epoch = steps_per_epoch or _MOST_STEPS // config.epochs
  total = config.epochs * steps_per_epoch
  if total > _MOST_STEPS:
    raise InputError(
      f'config.epochs = {config.epochs}: {total} updates',
      allowed=f'at most {_MOST_STEPS} updates',
    )
  smoothing, optimizer = config.smoothing, config.optimizer
  steps = functools.partial(_to_steps, total, steps_per_epoch)
  drop = steps('smoothing.drop', smoothing)
  milestones = steps('optimizer.milestone', optimizer)
  warmup = steps('optimizer.warmup', optimizer)
  least, most = (steps(f'smoothing.{x}', smoothing) for x in ('min', 'max'))
  schedule = smoothing.schedule
  _match('smoothing.drop', drop, schedule, 'two_stage', *_DECAYS, 'reversed')
  if schedule in _DECAYS and drop == (0,):
    raise InputError(
      f'config.smoothing.drop_* is update 0, but a {schedule} decay takes time',
      allowed='1 update or more',
      cure='--config.smoothing.drop_epochs=…',
    )
  _match('optimizer.milestone', milestones, optimizer.schedule, 'step')
  bounds = (
    f'config.smoothing.min_epochs = {smoothing.min_epochs} and '
    f'max_epochs = {smoothing.max_epochs}'
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
  kept = config.checkpoint_keep_epochs
  return Durations(
    steps_per_epoch=steps_per_epoch,
    total_steps=total,
    drop_step=drop[0] if drop else None,
    milestones=milestones,
    warmup_steps=warmup[0] if warmup else 0,
    min_step=least[0] if least else 0,
    max_step=most[0] if most else None,
    keep_steps=tuple(steps_per_epoch * e for e in kept),
    save_every=config.checkpoint_every_epochs * steps_per_epoch,
    eval_every=config.eval_every_epochs * steps_per_epoch,
    probe_every=config.variance.every_epochs * steps_per_epoch,
  )


def _to_steps(
  total: int, steps_per_epoch: int, name: str, section: 'Section'
) -> tuple[int, ...]:
  """The duration that one of three fields sets, in updates; () if none does.

  Every duration of the package goes through here.

  `name` is the fields' without their units, as 'smoothing.drop'; in their
  section -1, () and a unit that it lacks are unset.
  """
  scales = {'epochs': steps_per_epoch, 'steps': 1, 'percent': total / 100}
  stem = name.partition('.')[2]
  fields = [(unit, section.get(f'{stem}_{unit}', -1)) for unit in scales]
  given = [(unit, value) for unit, value in fields if value not in (-1, ())]
  if not given:
    return ()
  texts = [f'config.{name}_{unit} = {value}' for unit, value in given]
  unit, value = given[0]
  if len(given) > 1:
    unset = '()' if isinstance(value, tuple) else '-1'
    raise InputError(
      f'{", ".join(texts)}: several units for one duration',
      allowed='exactly one of them',
      cure=f'set the others to {unset}',
    )
  numbers = value if isinstance(value, tuple) else (value,)
  steps = tuple(round(number * scales[unit]) for number in numbers)
  if max(steps, default=0) >= total:
    raise InputError(
      f'{texts[0]}: at or after the end of the run',
      allowed=f'before epoch {total // steps_per_epoch}',
      cure=f'--config.{name}_{unit}=… or --config.epochs=…',
    )
  if any(a >= b for a, b in itertools.pairwise(steps)):
    raise InputError(
      f'{texts[0]}: two of them fall on one update, as {steps}',
      allowed='one update or more between them',
    )
  return steps


def _match(
  name: str, steps: tuple[int, ...], schedule: str, *users: str
) -> None:
  """A duration is set if, and only if, its section's schedule is a user."""
  if bool(steps) == (schedule in users):
    return
  selector = f'config.{name.partition(".")[0]}.schedule'
  found, wish = ('set', 'has no use for') if steps else ('not set', 'needs')
  way_out = 'leave it out' if steps else f'--config.{name}_epochs=…'
  raise InputError(
    f'config.{name}_epochs (or _steps, _percent) is {found}, but {selector} = '
    f'{schedule!r} {wish} it',
    allowed=f'set with schedule {" or ".join(users)}, unset with any other',
    cure=f'{way_out}, or --{selector}=…',
  )
