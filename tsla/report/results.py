"""Directories become results: runs by method and seed, with what they logged.

A folder with a `table.json` is that of a sweep, which names its rows and the
run directories inside; a run directory is one of `main.py`; any other folder
stands for those in it. Results are of one data set each. Only a run that is
done, and whose log says so too, is `done` here.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tsla import files
from tsla.config import forms as config_lib
from tsla.errors import InputError
from tsla.evaluation import card
from tsla.runs import predictions
from tsla.runs.directory import CONFIG, RunRecord, read_record
from tsla.runs.log import LogRow, RunLog, is_number
from tsla.sweep import outline

_FIELDS = ('seed', 'epochs', 'batch_size', 'eval_every_epochs')


@dataclasses.dataclass(frozen=True)
class RunResult:
  """One run among the results, or the place where it should be."""

  row: str  # the method
  seed: int  # pairs it with the other rows' runs
  record: RunRecord  # what its directory says
  state: str  # done, damaged, not readable, or else as its record says
  reason: str  # why it is not done
  epochs: int  # of the whole run
  first_epoch: int  # epochs that it took over from another run
  trunk: str  # the name of that run, '' for none

  @property
  def done(self) -> bool:
    """Whether its numbers count."""
    return self.state == 'done'

  def rows(self, kind: str) -> list[LogRow]:
    """The rows of its log of one kind, in the order of the updates."""
    return self.record.log.get(kind, [])

  @property
  def test(self) -> LogRow:
    """The last evaluation; only a run that is done has one for certain."""
    return self.rows('eval')[-1]

  @functools.cached_property
  def card(self) -> dict[str, Any]:
    """What its predictions on the test set are worth; {} without any.

    `labels`, `class_names`, `images` (alike for runs on the same ones) and the
    figures of `evaluation.card`; with a validation split `calibrated_NAME`,
    with logits `normalized_NAME` and `top5_by_image`.
    """
    predicted, held = map(self.record.predictions, ('test', 'validation'))
    if predicted is None:
      return {}
    where = f'{self.record.path}: predictions'
    with files.untrusted(where, allowed='as a run writes them'):
      description = self.record.network(where)
      own = predictions.scores(predicted)
      by, parts = description['temperature'], {'': card.figures(own)}
      if held:
        scores = predictions.scores(predicted, by)
        parts['calibrated_'] = card.figures(scores) | {'temperature': by}
      if 'logits' in predicted:
        parts['normalized_'] = card.normalized(predicted, held)
        logits, label = predicted['logits'], predicted['labels'][:, None]
        true = np.take_along_axis(logits, label, 1)
        first = (logits == true) & (np.arange(logits.shape[1]) < label)
        top5 = ((logits > true) | first).sum(1) < 5  # as `batch_sums`
        parts['']['top5_by_image'] = top5
      found = {f'{way}{n}': v for way in parts for n, v in parts[way].items()}
      labels, images = predicted['labels'], predicted['ids'].tobytes()
      found |= {'labels': labels, 'images': images + labels.tobytes()}
      return found | {'class_names': description['class_names']}

  @property
  def switches(self) -> list[float]:
    """Epochs where its smoothing ended."""
    epochs = (row.get('epoch') for row in self.rows('switch'))
    return list(filter(is_number, epochs))

  @property
  def ended(self) -> str:
    """Where its smoothing ended, and of a rule by what; '' without any."""
    schedule = self.record.fields.get('smoothing.schedule', 'none')
    if not self.switches:
      return '' if schedule == 'none' else 'never'
    by_rule = RunLog(None, None, self.record.rows).decided
    by = f' by {"its rule" if by_rule else "max_epochs"}'
    return f'{self.switches[-1]:g}' + by * (schedule == 'auto')

  @property
  def steps_per_epoch(self) -> int | None:
    """Updates an epoch, from an evaluation; None before the first one."""
    if self.done:
      return self.test['step'] // self.epochs
    for row in self.rows('validation') or self.rows('eval'):
      every = self.record.fields['eval_every_epochs']
      return row['step'] // min(every, self.epochs) or None
    return None


Runs = Sequence[RunResult]


@dataclasses.dataclass(frozen=True)
class Results:
  """Runs, by method and seed."""

  name: str  # its key in `published.TABLES`
  title: str
  command: str  # what makes it again, '' if unknown
  rows: tuple[str, ...]  # the methods; the others are compared with the first
  runs: Runs  # every run that is asked for
  primary: str = 'top1'  # the metric that decides

  def done(self, row: str) -> list[RunResult]:
    """The runs of a row whose numbers count, by seed."""
    runs = [run for run in self.runs if run.row == row and run.done]
    return sorted(runs, key=lambda run: run.seed)

  def first(self, row: str) -> RunResult | None:
    """The first run of a row that has begun, done or not."""
    begun = (r for r in self.runs if r.row == row and r.record.fields)
    return next(begun, None)


def read_results(paths: Sequence[pathlib.Path]) -> list[Results]:
  """The results of sweeps' folders in order, then those of run directories.

  Run directories on one data set belong together; those of them that differ in
  no more than the seed, as do their teachers, are one row. In a folder the runs
  without smoothing are first, with which the others are compared.
  """
  found, plain, places = [], [], dict[pathlib.Path, pathlib.Path]()
  for path in (p for given in paths for p in _within(given)):
    places.setdefault(path.resolve(), path)
  for path in places.values():
    if (path / outline.NAME).is_file():
      found += _of_sweep(path)
    else:
      plain.append(path)
  found += _tables_of_runs(plain)
  titles = [results.title for results in found]
  for place, (title, results) in enumerate(zip(titles, found, strict=True)):
    if titles.count(title) > 1:
      data = max(run.record.fingerprint[:8] for run in results.runs)
      found[place] = dataclasses.replace(results, title=f'{title}, data {data}')
  return found


def _within(path: pathlib.Path) -> list[pathlib.Path]:
  """The sweeps and runs that a path stands for; InputError if for none."""
  marks = outline.NAME, CONFIG
  every = {file.parent for mark in marks for file in path.rglob(mark)}
  found = [place for place in every if every.isdisjoint(place.parents)]
  if found:
    found = [(_read(p).fields.get('smoothing.schedule'), p) for p in found]
    return [p for _, p in sorted((s != 'none', p) for s, p in found)]
  why = 'no table and no run in it' if path.is_dir() else 'no such folder'
  allowed = 'a folder with a table.json, the config.json of a run, or of such'
  cure = 'the --workdir of a sweep or of main.py'
  raise InputError(f'WORKDIR = {path}: {why}', allowed=allowed, cure=cure)


def _of_sweep(folder: pathlib.Path) -> list[Results]:
  table, runs = outline.read(folder), []
  firsts: dict[str, RunRecord] = {}  # on each data set, and of each row
  for planned in table['runs']:
    path = folder / planned['directory']
    try:
      record = _read(path)
      standing = record.standing()
    except files.NewerFormat as error:
      record, standing = RunRecord(path), ('not readable', error.problem)
    if standing[0] == 'done':
      fields = config_lib.identity(record.fields).items()
      # Mean and std may follow from the images, and make no other data set.
      asked = [f for f in fields if re.match(r'data\.(?!mean|std)', f[0])]
      keys = f'row {planned["row"]}', str(asked)
      for first in (firsts[key] for key in keys if key in firsts):
        if record.fingerprint != first.fingerprint:  # the files were changed
          standing = 'damaged', f'on other data than {first.path.name}'
      if standing[0] == 'done':
        firsts = dict.fromkeys(keys, record) | firsts
    method = planned['row'], planned['seed'], record, *standing
    trunk = planned.get('trunk') or ''
    lengths = planned['epochs'], planned['first_epoch']
    runs.append(RunResult(*method, *lengths, trunk))
  named = {n: table[n] for n in ('name', 'title', 'command', 'primary')}
  data = {run.row: run.record.fingerprint for run in runs if run.done}
  found, first = [], next(iter(data.values()), '')
  for one in dict.fromkeys([first, *data.values()]):
    rows = tuple(r for r in table['rows'] if data.get(r, first) == one)
    mine = [run for run in runs if run.row in rows]
    found.append(Results(**named, rows=rows, runs=mine))
  return found


def _read(path: pathlib.Path) -> RunRecord:
  """A run with the fields that the report needs, or without any."""
  record = read_record(path)
  if (path / CONFIG).exists():
    fields = dict.fromkeys(_FIELDS, int)
    files.check_fields(f'{path / CONFIG}: ', record.fields, **fields)
  return record


def _tables_of_runs(paths: Iterable[pathlib.Path]) -> list[Results]:
  """Runs that were not planned as a table, by data set."""
  tables: dict[str, dict[tuple[str, int], list[RunResult]]] = {}
  firsts: dict[str, str] = {}  # the first network of a teacher's directory
  for path in paths:
    record = _read(path)
    fields, standing = record.fields, record.standing()
    trunk, _, epoch = str(fields.get('init.fork_from') or '').rpartition('@')
    lengths = fields['epochs'], int(epoch) if epoch.isdecimal() else 0
    method = str(path), fields['seed'], record, *standing
    run = RunResult(*method, *lengths, pathlib.PurePath(trunk).name)
    rows = tables.setdefault(record.fingerprint, {})
    first = firsts.setdefault(str(fields.get('teacher.run')), record.teacher)
    # Another network may have come into a teacher's directory.
    key, copy = _kind(record) + record.teacher * (record.teacher != first), 0
    while run.seed in {r.seed for r in rows.get((key, copy), ())}:
      copy += 1
    rows.setdefault((key, copy), []).append(run)
  return [_table_of_rows(list(rows.values())) for rows in tables.values()]


def _kind(record: RunRecord, deep: int = 9) -> str:
  """What a row's runs, and their teachers, share: all but seeds and paths."""
  config, taught_by = record.fields, record.teacher
  if path := config.get('teacher.run'):  # all that is known if it is gone
    taught_by = re.sub(rf'(?<!\d){config["seed"]}(?=[^\d/]*$)', '*', str(path))
    with contextlib.suppress(InputError):
      teacher = _read(pathlib.Path(str(path)))
      if teacher.fields and deep:  # it may have had a teacher too
        taught_by = teacher.fingerprint + _kind(teacher, deep - 1)
  fields = config_lib.identity(config)
  fields.pop('seed', None)
  if 'init.fork_from' in fields:
    fields['init.fork_from'] = str(fields['init.fork_from']).rpartition('@')[2]
  for name in ('teacher.matrix', 'teacher.weights'):  # of a seed, its own run
    fields[name] = config.get(name)
  return json.dumps([fields, record.parts, taught_by], sort_keys=True)


def _table_of_rows(rows: list[list[RunResult]]) -> Results:
  # The shortest names that are one of a kind: what the directories of a row
  # begin with, the first one's name, its path.
  ways = (
    [_common_name([run.record.path.name for run in runs]) for runs in rows],
    [runs[0].record.path.name for runs in rows],
    [runs[0].row for runs in rows],
  )
  names = next(tuple(way) for way in ways if len(set(way)) == len(rows))
  named = zip(names, rows, strict=True)
  runs = [dataclasses.replace(r, row=name) for name, row in named for r in row]
  commands = [run.record.environment.get('command') for run in runs]
  command = '\n'.join(str(command) for command in commands if command)
  title = f'Runs on {runs[0].record.fields.get("data.name")}'
  return Results('', title, command, rows=names, runs=runs)


def _common_name(names: list[str]) -> str:
  alike = os.path.commonprefix(names)  # noqa: RUF071 (by character)
  return alike.rstrip('-_') or names[0]
