"""Where a run begins: anew, from weights, at a checkpoint, in another run.

TSLA(s) is, update for update, the LSR run of the same seed until epoch s. So a
run that begins with the LSR run's state of epoch s ends where TSLA(s) alone
does: one trunk, many branches.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from tsla import programs, smoothing
from tsla.config import forms
from tsla.config.durations import Durations, resolve
from tsla.config.schema import Section
from tsla.errors import InputError
from tsla.models import pretrained
from tsla.runs.checkpoint import Checkpoints
from tsla.runs.directory import RunRecord, differences, read_run
from tsla.training.build import tables_of
from tsla.training.finished import load
from tsla.training.optimizer import Tables
from tsla.training.step import TrainState

# In these a run may differ from the one it forks from: they change nothing
# before the fork unless theta or the learning rate does.
_MAY_DIFFER = (
  *('epochs', 'log_every', 'eval_every', 'checkpoint_every', 'variance.'),
  *('init.', 'model.weights', 'optimizer.learning_rate', 'optimizer.schedule'),
  *('optimizer.milestone', 'optimizer.decay', 'optimizer.warmup'),
  *('smoothing.schedule', 'smoothing.theta', 'smoothing.drop'),
  *('smoothing.reset_momentum', 'eval_test'),
)
# Of these also the file is the same, if they are in one of one's own; those of
# theta and of a rule are known by what comes of them.
_SAME_FILE = ('smoothing.method', 'smoothing.target', 'model.name')


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
  taught_by: str = '',
  class_names: Sequence[str] = (),
) -> Start:
  """The newest checkpoint, else what the config names, else `first`.

  Fingerprint and names are those of the data set, `taught_by` the teacher's.
  InputError for what is not there, or of another network, data or teacher.
  """
  if step := checkpoints.latest_step:
    trained = checkpoints.restore(
      *(first, step),
      where=f'the checkpoint of update {step:,}',
      allowed='the network, optimiser and version that it was saved with',
      cure='another --workdir, or the config that is there',
    )
    # The config may have changed since; what was not changed stays as it is.
    state = _with_own_theta(trained, tables)
    note = '\n'.join(checkpoints.passed_over)
    return Start(state, step, note=note, saved=checkpoints.run_of(step))
  if config.model.weights:
    return _from_weights(config.model, first, class_names)
  if not config.init.fork_from:
    return Start(first, 0)

  where, parent, epoch = _find_parent(config.init.fork_from, config.epochs)
  step = epoch * durations.steps_per_epoch
  if parent.fingerprint != fingerprint:
    problem = f'{where}: that run is on another data set'
    cure = 'a run on this one; if an earlier version trained it, train it anew'
    raise InputError(problem, cure=cure)
  _check_fields(where, parent, forms.flatten(config))
  _check_tables(where, parent, step, tables, durations.steps_per_epoch)
  trunk = _of_epoch(where, parent, epoch, step, first, taught_by)
  rows = []  # up to the fork; not its probe there, which saw its own θ
  for row in parent.rows:
    if row['step'] > step or (row['kind'], row['step']) == ('probe', step):
      break
    rows.append(row)
  return Start(_with_own_theta(trunk, tables), step, rows=rows)


def check_origin(options: Section, fork_from: str, epochs: int) -> None:
  """Raises InputError if what a new run begins with is missing, before data."""
  if options.weights:
    read_weights(options.weights, options.weights_sha256)
  if fork_from:
    _find_parent(fork_from, epochs)


def read_weights(
  path: str, sha256: str = '', field: str = 'config.model.weights'
) -> tuple[dict[str, np.ndarray], list[str] | None]:
  """The state dict of a file; or of a finished run, and its class names."""
  if not os.path.isdir(path) or sha256:
    return pretrained.read_state_dict(path, sha256, field), None
  network = load(path, f'{field} = {path!r}')
  names = network.description['class_names']
  return pretrained.to_state_dict(network.variables), names


def _with_own_theta(state: TrainState, tables: Tables) -> TrainState:
  """`state` with the θ that this run's own schedule has there."""
  thetas = np.asarray(tables.theta)

  def schedule(count: jax.Array) -> jax.Array:
    # Placed as it was, so that nothing is compiled twice.
    theta = thetas[: int(count) + 1][-1:].reshape(())
    return jax.make_array_from_callback((), count.sharding, lambda _: theta)

  opt_state = smoothing.with_schedule(state.opt_state, schedule)
  return state.replace(opt_state=opt_state)


def _from_weights(
  options: Section, first: TrainState, class_names: Sequence[str]
) -> Start:
  weights, names = read_weights(options.weights, options.weights_sha256)
  if others := names not in (None, [*class_names]):  # without its head's rows
    weights |= {n: a[:0] for n, a in weights.items() if n.startswith('fc.')}
  variables, rows = pretrained.to_variables(weights, first.variables)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, first.variables)
  variables = jax.tree.map(jax.device_put, variables, shardings)
  taken = sum(bool(row.path) for row in rows)
  note = f'{options.weights}: {taken} arrays taken'
  if any(row.name.startswith('fc.') and not row.path for row in rows):
    note += ', the head drawn anew for other classes or another order'
  elif others:  # a network of one's own, whose head is not known
    note += ', the head too, though of other classes or another order'
  return Start(first.replace(**variables), 0, note=note)


def _find_parent(fork_from: str, epochs: int) -> tuple[str, RunRecord, int]:
  """The run and epoch of RUN@EPOCH, after what names it in errors."""
  where = f'config.init.fork_from = {fork_from!r}'
  path, _, epoch = fork_from.rpartition('@')
  digits = re.fullmatch('[0-9]{1,10}', epoch)
  if not path or not digits or not 0 < int(epoch) < epochs:
    allowed = f'RUN@EPOCH with an epoch in 1 to {epochs - 1}'
    raise InputError(f'{where}: no run and epoch', allowed=allowed)
  return where, read_run(path, where), int(epoch)


def _check_fields(
  where: str, parent: RunRecord, fields: Mapping[str, Any]
) -> None:
  """Raises InputError if a run differs from its parent where it may not."""
  there, here = map(forms.identity, (forms.flatten(parent.config), fields))
  for name, values in differences(there, here).items():
    if not name.startswith(_MAY_DIFFER):
      raise InputError(
        f'{where}: config.{name} is {values}',
        allowed='a run that was the same until the fork',
        cure=f'--config.{name}=…, or another run',
      )
  for name, text in forms.own_files(fields).items():
    digest = programs.sha256(text)
    trunk = parent.parts.get(name, digest)
    if name in _SAME_FILE and trunk != digest:
      raise InputError(
        f'{where}: config.{name} = {text!r} is another file there: '
        f'SHA-256 {trunk[:12]}… there, {digest[:12]}… here',
        allowed=f'that of {parent.path}, which has a copy in parts/',
        cure='put that file back, or another run',
      )


def _check_tables(
  where: str, parent: RunRecord, step: int, tables: Tables, per_epoch: int
) -> None:
  """Raises InputError if θ or the rate was another before update `step`."""
  of_parent = tables_of(parent.config, resolve(parent.config, per_epoch))
  here, there = (np.asarray(t)[:, :step] for t in (tables, of_parent))
  if (differs := (here != there).any(0)).any():
    epoch = int(differs.argmax()) / per_epoch
    problem = f'{where}: from epoch {epoch:g} on theta or the learning rate '
    problem += 'there is not that of this run'
    raise InputError(problem, allowed=f'an epoch <= {epoch:g}')


def _of_epoch(
  where: str,
  parent: RunRecord,
  epoch: int,
  step: int,
  like: TrainState,
  taught_by: str,
) -> TrainState:
  """The state of a run after an epoch's last update, placed as `like`."""
  with Checkpoints(parent.checkpoints) as checkpoints:
    if step not in checkpoints.steps:
      saved = ', '.join(f'{s * epoch / step:g}' for s in checkpoints.steps)
      problem = f'{where}: that epoch was not saved'
      cure = f'train that run with --config.checkpoint_keep_epochs=({epoch},)'
      raise InputError(problem, allowed=f'epochs {saved}', cure=cure)
    saved = checkpoints.run_of(step).get('config')
    if saved not in (None, forms.identity(parent.fields)):
      problem = f'{where}: the state of that epoch is of another run'
      allowed = 'a run directory with its own checkpoints'
      cure = f'train {parent.path} again'
      raise InputError(problem, allowed=allowed, cure=cure)
    teacher = checkpoints.run_of(step).get('teacher')
    if taught_by and teacher and teacher != taught_by:
      problem = f'{where}: another teacher, or matrix, taught it'
      allowed = f'SHA-256 {teacher[:12]}…; here {taught_by[:12]}…'
      cure = f'that one, or train {parent.path} again'
      raise InputError(problem, allowed=allowed, cure=cure)
    where = f'{where}: of another network or optimiser'
    return checkpoints.restore(like, step, where=where)
