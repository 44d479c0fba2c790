"""The checks of a whole config that need neither data nor devices."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from tsla.config import durations
from tsla.config.forms import flatten
from tsla.config.schema import FIELDS, check_field_name, check_value
from tsla.errors import InputError


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks each field, and the fields against each other.

  What depends on the data set is checked when that is known, by
  `tsla.config.durations.resolve` and `tsla.training.build.check_fits`.

  Raises:
    InputError: an unknown or missing field, a wrong type, a value out of range,
      or fields that contradict each other.
  """
  flat = flatten(config)
  for name in flat:
    check_field_name(name)
  for name in FIELDS:
    if name not in flat:
      raise InputError(
        f'config.{name}: missing', cure='start from default_config()'
      )
    check_value(name, flat[name])
  _check_beginning_and_teacher(flat)
  _check_smoothing(flat)
  durations.resolve(config)


def _check_beginning_and_teacher(flat: Mapping[str, Any]) -> None:
  """A run has one beginning, and a teacher only if ŷ is a teacher's."""
  weights, fork = flat['model.weights'], flat['init.fork_from']
  if weights and fork:
    raise InputError(
      f'config.model.weights = {weights!r} and init.fork_from = {fork!r}: a '
      'run begins in one place',
      cure='--config.model.weights= or --config.init.fork_from=',
    )
  run, weights = flat['teacher.run'], flat['teacher.weights']
  target = flat['smoothing.target']
  if bool(run) + bool(weights) != (target == 'teacher'):
    raise InputError(
      f'config.teacher.run = {run!r} and teacher.weights = {weights!r} with '
      f'smoothing.target = {target!r}',
      allowed='exactly one with target teacher, none with any other',
      cure='--config.teacher.run=WORKDIR_OF_A_FINISHED_RUN, or '
      '--config.teacher.weights=FILE',
    )


def _check_smoothing(flat: Mapping[str, Any]) -> None:
  """θ fits its schedule; schedule auto has a rule, and the rule its data."""
  theta, schedule = flat['smoothing.theta'], flat['smoothing.schedule']
  if (theta > 0) != (schedule != 'none'):
    raise InputError(
      f'config.smoothing.theta = {theta} with smoothing.schedule = '
      f'{schedule!r}',
      allowed='theta = 0 with schedule none, theta > 0 with any other',
      cure='--config.smoothing.theta=… or --config.smoothing.schedule=…',
    )
  rule = flat['smoothing.rule']
  if bool(rule) != (schedule == 'auto'):
    raise InputError(
      f'config.smoothing.rule = {rule!r} with smoothing.schedule = '
      f'{schedule!r}',
      allowed='a rule with schedule auto, none with any other',
      cure='--config.smoothing.rule=delta or --config.smoothing.schedule=…',
    )
  if not rule:
    return
  if not flat['variance.every_epochs']:
    raise InputError(
      'config.variance.every_epochs = 0 with smoothing.schedule = '
      "'auto': the rule would see nothing",
      allowed='1 or more',
      cure='--config.variance.every_epochs=1',
    )
  if rule == 'plateau' and not flat['data.held_out']:
    raise InputError(
      "config.data.held_out = 0.0 with smoothing.rule = 'plateau'",
      allowed='more than 0: the rule looks at the loss there',
      cure='--config.data.held_out=0.1',
    )
  if fork := flat['init.fork_from']:
    raise InputError(
      f'config.init.fork_from = {fork!r} with smoothing.schedule = '
      "'auto': another run's decisions are not this one's",
      allowed='a run of its own',
      cure='--config.init.fork_from=',
    )
