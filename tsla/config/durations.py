"""Epochs, updates and percents of a config become updates, in one place."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tsla.errors import InputError, Problems

if TYPE_CHECKING:  # else the standard library suffices for `Durations`
  from tsla.config.schema import Config

# Each duration has a field for every unit, of which one is set.
UNITS = ('epochs', 'steps', 'percent')
_MOST_STEPS = 2**31 - 1  # they are counted in int32


@dataclasses.dataclass(frozen=True)
class Durations:
  """Every duration of a run, in updates: all the trainer ever sees."""

  steps_per_epoch: int
  total_steps: int
  # By the name of the fields without their units, as 'smoothing.drop'; several
  # only of milestones, none where the duration is not set.
  steps: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
  keep_steps: tuple[int, ...] = ()  # whose checkpoints stay
  save_every: int = 0  # updates between checkpoints; 0: never, and so on
  eval_every: int = 0
  probe_every: int = 0

  def at(self, name: str, unset: int | None = None) -> int | None:
    """The update of a duration; `unset` where it is not set."""
    return self.steps.get(name, (unset,))[0]


def resolve(config: 'Config', steps_per_epoch: int = 0) -> Durations:
  """Turns epochs, updates and percents of a whole config into updates.

  With `steps_per_epoch` = 0 they are as many as there may be, for what is wrong
  whatever the size of the data set.
  """
  from tsla.config.schema import FIELDS  # needs more than Durations does

  steps_per_epoch = steps_per_epoch or _MOST_STEPS // config.epochs
  total = config.epochs * steps_per_epoch
  if total > _MOST_STEPS:
    problem = f'config.epochs = {config.epochs}: {total} updates'
    raise InputError(problem, allowed=f'at most {_MOST_STEPS} updates')
  scales = dict(zip(UNITS, (steps_per_epoch, 1, total / 100), strict=True))
  names = dict.fromkeys(f.duration for f in FIELDS.values() if f.duration)
  steps, problems = {}, Problems()
  for name in names:
    with problems:
      steps[name] = _to_steps(config, name, total, scales)
  problems.raise_all()
  kept = config.checkpoint_keep_epochs
  return Durations(
    steps_per_epoch=steps_per_epoch,
    total_steps=total,
    steps={name: found for name, found in steps.items() if found},
    keep_steps=tuple(steps_per_epoch * e for e in kept),
    save_every=config.checkpoint_every_epochs * steps_per_epoch,
    eval_every=config.eval_every_epochs * steps_per_epoch,
    probe_every=config.variance.every_epochs * steps_per_epoch,
  )


def round_percents(config: 'Config') -> None:
  """Gives the percents of a whole config in whole epochs instead.

  Where a run is too short for that they stay, and are rounded to updates.
  """
  from tsla.config.schema import FIELDS

  for name in (name for name in FIELDS if name.endswith('_percent')):
    section, _, leaf = name.partition('.')
    options, several = config[section], isinstance(config[section][leaf], tuple)
    numbers = options[leaf] if several else (options[leaf],)
    epochs = [round(config.epochs * number / 100) for number in numbers]
    others = [leaf.replace('percent', unit) for unit in ('epochs', 'steps')]
    places = [0, *epochs, config.epochs]
    alone = all(options[other] in (-1, ()) for other in others)
    if alone and places == sorted({*places}):
      options[others[0]] = tuple(epochs) if several else float(epochs[0])
      options[leaf] = FIELDS[name].default


def _to_steps(
  config: 'Config', name: str, total: int, scales: Mapping[str, float]
) -> tuple[int, ...]:
  """The duration that one of three fields sets, in updates; () if none does."""
  section, _, leaf = name.partition('.')
  fields = {unit: config[section][f'{leaf}_{unit}'] for unit in UNITS}
  given = {u: value for u, value in fields.items() if value not in (-1, ())}
  if not given:
    return ()
  texts = [f'config.{name}_{unit} = {value}' for unit, value in given.items()]
  unit, value = next(iter(given.items()))
  if len(given) > 1:
    unset = '()' if isinstance(value, tuple) else '-1'
    problem = f'{", ".join(texts)}: several units for one duration'
    allowed, cure = 'exactly one of them', f'set the others to {unset}'
    raise InputError(problem, allowed=allowed, cure=cure)
  numbers = value if isinstance(value, tuple) else (value,)
  steps = tuple(round(number * scales[unit]) for number in numbers)
  if max(steps, default=0) >= total:
    problem = f'{texts[0]}: at or after the end of the run'
    allowed = f'before epoch {config.epochs}'
    cure = f'--config.{name}_{unit}=… or --config.epochs=…'
    raise InputError(problem, allowed=allowed, cure=cure)
  if any(a >= b for a, b in itertools.pairwise(steps)):
    problem = f'{texts[0]}: two of them fall on one update, as {steps}'
    raise InputError(problem, allowed='one update or more between them')
  return steps
