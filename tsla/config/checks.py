"""The checks of a whole config that need neither data nor devices."""

import difflib
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from tsla.config import durations
from tsla.config.forms import flatten
from tsla.config.schema import FIELDS, check_value
from tsla.errors import InputError


def check_file(path: pathlib.Path, flag: str, others: str) -> None:
  """Raises InputError, with the nearest of the others, if there is no `path`.

  `others` is a pattern, such as 'configs/*.py'.
  """
  if path.is_file():
    return
  folder, _, pattern = others.rpartition('/')
  known = sorted(map(str, pathlib.Path(folder).glob(pattern)))
  near = difflib.get_close_matches(str(path), known, n=1, cutoff=0.0)
  raise InputError(
    f'--{flag}={path}: no such file',
    allowed=', '.join(known),
    cure=f'--{flag}={near[0]}' if near else 'run in the folder of main.py',
  )


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks each field, and the fields against each other.

  What depends on the data set is checked when that is known, by
  `tsla.config.durations.resolve` and `tsla.training.build.check_fits`.

  Raises:
    InputError: an unknown or missing field, a wrong type, a value out of range,
      or fields that contradict each other.
  """
  flat = flatten(config)
  for name, value in flat.items():
    check_value(name, value)
  for name in FIELDS:
    if name not in flat:
      problem = f'config.{name}: missing'
      raise InputError(problem, cure='start from default_config()')
  _check_together(flat)
  durations.resolve(config)


def _check_together(flat: Mapping[str, Any]) -> None:
  """Raises InputError for fields that contradict each other."""
  schedule, rule = flat['smoothing.schedule'], flat['smoothing.rule']
  teachers = bool(flat['teacher.run']) + bool(flat['teacher.weights'])
  for wrong, names, allowed in (
    (
      flat['model.weights'] and flat['init.fork_from'],
      ('model.weights', 'init.fork_from'),
      "one of the two, '' the other: a run begins in one place",
    ),
    (
      teachers != (flat['smoothing.target'] == 'teacher'),
      ('teacher.run', 'teacher.weights', 'smoothing.target'),
      'exactly one with target teacher, WORKDIR_OF_A_FINISHED_RUN or FILE; '
      'none with any other',
    ),
    (
      (flat['smoothing.theta'] > 0) != (schedule != 'none'),
      ('smoothing.theta', 'smoothing.schedule'),
      'theta = 0 with schedule none, theta > 0 with any other',
    ),
    (
      bool(rule) != (schedule == 'auto'),
      ('smoothing.rule', 'smoothing.schedule'),
      'a rule, such as delta, with schedule auto, none with any other',
    ),
    (
      rule and not flat['variance.every_epochs'],
      ('variance.every_epochs', 'smoothing.schedule'),
      '1 or more: else the rule would see nothing',
    ),
    (
      rule == 'plateau' and not flat['data.held_out'],
      ('data.held_out', 'smoothing.rule'),
      'more than 0, such as 0.1: the rule looks at the loss there',
    ),
    (
      rule and flat['init.fork_from'],
      ('init.fork_from', 'smoothing.schedule'),
      "'', a run of its own: another run's decisions are not this one's",
    ),
  ):
    if wrong:
      *first, last = (f'{name} = {flat[name]!r}' for name in names)
      raise InputError(
        f'config.{" and ".join(first)} with {last}',
        allowed=allowed,
        cure=' or '.join(f'--config.{name}=…' for name in names),
      )
