"""A plan in words for a person, and as `table.json` for the report."""

import collections
import contextlib
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from tsla import files
from tsla.errors import InputError
from tsla.runs.directory import CONFIG, TABLE, state_of
from tsla.sweep.plan import PlannedRun
from tsla.sweep.table import PRIMARY, Table

_FORMAT = 1
NAME = TABLE


def describe(
  table: Table, runs: Sequence[PlannedRun], workdir: pathlib.Path
) -> str:
  """The plan in words: what each row trains, and what sharing saves."""
  row_of = {run.directory: run.row for run in runs}
  seeds = len(runs) // len(table.rows)
  lines = [
    f'{table.title}: {len(table.rows)} rows × {seeds} seeds = {len(runs)} runs',
    f'  {"row":<16} {"epochs":>7} {"trained":>8}  {"finished":<9}  begins',
  ]
  for row in table.rows:
    mine = [run for run in runs if run.row == row.name]
    done = sum(state_of(workdir / run.directory) == 'done' for run in mine)
    anew = 'with weights' if row.config.model.weights else 'anew'
    begins = {
      f'at epoch {r.first_epoch} of {row_of[r.trunk]}' if r.trunk else anew
      for r in mine
    }
    lines.append(
      f'  {row.name:<16} {row.config.epochs:>7} '
      f'{trained_epochs(mine) / seeds:>8g}  {f"{done} of {seeds}":<9}  '
      + ', '.join(sorted(begins))
    )
  groups = collections.defaultdict(list)
  for run in runs:
    groups[f'ŷ {run.config.smoothing.target}'].append(run)
  if len(groups) > 1:
    groups['all'] = list(runs)
  return '\n'.join(lines + [_saving(*group) for group in groups.items()])


def trained_epochs(runs: Iterable[PlannedRun]) -> int:
  """Epochs that are trained where trunks are shared."""
  return sum(run.config.epochs - run.first_epoch for run in runs)


def _saving(what: str, runs: Sequence[PlannedRun]) -> str:
  seeds = len({run.seed for run in runs})
  shared, alone = trained_epochs(runs), sum(run.config.epochs for run in runs)
  text = f'{what}: {shared:,} epochs instead of {alone:,}, {shared / alone:.0%}'
  if seeds > 1:
    text += f' ({shared / seeds:,g} instead of {alone / seeds:,g} a seed)'
  return text


def write(
  workdir: pathlib.Path, table: Table, runs: Sequence[PlannedRun], command: str
) -> None:
  """Writes the plan and its command.

  NewerFormat: over a newer one; InputError: over another table's, or a run.
  """
  begun, where, cure = {}, f'--workdir={workdir}', 'another --workdir'
  with contextlib.suppress(files.DamagedFile):  # it is written anew
    begun = files.read_object(workdir / NAME, newest=_FORMAT)
  if (name := begun.get('name', table.name)) != table.name:
    problem = f'{where}: the table {name!r} was begun there'
    raise InputError(problem, allowed=table.name, cure=cure)
  if (workdir / CONFIG).exists():
    raise InputError(f'{where}: a single run is there', cure=cure)
  order = {row.name: place for place, row in enumerate(table.rows)}
  content = {
    'name': table.name,
    'title': table.title,
    'primary': table.primary,
    'command': command,
    'rows': list(order),
    'seeds': sorted({run.seed for run in runs}),
    'runs': [
      {
        'row': run.row,
        'seed': run.seed,
        'directory': run.directory,
        'epochs': run.config.epochs,
        'first_epoch': run.first_epoch,
        'trunk': run.trunk or None,
        'teacher': run.teacher or None,
      }
      for run in sorted(runs, key=lambda run: (order[run.row], run.seed))
    ],
  }
  with files.untrusted(where, cure=cure):
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_object(workdir / NAME, content, version=_FORMAT)


def read(workdir: pathlib.Path) -> dict[str, Any]:
  """What `write` left there; raises NewerFormat or DamagedFile."""
  where = f'{workdir / NAME}: '
  table = files.read_object(workdir / NAME, newest=_FORMAT)
  table = {'primary': 'top1'} | table  # an earlier version does not say
  types = dict.fromkeys(('name', 'title', 'command', 'primary'), str)
  files.check_fields(where, table, **types, rows=list, runs=list)
  names, runs = table['rows'], table['runs']
  if table['primary'] not in PRIMARY:
    why = f'primary = {table["primary"]!r}, none of {", ".join(PRIMARY)}'
    raise files.DamagedFile(where + why)
  strings = all(isinstance(name, str) for name in names)
  if not strings or not 0 < len(names) == len(set(names)):
    why = f'rows = {names!r}, not some different names'
    raise files.DamagedFile(where + why)
  for index, run in enumerate(runs):
    place = f'{where}runs[{index}].'
    types = {'row': str, 'seed': int, 'directory': str, 'epochs': int}
    files.check_fields(place, run, **types, first_epoch=int)
    row, name = run['row'], run['directory']
    if row not in names:
      raise files.DamagedFile(f'{place}row = {row!r} is not one of rows')
    if pathlib.PurePath(name).name != name:
      raise files.DamagedFile(f'{place}directory = {name!r}: no name')
  if len({(run['row'], run['seed']) for run in runs}) < len(runs):
    raise files.DamagedFile(f'{where}a row has two runs of one seed')
  return table
