"""A table becomes a tree of runs that share what they can.

TSLA(s) equals, update for update, the LSR run of the same seed until epoch s.
So of all runs that differ in nothing but the end of smoothing, the one that
smooths longest is trained whole, the trunk, and the others fork from it, each
at the epoch where its smoothing ends.
"""

import collections
import dataclasses
import functools
import graphlib
import math
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import ml_collections

from tsla.config.checks import validate
from tsla.config.forms import config_hash
from tsla.errors import InputError
from tsla.runs.checkpoint import Checkpoints
from tsla.runs.directory import read_run, read_saved, state_of
from tsla.sweep.table import ENDLESS, Row, Table

# The states of a run that trains no further, whose checkpoints others may use.
ENDED = ('done', 'diverged')


@dataclasses.dataclass(frozen=True)
class PlannedRun:
  """One row with one seed.

  Its folder below the sweep's has a name that ends in a hash of all that makes
  the run what it is, so that a changed config is a new run.
  """

  row: str
  seed: int
  directory: str
  config: ml_collections.ConfigDict  # as if it were trained alone
  trunk: str = ''  # folder of the run it forks from
  first_epoch: int = 0  # where it does
  teacher: str = ''  # folder of the run that gives ŷ
  stage: int = 0  # one more than of the runs it needs

  @property
  def needs(self) -> tuple[str, ...]:
    """Folders of the runs that must be finished before this one."""
    return tuple(filter(None, (self.trunk, self.teacher)))

  @property
  def end_of_smoothing(self) -> float:
    """In epochs; infinite where it has no end, -1 where it is not known yet."""
    smoothing = self.config.smoothing
    if smoothing.schedule == 'constant':
      return math.inf
    if smoothing.drop_percent != -1:
      return smoothing.drop_percent * self.config.epochs / 100
    return float(smoothing.drop_epochs)

  @property
  def label(self) -> str:
    """The run's name for a person."""
    return f'{self.row} seed {self.seed}'


def plan(
  table: Table, seeds: Sequence[int], workdir: str | os.PathLike
) -> list[PlannedRun]:
  """Every run of a table, one a row and seed, those that others need first."""
  rows = _in_order_of_need(table)
  workdir = pathlib.Path(workdir).absolute()
  place = {row.name: index for index, row in enumerate(table.rows)}
  runs: list[PlannedRun] = []
  for seed in seeds:
    alone: dict[str, PlannedRun] = {}
    for row in rows:
      alone[row.name] = _alone(row, seed, alone, workdir)
    runs += _share(sorted(alone.values(), key=lambda run: place[run.row]))
  by_directory = {run.directory: run for run in runs}

  @functools.cache
  def stage(name: str) -> int:
    return 1 + max(map(stage, by_directory[name].needs), default=-1)

  runs = [dataclasses.replace(r, stage=stage(r.directory)) for r in runs]
  return sorted(runs, key=lambda run: (run.stage, run.seed, place[run.row]))


def _in_order_of_need(table: Table) -> list[Row]:
  """The rows, teachers first; raises InputError for names that do not fit."""
  names = collections.Counter(row.name for row in table.rows)
  where = f'table {table.name!r}'
  for name, count in names.items():
    if count > 1:
      raise InputError(f'{where}: {count} rows are named {name!r}')
  for row in table.rows:
    if row.teacher and (row.teacher not in names or row.teacher == row.name):
      problem = f'row {row.name!r} has the teacher {row.teacher!r}'
      problem, allowed = f'{where}: {problem}', 'another row of the table'
      raise InputError(problem, allowed=allowed)
  needs = {row.name: [row.teacher] * bool(row.teacher) for row in table.rows}
  try:
    order = list(graphlib.TopologicalSorter(needs).static_order())
  except graphlib.CycleError as error:
    teachers = f'the teachers of {", ".join(error.args[1][1:])}'
    raise InputError(f'{where}: {teachers} need each other') from error
  return sorted(table.rows, key=lambda row: order.index(row.name))


def _alone(
  row: Row, seed: int, others: dict[str, PlannedRun], workdir: pathlib.Path
) -> PlannedRun:
  """The run of a row as if it shared nothing."""
  config = row.config.copy_and_resolve_references()
  config.seed = seed
  teacher = others[row.teacher].directory if row.teacher else ''
  if teacher:
    config.teacher.run = str(workdir / teacher)
  try:
    config = validate(config)
  except InputError as error:
    problem = f'row {row.name!r}: {error.problem}'
    raise InputError(problem, allowed=error.allowed, cure=error.cure) from error
  if teacher and not config.teacher.run:
    problem = f'row {row.name!r}: its teacher {row.teacher!r} is not used'
    allowed = "smoothing.target = 'teacher' in a row with a teacher"
    raise InputError(problem, allowed=allowed)
  slug = re.sub(r'[^a-z0-9.]+', '-', row.name.lower()).strip('-')
  directory = f'{slug}-seed{seed}-{_hash(config, teacher)}'
  return PlannedRun(row.name, seed, directory, config, teacher=teacher)


def _hash(config: ml_collections.ConfigDict, teacher: str, **end: Any) -> str:
  """Names what makes a run, wherever the sweep's folder lies."""
  config = config.copy_and_resolve_references()
  config.smoothing.update(end)
  if teacher:  # its folder's name says what it is
    config.teacher.run = teacher
  return config_hash(config)


def _share(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
  """Lets runs of one seed fork from the longest-smoothing one of their kind."""
  kinds = collections.defaultdict(list)
  for run in runs:
    kind, smoothing = run.directory, run.config.smoothing
    if smoothing.schedule in ('constant', 'two_stage'):
      kind = _hash(run.config, run.teacher, **ENDLESS)
    # With a reset the optimiser's state has one part more.
    kinds[kind, smoothing.reset_momentum].append(run)
  shared = []
  for members in kinds.values():
    trunk = max(members, key=lambda run: run.end_of_smoothing)
    kept = {*trunk.config.checkpoint_keep_epochs}
    for run in members:
      end = run.end_of_smoothing
      if end >= 1 and end.is_integer() and end < trunk.end_of_smoothing:
        fork = {'trunk': trunk.directory, 'first_epoch': int(end)}
        run = dataclasses.replace(run, **fork)
        kept.add(run.first_epoch)
      shared.append(run)
    trunk.config.checkpoint_keep_epochs = tuple(sorted(kept))
  return shared


def resolve_fork(run: PlannedRun, workdir: pathlib.Path) -> PlannedRun:
  """The run as it was begun, or can be now that its trunk has ended.

  The trunk of a table that got rows later on need not have saved the epoch at
  which smoothing ends, and what it saved may be damaged. Until there they are
  the same, so any epoch before it serves; without one the run is trained alone.
  """
  if begun := read_saved(workdir / run.directory):
    path, _, epoch = begun.config.init.fork_from.rpartition('@')
    trunk = pathlib.Path(path).name
    return dataclasses.replace(run, trunk=trunk, first_epoch=int(epoch or 0))
  if not run.trunk or state_of(workdir / run.trunk) not in ENDED:
    return run
  trunk = read_run(workdir / run.trunk, f'the trunk of {run.label}')
  last = trunk.rows[-1]
  per_epoch = round(last['step'] / last['epoch'])
  with Checkpoints(trunk.checkpoints) as checkpoints:
    for step in reversed(checkpoints.steps):
      epoch, within = divmod(step, per_epoch)
      fits = 0 < epoch <= run.first_epoch and not within
      if fits and checkpoints.is_whole(step):
        return dataclasses.replace(run, first_epoch=epoch)
  return dataclasses.replace(run, trunk='', first_epoch=0)


def config_to_train(
  run: PlannedRun, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
  """The config that trains a run with a resolved fork: it names the fork."""
  if not run.directory.endswith(_hash(run.config, run.teacher)):
    problem = f'{run.label}: a file that its config names was edited meanwhile'
    cure = 'start the sweep again: it is another run now'
    raise InputError(problem, cure=cure)
  config = run.config.copy_and_resolve_references()
  if run.trunk:
    config.init.fork_from = f'{workdir / run.trunk}@{run.first_epoch}'
    config.model.weights = ''  # the trunk began with them
    config.model.weights_sha256 = ''
  return config
