"""A run's directory: what is in it, and how it is written.

- `config.json`: the fields of the run; `config-until-STEP.json`: those that it
  had before they were changed at update STEP;
- `data.json`: the SHA-256 of its data set, and of its teacher if it has one;
- `.lock`: held while a process trains here;
- `environment.json`: versions, devices, git revision and command line of the
  process that trained here last;
- `status.json`: running, done, diverged, interrupted or stuck, and at which
  update;
- `metrics.jsonl`: one row an interval, an evaluation, an event: the truth;
- `tensorboard/`: the same numbers, derived;
- `checkpoints/`: the state; `stacks-PROCESS.txt`: where a run stood still.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

import jax
import ml_collections
from tensorboardX import SummaryWriter

from tsla.errors import InputError
from tsla.config import (forms as config_lib)
from tsla.runs import (provenance, retention)
from tsla.runs.log import RunLog, parse_row

_CHECKPOINTS = 'checkpoints'


class RunDirectory:
  """The directory of one run.

  Args:
    path: made by `claim`; a directory of the same config is gone on with.
    config: the run's config.
    writes: False for the processes that leave what is shared to the first.
    allow_changed_config: whether a run of another config is gone on with.

  Raises:
    InputError: `path` cannot be written, or holds a run of another config.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    config: ml_collections.ConfigDict,
    *,
    writes: bool = True,
    allow_changed_config: bool = False,
  ):
    self.path = pathlib.Path(path)
    self._writes = writes
    self._fields = config_lib.flatten(config)
    with self._explained():
      before = self._read_json('config.json')
      # What failed before its first row binds nobody.
      self._before = before if before and self.has_begun else self._fields
      self._status = self._read_json('status.json') or {}
      home = next(
        p for p in (self.path, *self.path.absolute().parents) if p.exists()
      )
      if not (home.is_dir() and os.access(home, os.W_OK)):
        raise PermissionError(f'{home} is no folder that can be written')
    if not allow_changed_config:
      self._refuse_another(
        'config', self._changes(), ', or --allow_changed_config'
      )

  @property
  def result(self) -> dict[str, float] | None:
    """The last evaluation of a finished run; None while there is none.

    Also None where a field has changed that may lead to other data.
    """
    done = self._status.get('state') == 'done'
    unchanged = self._before == self._fields
    return self._status['test'] if done and unchanged else None

  @contextlib.contextmanager
  def claim(self, fingerprint: str, teacher: str = '') -> Iterator[None]:
    """Makes the directory this process's while inside, if this run may go on.

    Args:
      fingerprint: of the data set; a run goes on with the same data only.
      teacher: of the teacher, for which the same is true; '' for none.

    Raises:
      InputError: the run began on other data or with another teacher, or
        another process is at it.
    """
    self._facts = {'fingerprint': fingerprint, 'teacher': teacher}
    with self._explained():
      before = self.has_begun and self._read_json('data.json')
      before = before or self._facts
    for name, what in (('fingerprint', 'data set'), ('teacher', 'teacher')):
      if before.get(name, '') != self._facts[name]:
        self._refuse_another(what, [f'its SHA-256 is {self._facts[name]}'])
    if not self._writes:
      yield
      return
    with contextlib.ExitStack() as stack:
      with self._explained():
        anew = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context((self.path / '.lock').open('w'))
        _lock(lock, self.path)
      try:
        yield
      finally:  # of a run that was refused nothing stays
        if anew and [file.name for file in self.path.iterdir()] == ['.lock']:
          shutil.rmtree(self.path)

  @property
  def has_begun(self) -> bool:
    """Whether anything was trained here."""
    log = self.path / 'metrics.jsonl'
    logged = log.exists() and log.stat().st_size > 0
    return logged or bool(retention.saved_steps(self.checkpoints))

  def _changes(self) -> list[str]:
    """The fields that make this another run than the one that is here."""
    there = config_lib.identity(self._before)
    here = config_lib.identity(self._fields)
    return [
      f'{name} = {self._before.get(name)!r} there, '
      f'{self._fields.get(name)!r} here'
      for name in sorted(there.keys() | here.keys())
      if there.get(name) != here.get(name)
    ]

  def _refuse_another(
    self, what: str, differences: list[str], way_out: str = ''
  ) -> None:
    if differences:
      raise InputError(
        f'workdir = {self.path}: holds a run of another {what}',
        allowed='the same; now ' + '; '.join(differences),
        cure=f'another --workdir, or the {what} that is there{way_out}',
      )

  @property
  def checkpoints(self) -> pathlib.Path:
    """Where the state is saved."""
    return self.path / _CHECKPOINTS

  @property
  def stacks(self) -> pathlib.Path:
    """Where this process says what it was at when it stood still."""
    return self.path / f'stacks-{jax.process_index()}.txt'

  def begin(self, step: int, total_steps: int) -> None:
    """Says what is trained here, on what; from here on nothing else may be.

    Args:
      step: updates done before.
      total_steps: of the whole run.

    Raises:
      InputError: the config has changed, and nothing is left to train with it.
    """
    if self._changes() and step:
      if step >= total_steps:
        raise InputError(
          f'workdir = {self.path}: has a checkpoint of update {step:,}, and '
          f'the changed run ends at update {total_steps:,}',
          allowed='changes that leave something to train',
          cure='more --config.epochs=…, or another --workdir',
        )
      self._write_json(f'config-until-{step}.json', self._before)
    self._write_json('config.json', self._fields)
    self._write_json('data.json', self._facts)
    self._write_json('environment.json', provenance.describe())
    self.write_status('running', step)

  def write_status(self, state: str, step: int, **more: Any) -> None:
    """Says how the run stands: running, done, diverged, interrupted, stuck."""
    self._write_json('status.json', {'state': state, 'step': step, **more})

  def give_up(self, state: str) -> None:
    """`write_status` for a process that ends with what is on the disk."""
    saved = retention.saved_steps(self.checkpoints)
    self.write_status(state, max(saved, default=0))

  @contextlib.contextmanager
  def log(self, step: int) -> Iterator['RunLog']:
    """The run's log from update `step` on; later rows are cut away."""
    metrics = self.path / 'metrics.jsonl'
    with self._explained():
      lines = metrics.read_text() if metrics.exists() else ''
      lines = lines.splitlines(keepends=True)
      parsed = zip(lines, map(parse_row, lines), strict=True)
      rows = [line for line, row in parsed if row and row['step'] <= step]
      if self._writes and metrics.exists():
        replace_text(metrics, ''.join(rows))
    if not self._writes:
      yield RunLog(None, None, rows)
      return
    with (
      self._explained(),  # a disk that fills up in the run
      metrics.open('a') as file,
      contextlib.closing(
        SummaryWriter(str(self.path / 'tensorboard'), purge_step=step + 1)
      ) as board,
    ):
      yield RunLog(file, board, rows)

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    try:
      yield
    except (OSError, json.JSONDecodeError) as error:
      raise InputError(
        f'workdir = {self.path}: {error}',
        allowed='a directory of one run that can be read and written',
        cure='--workdir=…',
      ) from error

  def _read_json(self, name: str) -> Any:
    path = self.path / name
    return json.loads(path.read_text()) if path.exists() else None

  def _write_json(self, name: str, value: Any) -> None:
    if not self._writes:
      return
    replace_text(
      self.path / name, json.dumps(value, indent=1, allow_nan=False) + '\n'
    )


class RunRecord(NamedTuple):
  """What a run's directory says of it, to one who does not train there."""

  path: pathlib.Path
  config: ml_collections.ConfigDict
  fingerprint: str  # SHA-256 of its data set
  teacher: str  # SHA-256 of its teacher; '' where it has none
  status: dict[str, Any]
  rows: tuple[dict[str, Any], ...]  # of its log, in order

  @property
  def checkpoints(self) -> pathlib.Path:
    """Where its state is saved."""
    return self.path / _CHECKPOINTS


def read_run(path: str | os.PathLike, where: str) -> RunRecord:
  """Reads another run's directory; nothing is written or locked there.

  Args:
    path: the directory.
    where: what names it in errors, as "config.teacher.run = 'runs/a'".

  Raises:
    InputError: it holds no run of this project.
  """
  path = pathlib.Path(path)
  try:
    fields, data, status = (
      json.loads((path / name).read_text())
      for name in ('config.json', 'data.json', 'status.json')
    )
    log = (path / 'metrics.jsonl').read_text()
    return RunRecord(
      path,
      config_lib.unflatten(fields),
      data['fingerprint'],
      data.get('teacher', ''),
      status,
      tuple(filter(None, map(parse_row, log.splitlines()))),
    )
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    problem = str(error)
    if isinstance(error, FileNotFoundError):
      problem = f'no {pathlib.Path(error.filename).name} is there'
    raise InputError(
      f'{where}: {problem}',
      allowed='the directory of a run',
      cure='train it first, then name its --workdir',
    ) from error


def _lock(file: TextIO, path: pathlib.Path) -> None:
  """Takes a lock that the kernel drops with the process, however it ends."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    raise InputError(
      f'workdir = {path}: another process is training here',
      cure='wait for it, or another --workdir',
    ) from None


def replace_text(path: pathlib.Path, text: str) -> None:
  """Writes a whole file or nothing."""
  partial = path.with_name(path.name + '.partial')
  with partial.open('w') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  partial.replace(path)
