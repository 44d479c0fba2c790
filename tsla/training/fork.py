"""One trunk, many branches: a run that begins in another run.

TSLA(s) is, update for update, the LSR run of the same seed until epoch s. So a
run that begins with the LSR run's state of epoch s ends where TSLA(s) alone
does.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tsla import programs
from tsla.config import forms as config_lib
from tsla.config.durations import Durations, resolve
from tsla.errors import InputError
from tsla.runs.checkpoint import AnotherState, open_checkpoints
from tsla.runs.directory import RunRecord, read_run
from tsla.training.build import tables_of
from tsla.training.optimizer import Tables
from tsla.training.step import TrainState

# In these a run may differ from the one it forks from: they change nothing
# before the fork unless theta or the learning rate does.
MAY_DIFFER_AT_FORK = (
  *('epochs', 'log_every', 'eval_every', 'checkpoint_every', 'variance.'),
  *('init.', 'model.weights', 'optimizer.learning_rate', 'optimizer.schedule'),
  *('optimizer.milestone', 'optimizer.decay', 'optimizer.warmup'),
  *('smoothing.schedule', 'smoothing.theta', 'smoothing.drop'),
  'smoothing.reset_momentum',
)
# Of these also the file is the same, if they are in one of one's own; those of
# theta and of a rule are known by what comes of them.
_SAME_FILE = ('smoothing.method', 'smoothing.target', 'model.name')
# Counts of rules, by name: a version of the program with one rule more reads
# the states of the one before.
OPTIONAL = '/firings/'


class Parent(NamedTuple):
  """The run that another one begins in."""

  where: str  # names it in errors
  run: RunRecord
  epoch: int

  def check_same_until(
    self,
    step: int,
    fields: Mapping[str, Any],
    durations: Durations,
    tables: Tables,
    fingerprint: str,
  ) -> None:
    """Raises InputError unless both runs are the same before update `step`.

    `fields` (flat), durations, tables of θ and the learning rate, and the
    fingerprint of the data are those of the run that forks.
    """
    if self.run.fingerprint != fingerprint:
      raise InputError(f'{self.where}: that run is on another data set')
    here = config_lib.identity(fields)
    there = config_lib.identity(config_lib.flatten(self.run.config))
    for name in sorted(here.keys() | there.keys()):
      if here.get(name) != there.get(name) and not name.startswith(
        MAY_DIFFER_AT_FORK
      ):
        default = config_lib.FIELDS[name].default
        raise InputError(
          f'{self.where}: config.{name} is {there.get(name, default)!r} there, '
          f'{here.get(name, default)!r} here',
          allowed='a run that was the same until the fork',
          cure=f'--config.{name}=…, or another run',
        )
    for name, text in config_lib.own_files(fields).items():
      digest = programs.sha256(text)
      trunk = self.run.parts.get(name, digest)
      if name in _SAME_FILE and trunk != digest:
        raise InputError(
          f'{self.where}: config.{name} = {text!r} is another file there: '
          f'SHA-256 {trunk[:12]}… there, {digest[:12]}… here',
          allowed=f'that of {self.run.path}, which has a copy in parts/',
          cure='put that file back, or another run',
        )
    per_epoch = durations.steps_per_epoch
    of_parent = tables_of(self.run.config, resolve(self.run.config, per_epoch))
    here, there = (np.asarray(t)[:, :step] for t in (tables, of_parent))
    if (differs := (here != there).any(0)).any():
      epoch = int(differs.argmax()) / per_epoch
      raise InputError(
        f'{self.where}: from epoch {epoch:g} on theta or the learning rate '
        'there is not that of this run',
        allowed=f'an epoch <= {epoch:g}',
      )

  def restore(
    self, step: int, like: TrainState, steps_per_epoch: int
  ) -> TrainState:
    """The state that the run had after `step` updates, placed as `like`.

    Raises:
      InputError: it was not saved, or is of another network or optimiser.
    """
    with open_checkpoints(self.run.checkpoints) as checkpoints:
      if step not in checkpoints.steps:
        saved = [s / steps_per_epoch for s in checkpoints.steps]
        raise InputError(
          f'{self.where}: that epoch was not saved',
          allowed='epochs ' + ', '.join(f'{s:g}' for s in saved),
          cure='train that run with '
          f'--config.checkpoint_keep_epochs=({self.epoch},)',
        )
      saved = checkpoints.run_of(step).get('config')
      if saved not in (None, config_lib.identity(self.run.fields)):
        raise InputError(
          f'{self.where}: the state of that epoch is of another run',
          allowed='a run directory with its own checkpoints',
          cure=f'train {self.run.path} again',
        )
      try:
        return checkpoints.restore(like, step, optional=OPTIONAL)
      except AnotherState as error:
        raise InputError(
          f'{self.where}: of another network or optimiser: {error}'
        ) from error

  def rows_until(self, step: int) -> list[dict[str, Any]]:
    """Its log up to the fork; not its probe there, which saw its own θ."""
    rows = []
    for row in self.run.rows:
      if row['step'] > step or (row['kind'], row['step']) == ('probe', step):
        break
      rows.append(row)
    return rows


def find_parent(fork_from: str, epochs: int) -> Parent:
  """The run and epoch that `fork_from`, RUN@EPOCH, names.

  Raises:
    InputError: there is no such run, or the epoch leaves nothing of `epochs`.
  """
  where = f'config.init.fork_from = {fork_from!r}'
  path, _, epoch = fork_from.rpartition('@')
  digits = re.fullmatch('[0-9]{1,10}', epoch)
  if not path or not digits or not 0 < int(epoch) < epochs:
    raise InputError(
      f'{where}: no run and epoch',
      allowed=f'RUN@EPOCH with an epoch in 1 to {epochs - 1}',
    )
  return Parent(where, read_run(path, where), int(epoch))
