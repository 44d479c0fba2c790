"""Where a run begins: anew, from weights, at a checkpoint, in another run.

TSLA(s) is, update for update, the LSR run of the same seed until epoch s. So a
run that begins with the LSR run's state of epoch s ends where TSLA(s) alone
does: one trunk, many branches.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from tsla import smoothing
from tsla.config import forms as config_lib
from tsla.config.durations import Durations, resolve
from tsla.errors import InputError
from tsla.models import pretrained
from tsla.runs.checkpoint import AnotherState, Checkpoints, open_checkpoints
from tsla.runs.directory import RunRecord, read_run
from tsla.training import optimizer
from tsla.training.step import TrainState

# In these a run may differ from the one it forks from: they change nothing
# before the fork unless theta or the learning rate does.
_FREE = (
  *('epochs', 'log_every', 'eval_every', 'checkpoint_every', 'variance.'),
  *('init.', 'model.weights', 'optimizer.learning_rate', 'optimizer.schedule'),
  *('optimizer.milestone', 'optimizer.decay', 'optimizer.warmup'),
  *('smoothing.schedule', 'smoothing.theta', 'smoothing.drop'),
  'smoothing.reset_momentum',
)


class Start(NamedTuple):
  """Where a run begins."""

  state: TrainState
  step: int  # updates done
  rows: tuple[dict[str, Any], ...] = ()  # another run's log until there
  drops: bool = False  # the other run still smoothed, this one does not
  note: str = ''  # what a person should know of it


def find_start(
  config: ml_collections.ConfigDict,
  first: TrainState,
  checkpoints: Checkpoints,
  durations: Durations,
  fingerprint: str,
) -> Start:
  """The newest checkpoint, else what the config names, else `first`.

  The config names a file of weights or another run's epoch, or neither.

  Args:
    config: the run's.
    first: the state before the first update.
    checkpoints: the run's.
    durations: the run's.
    fingerprint: of its data set.

  Raises:
    InputError: there are no such weights, or no such run or epoch to fork from,
      or what there is is of another network or other data.
  """
  if step := checkpoints.latest_step:
    return _resume(config, first, checkpoints, durations, step)
  if config.model.weights:
    return _from_weights(config, first)
  if not config.init.fork_from:
    return Start(first, 0)

  where, run, epoch = _forked_run(config)
  step = epoch * durations.steps_per_epoch
  if run.fingerprint != fingerprint:
    raise InputError(f'{where}: that run is on another data set')
  _check_same_until(where, step, config, durations, run)
  state = _restore_epoch(where, run, step, first, durations)
  scheduled = _with_own_theta(config, state, durations)
  return Start(
    state=scheduled,
    step=step,
    rows=tuple(_rows_until(step, run.rows)),
    drops=bool(smoothing.current_theta(state.opt_state) > 0)
    and not smoothing.current_theta(scheduled.opt_state) > 0,
  )


def check_origin(config: ml_collections.ConfigDict) -> None:
  """Raises InputError if what a new run begins with is not there.

  That is the file of weights or the other run that the config names. It takes
  no data set, so that nobody waits for one in vain.
  """
  if config.model.weights:
    pretrained.read_state_dict(
      config.model.weights, config.model.weights_sha256
    )
  if config.init.fork_from:
    _forked_run(config)


def _forked_run(
  config: ml_collections.ConfigDict,
) -> tuple[str, RunRecord, int]:
  """What `init.fork_from` names: for errors, the run and the epoch."""
  where = f'config.init.fork_from = {config.init.fork_from!r}'
  path, _, epoch = config.init.fork_from.rpartition('@')
  if not path or not epoch.isdigit() or not 0 < int(epoch) < config.epochs:
    raise InputError(
      f'{where}: no run and epoch',
      allowed=f'RUN@EPOCH with an epoch in 1 to {config.epochs - 1}',
    )
  return where, read_run(path, where), int(epoch)


def _check_same_until(
  where: str,
  step: int,
  config: ml_collections.ConfigDict,
  durations: Durations,
  run: RunRecord,
) -> None:
  """Raises InputError unless both runs are the same up to the fork."""
  here = config_lib.identity(config_lib.flatten(config))
  there = config_lib.identity(config_lib.flatten(run.config))
  for name in sorted(here.keys() | there.keys()):
    if here.get(name) != there.get(name) and not name.startswith(_FREE):
      default = config_lib.FIELDS[name].default
      raise InputError(
        f'{where}: config.{name} is {there.get(name, default)!r} there, '
        f'{here.get(name, default)!r} here',
        allowed='a run that was the same until the fork',
        cure=f'--config.{name}=…, or another run',
      )
  tables = [
    np.asarray(optimizer.tabulate(each, until))[:, :step]
    for each, until in (
      (config, durations),
      (run.config, resolve(run.config, durations.steps_per_epoch)),
    )
  ]
  if (differs := (tables[0] != tables[1]).any(0)).any():
    epoch = int(differs.argmax()) / durations.steps_per_epoch
    raise InputError(
      f'{where}: from epoch {epoch:g} on theta or the learning rate there is '
      'not that of this run',
      allowed=f'an epoch <= {epoch:g}',
    )


def _resume(
  config: ml_collections.ConfigDict,
  first: TrainState,
  checkpoints: Checkpoints,
  durations: Durations,
  step: int,
) -> Start:
  try:
    state = checkpoints.restore(first, step)
  except AnotherState as error:
    raise InputError(
      f'the checkpoint of update {step:,}: {error}',
      allowed='the network and the optimiser that it was saved with',
      cure='another --workdir, or the config that is there',
    ) from error
  return Start(
    # The config may have changed since; what was not changed stays as it is.
    state=_with_own_theta(config, state, durations),
    step=step,
    note='\n'.join(checkpoints.passed_over),
  )


def _with_own_theta(
  config: ml_collections.ConfigDict, state: TrainState, durations: Durations
) -> TrainState:
  """`state` with the θ that this run's own schedule has there."""
  table = np.asarray(optimizer.tabulate(config, durations).theta)

  def schedule(count: jax.Array) -> jax.Array:
    # Placed as it was, so that nothing is compiled twice.
    theta = table[: int(count) + 1][-1:].reshape(())
    return jax.make_array_from_callback((), count.sharding, lambda _: theta)

  return state.replace(
    opt_state=smoothing.with_schedule(state.opt_state, schedule)
  )


def _rows_until(
  step: int, rows: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
  """The rows up to the fork; not its probe, which saw the other run's θ."""
  for row in rows:
    if row['step'] > step or (row['kind'], row['step']) == ('probe', step):
      return
    yield row


def _from_weights(
  config: ml_collections.ConfigDict, first: TrainState
) -> Start:
  file = config.model.weights
  variables, rows = pretrained.to_variables(
    pretrained.read_state_dict(file, config.model.weights_sha256),
    {'params': first.params, 'batch_stats': first.batch_stats},
  )
  variables = jax.tree.map(
    lambda new, old: jax.device_put(new, old.sharding),
    variables,
    {'params': first.params, 'batch_stats': first.batch_stats},
  )
  taken = sum(bool(row.path) for row in rows)
  note = f'{file}: {taken} arrays taken'
  if any(row.name.startswith('fc.') and not row.path for row in rows):
    note += ', the head drawn anew for another number of classes'
  return Start(first.replace(**variables), 0, note=note)


def _restore_epoch(
  where: str,
  run: RunRecord,
  step: int,
  like: TrainState,
  durations: Durations,
) -> TrainState:
  with open_checkpoints(run.checkpoints) as checkpoints:
    if step not in checkpoints.steps:
      saved = [s / durations.steps_per_epoch for s in checkpoints.steps]
      epoch = step // durations.steps_per_epoch
      raise InputError(
        f'{where}: that epoch was not saved',
        allowed='epochs ' + ', '.join(f'{s:g}' for s in saved),
        cure=f'train that run with --config.checkpoint_keep_epochs=({epoch},)',
      )
    try:
      return checkpoints.restore(like, step)
    except AnotherState as error:
      raise InputError(
        f'{where}: of another network or optimiser: {error}'
      ) from error
