"""Where a run begins: anew, from weights, at a checkpoint, in another run."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from tsla import smoothing
from tsla.config.durations import Durations
from tsla.config.forms import flatten
from tsla.config.schema import Section
from tsla.errors import InputError
from tsla.models import pretrained
from tsla.runs.checkpoint import AnotherState, Checkpoints
from tsla.training import fork
from tsla.training.optimizer import Tables
from tsla.training.step import TrainState


class Start(NamedTuple):
  """Where a run begins."""

  state: TrainState
  step: int  # updates done
  rows: Sequence[dict[str, Any]] = ()  # another run's log until there
  saved: Mapping[str, Any] = {}  # `Manifest.run` of the run's own checkpoint
  note: str = ''  # what a person should know of it


def find_start(
  config: ml_collections.ConfigDict,
  first: TrainState,
  tables: Tables,
  checkpoints: Checkpoints,
  durations: Durations,
  fingerprint: str,
) -> Start:
  """The newest checkpoint, else what the config names, else `first`.

  The config names a file of weights or another run's epoch, or neither; first
  is the state before the first update, the fingerprint that of the data set.

  Raises:
    InputError: there are no such weights, or no such run or epoch to fork from,
      or what there is is of another network or other data.
  """
  if step := checkpoints.latest_step:
    # The config may have changed since; what was not changed stays as it is.
    state = _with_own_theta(_resume(first, checkpoints, step), tables)
    note = '\n'.join(checkpoints.passed_over)
    return Start(state, step, note=note, saved=checkpoints.run_of(step))
  if config.model.weights:
    return _from_weights(config.model, first)
  if not config.init.fork_from:
    return Start(first, 0)

  parent = fork.find_parent(config.init.fork_from, config.epochs)
  step = parent.epoch * durations.steps_per_epoch
  parent.check_same_until(step, flatten(config), durations, tables, fingerprint)
  trunk = parent.restore(step, first, durations.steps_per_epoch)
  state = _with_own_theta(trunk, tables)
  return Start(state, step, rows=parent.rows_until(step))


def check_origin(options: Section, fork_from: str, epochs: int) -> None:
  """Raises InputError if what a new run begins with is not there.

  It takes no data set, so that nobody waits for one in vain.
  """
  if options.weights:
    pretrained.read_state_dict(options.weights, options.weights_sha256)
  if fork_from:
    fork.find_parent(fork_from, epochs)


def _resume(
  first: TrainState, checkpoints: Checkpoints, step: int
) -> TrainState:
  try:
    return checkpoints.restore(first, step, optional=fork.OPTIONAL)
  except AnotherState as error:
    raise InputError(
      f'the checkpoint of update {step:,}: {error}',
      allowed='the network, optimiser and version that it was saved with',
      cure='another --workdir, or the config that is there',
    ) from error


def _with_own_theta(state: TrainState, tables: Tables) -> TrainState:
  """`state` with the θ that this run's own schedule has there."""
  thetas = np.asarray(tables.theta)

  def schedule(count: jax.Array) -> jax.Array:
    # Placed as it was, so that nothing is compiled twice.
    theta = thetas[: int(count) + 1][-1:].reshape(())
    return jax.make_array_from_callback((), count.sharding, lambda _: theta)

  return state.replace(
    opt_state=smoothing.with_schedule(state.opt_state, schedule)
  )


def _from_weights(options: Section, first: TrainState) -> Start:
  variables, rows = pretrained.to_variables(
    pretrained.read_state_dict(options.weights, options.weights_sha256),
    first.variables,
  )
  variables = jax.tree.map(
    lambda new, old: jax.device_put(new, old.sharding),
    variables,
    first.variables,
  )
  taken = sum(bool(row.path) for row in rows)
  note = f'{options.weights}: {taken} arrays taken'
  if any(row.name.startswith('fc.') and not row.path for row in rows):
    note += ', the head drawn anew for another number of classes'
  return Start(first.replace(**variables), 0, note=note)
