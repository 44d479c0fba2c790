"""A table: rows that are trained on the same seeds and compared."""

import dataclasses
import os
import pathlib

import ml_collections
import numpy as np

from tsla import programs
from tsla.config.checks import check_file
from tsla.config.forms import keep_given, parse_text
from tsla.config.schema import FIELDS
from tsla.errors import InputError

# What a table may be decided on; of ECE the squared calibration error.
PRIMARY = ('top1', 'top5', 'nll', 'brier', 'ece')
# The fields of `smoothing` that end it, as they are where it has no end.
ENDLESS = {
  'schedule': 'constant',
  'drop_epochs': -1.0,
  'drop_steps': -1,
  'drop_percent': -1.0,
}


@dataclasses.dataclass(frozen=True)
class Row:
  """One method of a table."""

  name: str  # what the table calls it, such as 'TSLA(20)'
  config: ml_collections.ConfigDict  # the seed is set by the sweep
  teacher: str = ''  # the row whose run of the same seed gives ŷ


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows that are trained on the same seeds, and compared with the first."""

  name: str  # short, also where published figures are looked up
  title: str  # what the report puts above it
  rows: tuple[Row, ...]  # in the order they are shown
  primary: str = 'top1'  # the metric that the report decides on

  def __post_init__(self) -> None:
    if self.primary not in PRIMARY:
      problem = f'Table.primary = {self.primary!r}'
      raise InputError(problem, allowed=', '.join(PRIMARY))


def load_table(path: str | os.PathLike) -> Table:
  """Reads a table file: a Python file with a `get_table()`."""
  path = pathlib.Path(path)
  where = f'--table={path}'
  check_file(path, 'table', f'{path.parent}/[a-z]*.py')
  name = f'{path}:get_table'
  leave, here = os._exit, os.getpid()

  def refuse(code: int) -> None:
    if os.getpid() != here:  # a process that the table has forked
      leave(code)
    raise SystemExit(code)

  os._exit = refuse  # a table that ends the process is no success
  try:
    return programs.make(programs.load(name, where), name, where, Table)
  finally:
    os._exit = leave


def adapt(table: Table, fields: dict[str, str], epochs: int | None) -> Table:
  """The table with fields set in all its rows, or at another length.

  `fields` are texts by name, as `--config.NAME=TEXT` of main.py has them; all
  that is given in epochs scales with the length of every run.
  """
  for name, text in fields.items():
    if name == 'epochs':
      why = 'would leave the drop epochs where they are'
      problem, cure = f'--config.epochs={text}: {why}', f'--epochs={text}'
      allowed = '--epochs=E, which keeps the proportions'
      raise InputError(problem, allowed=allowed, cure=cure)
    if name == 'seed' or name.removeprefix('smoothing.') in ENDLESS:
      problem = f'--config.{name}={text}: the table itself sets it, a row each'
      allowed = 'fields that are the same for all rows'
      cure = '--seeds=N, or a table file of your own'
      raise InputError(problem, allowed=allowed, cure=cure)
  values = {name: parse_text(name, text) for name, text in fields.items()}
  rows, names = [], {}
  for row in table.rows:
    config = row.config.copy_and_resolve_references()
    config.update_from_flattened_dict(values)
    keep_given(config, values)
    s = config.smoothing.drop_epochs
    names[row.name] = row.name
    if epochs is not None:
      _rehearse(config, epochs)
      new = f'({config.smoothing.drop_epochs:.3g})'  # TSLA(s) has another s
      names[row.name] = row.name.replace(f'({s:g})', new)
    rows.append(Row(names[row.name], config, row.teacher))
  rows = [Row(r.name, r.config, names.get(r.teacher, r.teacher)) for r in rows]
  changes = [f'{n} = {t}' for n, t in fields.items() if FIELDS[n].identity]
  name, title = table.name, ', '.join([table.title, *changes])
  if epochs is not None:  # nothing that was published compares with it
    name, title = f'{name}-rehearsal', f'{title}, rehearsed in {epochs} epochs'
  return dataclasses.replace(table, name=name, title=title, rows=tuple(rows))


def _rehearse(config: ml_collections.ConfigDict, epochs: int) -> None:
  """Sets another length; all that the config has in epochs scales with it."""
  ratio = epochs / config.epochs
  for name, field in FIELDS.items():
    section, _, leaf = name.partition('.')
    value = config[section][leaf] if field.duration else field.default
    if value == field.default:
      continue
    if leaf.endswith('_steps'):
      allowed = f'with {field.duration}_epochs or {field.duration}_percent'
      raise InputError(f'--epochs={epochs}: a row has {name}', allowed=allowed)
    if leaf.endswith('_epochs'):
      scaled = np.round(np.multiply(value, ratio), 6).tolist()
      config[section][leaf] = type(value)(scaled)
  kept = {round(epoch * ratio) for epoch in config.checkpoint_keep_epochs}
  config.checkpoint_keep_epochs = tuple(sorted(kept - {0}))
  config.epochs = epochs
