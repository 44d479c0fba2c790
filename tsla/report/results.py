"""Directories become tables of runs, with what the runs' logs say.

A table is a folder with a `table.json`, which names its rows and the run
directories inside; or run directories of `main.py`, which are given one by one.
Only a run that is done, and whose log says so too, is `done` here.
"""

import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from tsla.config import forms as config_lib
from tsla.errors import InputError
from tsla.runs import files

DONE = 'done'
# What a table shows of the last evaluation.
METRICS = ('top1', 'top5', 'nll', 'ece')

_REASONS = {
  'running': 'still running, or killed',
  'interrupted': 'stopped by a signal after a save',
  'diverged': 'a number was not finite any more',
}
_TABLE = {'name': str, 'title': str, 'command': str, 'rows': list, 'runs': list}
_RUN = {
  'row': str,
  'seed': int,
  'directory': str,
  'epochs': int,
  'first_epoch': int,
}
_CONFIG = {
  'seed': int,
  'epochs': int,
  'batch_size': int,
  'eval_every_epochs': int,
}


@dataclasses.dataclass(frozen=True)
class RunResult:
  """One run of a table, or the place where it should be.

  Attributes:
    row: the method.
    seed: pairs it with the other rows' runs.
    directory: where it is or would be.
    epochs: of the whole run.
    first_epoch: epochs that it took over from another run.
    trunk: the name of that run, '' for none.
    state: 'done', 'missing', 'damaged', or what its `status.json` says.
    reason: why it is not done.
    config: the fields of its `config.json`; empty without a run.
    fingerprint: of its data set, '' if unknown.
    log: the rows of its `metrics.jsonl` by kind: train, eval, probe
      and switch.
    environment: what its `environment.json` says.
  """

  row: str
  seed: int
  directory: pathlib.Path
  epochs: int
  first_epoch: int
  trunk: str = ''
  state: str = 'missing'
  reason: str = 'not started'
  config: dict[str, Any] = dataclasses.field(default_factory=dict)
  fingerprint: str = ''
  log: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
  environment: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def done(self) -> bool:
    """Whether its numbers count."""
    return self.state == DONE

  def rows(self, kind: str) -> list[dict[str, Any]]:
    """The rows of its log of one kind, in the order of the updates."""
    return self.log.get(kind, [])

  @property
  def test(self) -> dict[str, float]:
    """The last evaluation; only a run that is done has one for certain."""
    return self.rows('eval')[-1]

  @property
  def steps_per_epoch(self) -> int | None:
    """Updates an epoch, from an evaluation; None before the first one."""
    if self.done:
      return self.test['step'] // self.epochs
    for row in self.rows('eval'):
      epoch = min(self.config['eval_every_epochs'], self.epochs)
      return row['step'] // epoch or None
    return None


@dataclasses.dataclass(frozen=True)
class Results:
  """Runs, by method and seed.

  Attributes:
    name: its key in `published.TABLES`.
    title: what it is called.
    command: what makes it again, '' if unknown.
    rows: the methods in order; the others are compared with the first.
    runs: every run that the table asks for.
  """

  name: str
  title: str
  command: str
  rows: tuple[str, ...]
  runs: tuple[RunResult, ...]

  def done(self, row: str) -> list[RunResult]:
    """The runs of a row whose numbers count, by seed."""
    runs = [run for run in self.runs if run.row == row and run.done]
    return sorted(runs, key=lambda run: run.seed)

  def first(self, row: str) -> RunResult | None:
    """The first run of a row that has begun, done or not."""
    return next((r for r in self.runs if r.row == row and r.config), None)


def read_tables(paths: Sequence[pathlib.Path]) -> list[Results]:
  """The tables in some directories.

  Args:
    paths: folders with a `table.json`, each a table; and run directories, of
      which those on one data set make a table. Their runs that differ in no
      more than the seed are one row.

  Returns:
    The tables of the folders in order, then those of the run directories.

  Raises:
    InputError: a directory is neither, or one of its files is damaged.
  """
  tables, plain = [], []
  for path in dict.fromkeys(paths):
    if (path / 'table.json').is_file():
      tables.append(_read_table(path))
    elif (path / 'config.json').is_file():
      plain.append(path)
    else:
      raise InputError(
        f'WORKDIR = {path}: '
        + ('no table and no run in it' if path.is_dir() else 'no such folder'),
        allowed='a folder with a table.json, or with the config.json of a run',
        cure='the --workdir of a sweep or of main.py',
      )
  return tables + _tables_of_runs(plain)


def _read_table(folder: pathlib.Path) -> Results:
  path = folder / 'table.json'
  table = files.read_object(path)
  files.check(path, '', table, _TABLE)
  names = table['rows']
  if not all(isinstance(name, str) for name in names) or not (
    0 < len(names) == len(set(names))
  ):
    raise files.damaged(path, f'rows = {names!r}, not some different names')
  runs = []
  for index, run in enumerate(table['runs']):
    where = f'runs[{index}].'
    files.check(path, where, run, _RUN)
    if run['row'] not in names:
      raise files.damaged(
        path, f'{where}row = {run["row"]!r} is not one of rows'
      )
    if pathlib.PurePath(run['directory']).name != run['directory']:
      raise files.damaged(
        path, f'{where}directory = {run["directory"]!r}: no name'
      )
    runs.append(
      _read_run(
        RunResult(
          row=run['row'],
          seed=run['seed'],
          directory=folder / run['directory'],
          epochs=run['epochs'],
          first_epoch=run['first_epoch'],
          trunk=run.get('trunk') or '',
        )
      )
    )
  if len({(run.row, run.seed) for run in runs}) < len(runs):
    raise files.damaged(path, 'a row has two runs of one seed')
  runs = _on_one_data_set(runs)
  return Results(
    name=table['name'],
    title=table['title'],
    command=table['command'],
    rows=tuple(names),
    runs=tuple(runs),
  )


def _on_one_data_set(runs: list[RunResult]) -> list[RunResult]:
  """The runs; damaged if their data changed under an unchanged config."""
  firsts: dict[str, RunResult] = {}
  checked = []
  for run in runs:
    fields = config_lib.identity(run.config).items()
    asked = str([field for field in fields if field[0].startswith('data.')])
    first = firsts.setdefault(asked, run) if run.done else run
    if run.fingerprint != first.fingerprint:
      run = dataclasses.replace(
        run,
        state='damaged',
        reason=f'on other data than {first.directory.name}',
      )
    checked.append(run)
  return checked


def _tables_of_runs(paths: Iterable[pathlib.Path]) -> list[Results]:
  """Runs that were not planned as a table, by data set."""
  tables: dict[str, dict[tuple[str, int], list[RunResult]]] = {}
  for path in paths:
    config = files.read_object(path / 'config.json')
    files.check(path / 'config.json', '', config, _CONFIG)
    trunk, _, epoch = str(config.get('init.fork_from') or '').rpartition('@')
    run = _read_run(
      RunResult(
        row=str(path),
        seed=config['seed'],
        directory=path,
        epochs=config['epochs'],
        first_epoch=int(epoch) if epoch.isdigit() else 0,
        trunk=pathlib.PurePath(trunk).name,
      )
    )
    rows = tables.setdefault(run.fingerprint, {})
    key, copy = _method(config), 0
    while run.seed in {r.seed for r in rows.get((key, copy), ())}:
      copy += 1
    rows.setdefault((key, copy), []).append(run)
  return [_table_of_rows(list(rows.values())) for rows in tables.values()]


def _method(config: dict[str, Any]) -> str:
  """What the runs of a row have in common: all but the seed and paths of it."""
  fields = config_lib.identity(config)
  fields.pop('seed', None)
  if 'init.fork_from' in fields:
    fields['init.fork_from'] = str(fields['init.fork_from']).rpartition('@')[2]
  if 'teacher.run' in fields:
    fields['teacher.run'] = True
  return json.dumps(fields, sort_keys=True)


def _table_of_rows(rows: list[list[RunResult]]) -> Results:
  # The shortest names that are one of a kind: what the directories of a row
  # begin with, the first one's name, its path.
  for name_of in (
    _common_name,
    lambda r: r[0].directory.name,
    lambda r: r[0].row,
  ):
    names = [name_of(runs) for runs in rows]
    if len(set(names)) == len(names):
      break
  runs = [
    dataclasses.replace(run, row=name)
    for name, row in zip(names, rows, strict=True)
    for run in row
  ]
  commands = [run.environment.get('command') for run in runs]
  return Results(
    name='',
    title=f'Runs on {runs[0].config.get("data.name")}',
    command='\n'.join(str(command) for command in commands if command),
    rows=tuple(names),
    runs=tuple(runs),
  )


def _common_name(runs: list[RunResult]) -> str:
  names = [run.directory.name for run in runs]
  alike = itertools.takewhile(
    lambda c: len(set(c)) == 1, zip(*names, strict=False)
  )
  return ''.join(c[0] for c in alike).rstrip('-_') or names[0]


def _read_run(planned: RunResult) -> RunResult:
  """The run with what its directory says; as planned where there is none."""
  folder = planned.directory
  failure = folder / 'failure.txt'
  why = (
    files.read_text(failure).strip().split('\n')[0] if failure.exists() else ''
  )
  if not (folder / 'config.json').exists():
    return dataclasses.replace(planned, reason=why or planned.reason)
  config, status, data, environment = (
    files.read_object(folder / name) if (folder / name).exists() else {}
    for name in ('config.json', 'status.json', 'data.json', 'environment.json')
  )
  files.check(folder / 'config.json', '', config, _CONFIG)
  log = folder / 'metrics.jsonl'
  state = str(status.get('state', 'running'))
  run = dataclasses.replace(
    planned,
    state=state,
    reason=why or _REASONS.get(state, ''),
    config=config,
    fingerprint=str(data.get('fingerprint', '')),
    log=files.read_log(log) if log.exists() else {},
    environment=environment,
  )
  if run.done and (fault := _fault(run, status.get('step'))):
    return dataclasses.replace(run, state='damaged', reason=fault)
  return dataclasses.replace(run, reason='') if run.done else run


def _fault(run: RunResult, step: Any) -> str:
  """What a run that says it is done lacks; '' for nothing."""
  evaluations = run.rows('eval')
  if not evaluations or evaluations[-1]['step'] != step:
    return f'its log has no evaluation after update {step}'
  if step == 0 or step % run.epochs:
    return f'its {step} updates are not {run.epochs} epochs'
  lacking = [
    name for name in (*METRICS, 'count') if not is_number(run.test.get(name))
  ]
  return f'its last evaluation lacks {", ".join(lacking)}' if lacking else ''


def is_number(value: Any) -> bool:
  """Whether a value of a log row is there and finite."""
  return type(value) in (int, float) and math.isfinite(value)
