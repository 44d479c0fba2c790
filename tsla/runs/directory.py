"""A run's directory: the only reader and the only writer of what is in it.

- `config.json`: its fields; `config-until-STEP.json`: those until update STEP;
- `data.json`: the SHA-256 of its data set, of its teacher if it has one, and of
  the files of one's own that its config names; where its images lay: `feed`;
- `parts/FIELD.py`: copies of those files, which others read in their place;
- `.lock`: held while a process trains here, which ends if it is deleted;
  `.processes`: a mark by which several find that they share the directory;
- `environment.json`: versions, devices, git revision and command line;
- `status.json`: running, done, diverged, interrupted or stuck, at which update
  and after how many `seconds` of all processes that were at it; while running
  also `at` what time, `pid` and `host`, and the process changes the
  file's time every 10 s: a reader takes one that has not for a minute, by its
  own clock, for killed. `failure.txt`: why a sweep gave it up, until a start;
- `metrics.jsonl`: one row an interval, an evaluation, an event: the truth;
  `tensorboard/`: the same numbers, derived;
- of a finished run `model.json`: what its network takes and returns; and
  `predictions/`: what it predicted of the test and the validation split;
- `checkpoints/`: the state; `stacks-PROCESS.txt`: where a run stood still.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import ml_collections

from tsla import files, programs
from tsla.config import forms as config_lib
from tsla.config.schema import RENAMED
from tsla.errors import InputError
from tsla.runs import environment, lifecycle, log, predictions, retention
from tsla.runs.log import Board, LogRow, RunLog
from tsla.runs.predictions import Predictions

CONFIG_FORMAT = MODEL_FORMAT = 1
CONFIG, _DATA, _STATUS = 'config.json', 'data.json', 'status.json'
TABLE = 'table.json'  # of a sweep, whose runs have folders of their own
MODEL, _PREDICTIONS = 'model.json', 'predictions'
_ENVIRONMENT, _FAILURE = 'environment.json', 'failure.txt'
_LOG, _CHECKPOINTS, _PARTS = 'metrics.jsonl', 'checkpoints', 'parts'
_TYPES = {
  **{_STATUS: {'state': str, 'step': int}, _DATA: {'fingerprint': str}},
  MODEL: {'class_names': list, 'image_shape': list, 'temperature': float},
}
# What an object in one of these holds.
_INSIDE = {'test': log.is_number, _PARTS: lambda text: isinstance(text, str)}
_TAIL = 4096  # bytes of a log that hold its last row
_BEAT_SECONDS, _DEAD_SECONDS = 10.0, 60.0
_REASONS = {
  'running': 'still running, or killed',  # an earlier version does not say
  'interrupted': 'stopped by a signal after a save',
  'diverged': 'a number was not finite any more',
}


@dataclasses.dataclass(frozen=True)
class RunRecord:
  """What a run's directory says of it, to those who do not train there.

  Its `fields` are of its config, none where no run has begun. Its `status` says
  killed where the file says running but shows no life. Its `parts` are the
  SHA-256 of the files of one's own in its config, by field.
  """

  path: pathlib.Path
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)
  status: dict[str, Any] = dataclasses.field(default_factory=dict)
  fingerprint: str = ''  # SHA-256 of its data set
  parts: dict[str, str] = dataclasses.field(default_factory=dict)
  rows: tuple[LogRow, ...] = ()  # of its log, in order
  environment: dict[str, Any] = dataclasses.field(default_factory=dict)
  failure: str = ''  # why a sweep gave it up, in a line
  teacher: str = ''  # SHA-256 of its teacher

  @property
  def config(self) -> ml_collections.ConfigDict:
    """The config, with the run's own copies of files of one's own.

    Fields that it lacks have their defaults. InputError: it has an unknown
    field, or a value that it may not hold.
    """
    copies = {
      field: f'{_copy(self.path, field)}:{text.rpartition(":")[2]}'
      for field, text in config_lib.own_files(self.fields).items()
      if field in self.parts
    }
    return config_lib.unflatten(self.fields | copies)

  @property
  def checkpoints(self) -> pathlib.Path:
    """Where its state is saved."""
    return self.path / _CHECKPOINTS

  def network(self, where: str) -> dict[str, Any]:
    """What describes its network; InputError if it is not finished."""
    state = self.status.get('state')
    found = _read(self.path, MODEL) if state == 'done' else {}
    if not found:
      raise InputError(
        f'{where}: that run is {state}, and has no {MODEL}',
        allowed='a run that this version finished',
        cure='train it to its end first, in a new --workdir if it is done',
      )
    return found

  def predictions(self, split: str) -> Predictions | None:
    """Those of a split at its end; None if they are not kept."""
    folder, step = self.path / _PREDICTIONS, self.status['step']
    return predictions.read(folder, split, step)

  @functools.cached_property
  def log(self) -> dict[str, list[LogRow]]:
    """The rows of its log by kind: train, eval, probe and switch."""
    log: dict[str, list[LogRow]] = {}
    for row in self.rows:
      log.setdefault(row['kind'], []).append(row)
    return log

  def standing(self) -> tuple[str, str]:
    """How it stands, by its log and earlier configs too, and why so.

    Damaged: its log contradicts its status; changed: so was its config.
    """
    if not self.fields:
      return 'missing', self.failure or 'not started'
    state = str(self.status.get('state', 'running'))
    if state != 'done':
      reason = self.failure or self.status.get('where')
      return state, reason or _REASONS.get(state, '')
    step, epochs = self.status.get('step'), self.fields.get('epochs')
    for kind in ('train', 'eval'):
      steps = [row['step'] for row in self.log.get(kind, ())]
      if steps != sorted(set(steps)):
        return 'damaged', f'its log has {kind} rows twice, or not in order'
    last = self.log.get('eval', [{'step': -1}])[-1]
    if last['step'] != step:
      return 'damaged', f'its log has no evaluation after update {step}'
    if not step or type(epochs) is not int or epochs < 1 or step % epochs:
      return 'damaged', f'its {step} updates are not {epochs} epochs'
    if not log.is_number(last.get('nll', 0)):  # then it would have diverged
      return 'damaged', 'its last evaluation lacks nll'
    now = config_lib.identity(self.fields)
    for file in sorted(self.path.glob('config-until-*.json')):
      before = config_lib.identity(_read(self.path, file.name))
      if differences(before, now).keys() - {'init.fork_from'}:
        return 'changed', f'its config in mid-run: see {file.name}'
    return state, ''


def read_record(path: pathlib.Path) -> RunRecord:
  """Reads what is in a run's directory; raises NewerFormat or DamagedFile."""
  data, note = _read(path, _DATA), path / _FAILURE
  failure = files.read_text(note) if note.exists() else ''
  return RunRecord(
    path,
    fields=_read(path, CONFIG),
    status=_read_status(path),
    fingerprint=str(data.get('fingerprint', '')),
    parts=data.get(_PARTS, {}),
    rows=tuple(log.read(path / _LOG)),
    environment=_read(path, _ENVIRONMENT),
    failure=failure.strip().split('\n')[0],
    teacher=str(data.get('teacher', '')),
  )


def read_run(path: str | os.PathLike, where: str) -> RunRecord:
  """Reads the directory of a run that others build on.

  `where` names it in the InputError that it holds no run, or a damaged one, as
  "config.teacher.run = 'runs/a'".
  """
  path = pathlib.Path(path)
  for name in (CONFIG, _DATA, _STATUS, _LOG):
    if not os.path.exists(path / name):
      problem = f'{where}: no {name} is there'
      cure = 'train it first, then name its --workdir'
      raise InputError(problem, allowed='the directory of a run', cure=cure)
  try:
    run = read_record(path)
    run.config  # noqa: B018 (raises)
  except InputError as error:
    problem = f'{where}: {error.problem}'
    raise InputError(problem, allowed=error.allowed, cure=error.cure) from error
  return run


def state_of(path: pathlib.Path) -> str:
  """How a run stands: what its status says, or missing."""
  try:
    return _read_status(path)['state']
  except (InputError, KeyError):
    return 'missing'


def read_saved(path: pathlib.Path) -> RunRecord | None:
  """A run that has saved something; None where there is none yet."""
  try:
    run = read_run(path, str(path))
  except InputError as error:
    if isinstance(error.__cause__, files.NewerFormat):
      raise
    return None  # it ended before it wrote all of it
  return run if retention.saved_steps(run.checkpoints) else None


def epochs_done(path: pathlib.Path) -> float:
  """How far a run is, from the end of its log."""
  try:
    with files.open_regular(path / _LOG) as file:
      file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
      epoch = json.loads(file.read().splitlines()[-1])['epoch']
  except (OSError, ValueError, LookupError, TypeError, RecursionError):
    return 0.0
  return epoch if log.is_number(epoch) else 0.0


def note_failure(path: pathlib.Path, reason: str = '') -> None:
  """Leaves in a run's directory why it failed; '' takes the note away."""
  note = path / _FAILURE
  if reason:
    path.mkdir(parents=True, exist_ok=True)
    files.write_whole(note, reason + '\n')
  else:
    note.unlink(missing_ok=True)


def _read(path: pathlib.Path, name: str) -> dict[str, Any]:
  """The JSON object in a file of a run; empty where there is none."""
  is_config = name.startswith('config')
  newest = CONFIG_FORMAT if is_config else MODEL_FORMAT * (name == MODEL)
  try:
    value = files.read_object(path / name, newest=newest)
  except files.DamagedFile as error:
    if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
      return {}
    raise
  files.check_fields(f'{path / name}: ', value, **_TYPES.get(name, {}))
  for old, (_, default) in RENAMED.items() if is_config else ():
    if value.get(old) == default:  # it was not used
      del value[old]
  for field, right in _INSIDE.items():
    part = value.get(field, {}) if name in _TYPES else {}
    if not isinstance(part, dict) or not all(map(right, part.values())):
      raise files.DamagedFile(f'{path / name}: {field} = {part!r}')
  return value


def _read_status(path: pathlib.Path) -> dict[str, Any]:
  """What a run's status says, and `where` it runs or was killed since when."""
  status = _read(path, _STATUS)
  for name in {'seconds', 'at'} & status.keys():
    files.check_fields(f'{path / _STATUS}: ', status, **{name: float})
  if status.get('state') == 'running' and 'pid' in status:
    status['where'] = f'on {status.get("host")}, pid {status["pid"]}'
    beat = (path / _STATUS).stat().st_mtime
    status['seconds'] = status.get('seconds', 0) + beat - status.get('at', beat)
    if time.time() - beat > _DEAD_SECONDS:
      since = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(beat))
      status['state'] = 'killed'
      status['where'] = f'or dead since {since}, {status["where"]}'
  return status


def differences(
  there: Mapping[str, Any], here: Mapping[str, Any]
) -> dict[str, str]:
  """How the identities of two configs differ, by field."""
  # Another version may know other fields.
  defaults = {name: field.default for name, field in config_lib.FIELDS.items()}
  found = {}
  for name in sorted(there.keys() | here.keys()):
    old, new = (side.get(name, defaults.get(name)) for side in (there, here))
    if old != new:
      found[name] = f'{old!r} there, {new!r} here'
  return found


def _copy(path: pathlib.Path, field: str) -> pathlib.Path:
  return path / _PARTS / f'{field}.py'


class RunDirectory:
  """The directory of one run, for the process that trains there.

  `claim` makes it. InputError is raised where it cannot be written, or holds a
  run of another config, unless that is allowed, or of a file of one's own that
  was edited since. Only the first process writes.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    config: ml_collections.ConfigDict,
    *,
    allow_changed_config: bool = False,
  ):
    self.path = pathlib.Path(path)
    self.checkpoints = self.path / _CHECKPOINTS
    # Where this process says what it was at when it stood still.
    self.stacks = self.path / f'stacks-{jax.process_index()}.txt'
    self._writes, self._since = jax.process_index() == 0, time.time()
    self._may_change = allow_changed_config
    self._confirm: Callable[[], None] = lambda: None
    self._fields = config_lib.flatten(config)
    own = config_lib.own_files(self._fields)
    self._sources = {f: programs.source(text) for f, text in own.items()}
    self._parts = {f: programs.sha256(text) for f, text in own.items()}
    self._look()

  def _look(self) -> None:
    """Reads what is there by now; refuses what this run may not go on with."""
    with self._explained():
      before = _read(self.path, CONFIG)
      if not before and (self.path / TABLE).exists():
        problem = f'--workdir={self.path}: a sweep is there'
        raise InputError(problem, cure='another --workdir')
      # A run that logged nothing may restart with another config.
      self._before = before if before and self.has_begun else self._fields
      self._data = _read(self.path, _DATA) if self.has_begun else {}
      self._status = _read_status(self.path)
      log.read(self.path / _LOG, mend=True)  # refuses one of a newer format
      files.check_writable(self.path)
    self._changed = self._refuse_changed(config_lib.identity(self._before))
    for field, digest in self._parts.items():
      there = self._data.get(_PARTS, {}).get(field, digest)
      if there != digest:
        what = f'{field}: {self._fields[field]} was edited since'
        differs = f'SHA-256 {there[:12]}… there, {digest[:12]}… here'
        self._refuse(what, [differs], f': {_copy(self.path, field)}')

  @property
  def feed(self) -> str:
    """Where the images lay of what was trained here; '': nothing was."""
    found = re.match('resident|mapped', str(self._data.get('feed', '')))
    return found.group() if found else ''

  @property
  def result(self) -> dict[str, float] | None:
    """The last evaluation of a finished run of this config; None if unfinished.

    Only inside `claim` it is known to be on the same data.
    """
    done = self._status.get('state') == 'done' and not self._changed
    return self._status.get('test') if done else None

  @contextlib.contextmanager
  def claim(self, fingerprint: str, teacher: str = '') -> Iterator[None]:
    """Makes the directory this process's while inside, if this run may go on.

    InputError is raised where another process is at it, or it began with
    another data set or teacher ('': none), which are given by their SHA-256.
    """
    parts = {_PARTS: self._parts} if self._parts else {}
    self._facts = {'fingerprint': fingerprint, 'teacher': teacher, **parts}
    if not self._writes:
      self._refuse_facts(self._data)
      yield
      return
    with files.claimed(self.path) as self._confirm:
      # What was there may have changed before the lock was held.
      self._look()
      self._refuse_facts(self._data)
      with lifecycle.every(_BEAT_SECONDS, self._beat):
        yield

  def _beat(self) -> None:
    """Shows that the run lives; ends the process if it lost its directory."""
    with contextlib.suppress(OSError):  # as of a server that is away
      try:
        self._confirm()
      except InputError as error:
        lifecycle.say(str(error))
        os._exit(2)
      os.utime(self.path / _STATUS)

  @property
  def has_begun(self) -> bool:
    """Whether anything was trained here."""
    log_file = self.path / _LOG
    logged = log_file.exists() and log_file.stat().st_size > 0
    return logged or bool(retention.saved_steps(self.checkpoints))

  @property
  def identity(self) -> dict[str, Any]:
    """What makes the run, as its checkpoints are marked; inside `claim`."""
    return {'config': config_lib.identity(self._fields), **self._facts}

  def refuse_another(self, saved: Mapping[str, Any]) -> None:
    """Raises InputError if `saved`, where there is any, is another identity."""
    if saved:
      self._refuse_changed(saved['config'])
      self._refuse_facts(saved)

  def _refuse_changed(self, there: Mapping[str, Any]) -> bool:
    """Whether the config there was another; InputError if it must not be."""
    changes = differences(there, config_lib.identity(self._fields))
    if changes and not self._may_change:
      texts = [f'{name} = {values}' for name, values in changes.items()]
      self._refuse('config', texts, ', or --allow_changed_config')
    return bool(changes)

  def _refuse_facts(self, there: Mapping[str, Any]) -> None:
    for name, what in (('fingerprint', 'data set'), ('teacher', 'teacher')):
      if there and there.get(name, '') != self._facts[name]:
        earlier = '; an earlier version began it: see docs/changes.md'
        cure = earlier * (name == 'fingerprint' and 'feed' not in self._data)
        self._refuse(what, [f'its SHA-256 is {self._facts[name]}'], cure)

  def _refuse(self, what: str, reasons: list[str], cure: str = '') -> None:
    raise InputError(
      f'workdir = {self.path}: holds a run of another {what}',
      allowed='the same; now ' + '; '.join(reasons),
      cure=f'another --workdir, or the {what} that is there{cure}',
    )

  def begin(self, step: int, total_steps: int, **data: Any) -> None:
    """Says what is trained here, on what; from here on nothing else may be.

    `data` is what else a person should know of the data set. InputError: the
    config has changed, and of `total_steps` updates `step` leave none to do.
    """
    if step and self._changed:
      if step >= total_steps:
        problem = f'workdir = {self.path}: has a checkpoint of update {step:,}'
        problem += f', and the changed run ends at update {total_steps:,}'
        allowed = 'changes that leave something to train'
        cure = 'more --config.epochs=…, or another --workdir'
        raise InputError(problem, allowed=allowed, cure=cure)
      self._write(f'config-until-{step}.json', self._before, CONFIG_FORMAT)
    if self._writes:
      with self._explained():
        note_failure(self.path)  # of an earlier start
        retention.clear(self.checkpoints)
        for field, source in self._sources.items():
          copy = _copy(self.path, field)
          copy.parent.mkdir(exist_ok=True)
          files.write_whole(copy, source)
    self._write(CONFIG, self._fields, CONFIG_FORMAT)
    self._write(_DATA, {**data, **self._facts})
    self._write(_ENVIRONMENT, environment.describe())
    process = {'pid': os.getpid(), 'host': socket.gethostname()}
    self.write_status('running', step, at=time.time(), **process)

  def finish(
    self,
    description: dict[str, Any],
    predicted: Mapping[str, Predictions],
    step: int,
  ) -> None:
    """Keeps what the network is after its last update, and what it predicts."""
    self._write(MODEL, description, MODEL_FORMAT)
    if self._writes:
      with self._explained():
        folder, run = self.path / _PREDICTIONS, {**self.identity, 'step': step}
        predictions.write(folder, predicted, description['temperature'], run)

  def write_status(self, state: str, step: int, **more: Any) -> None:
    """Says how the run stands: running, done, diverged, interrupted, stuck."""
    seconds = self._status.get('seconds', 0) + time.time() - self._since
    status = {'state': state, 'step': step, 'seconds': round(seconds, 1)}
    self._write(_STATUS, {**status, **more})

  def give_up(self, state: str) -> None:
    """`write_status` for a process that ends with what is on the disk."""
    saved = retention.saved_steps(self.checkpoints)
    self.write_status(state, max(saved, default=0))

  @contextlib.contextmanager
  def log(
    self, step: int, position: Mapping[str, Any] | None = None
  ) -> Iterator[RunLog]:
    """The run's log from update `step` on; what follows is cut away.

    `position` is that of the state that the run goes on from; without one, as
    of an earlier version, rows after `step` are what follows.
    """
    path, file, board = self.path / _LOG, None, None
    # A disk may fill up in the run.
    with self._explained(), contextlib.ExitStack() as stack:
      content = b''
      if position:
        content = log.read_until(path, position)
      elif step:
        rows = [r for r in log.read(path, mend=True) if r['step'] <= step]
        content = log.to_text(rows).encode()
      rows = log.parse(path, content.decode())
      if self._writes:
        if path.exists():
          files.write_whole(path, content)
        file = stack.enter_context(path.open('a'))
        board = Board(self.path / 'tensorboard', step + 1)
        stack.callback(board.close)
      yield RunLog(file, board, rows, content)

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    try:
      yield
    except (OSError, files.DamagedFile) as error:
      problem = f'workdir = {self.path}: {getattr(error, "problem", error)}'
      allowed = 'a directory of one run that can be read and written'
      raise InputError(problem, allowed=allowed, cure='--workdir=…') from error

  def _write(self, name: str, value: dict[str, Any], version: int = 0) -> None:
    if self._writes:
      self._confirm()
      with self._explained():
        files.write_object(self.path / name, value, version=version)
