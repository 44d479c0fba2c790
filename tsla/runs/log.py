"""A run's log: rows of `metrics.jsonl`, and the same numbers in TensorBoard.

The first line of a log says of which format it is; the oldest have none.
"""

import hashlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

from tsla import files

FORMAT = 1
_BOARD_SECONDS = 120  # until a number is on the disk
_HEADER = {'kind': files.FORMAT, 'step': 0, files.FORMAT: FORMAT}

LogRow = dict[str, Any]


class Board:
  """TensorBoard's event file from update `step` on; what was there is hidden.

  It is written by the thread that logs: that of tensorboardX's `SummaryWriter`
  dies where the disk is full, and who adds to its queue waits for ever.
  """

  def __init__(self, folder: pathlib.Path, step: int):
    folder.mkdir(parents=True, exist_ok=True)
    self._writer = EventsWriter(str(folder / 'events'))
    self.close = self._writer.close
    self._written = time.monotonic()
    self._add(step, file_version='brain.Event:2')
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._add(step, session_log=start)

  def add_scalar(self, name: str, value: float, step: int) -> None:
    """Adds a number."""
    self._add(step, summary=scalar(name, value))
    if time.monotonic() - self._written > _BOARD_SECONDS:
      self._writer.flush()
      self._written = time.monotonic()

  def _add(self, step: int, **what: Any) -> None:
    event = event_pb2.Event(step=step, wall_time=time.time(), **what)
    self._writer.write_event(event)


class RunLog:
  """Appends rows to `metrics.jsonl` and TensorBoard, or to nothing.

  `content` is what the log holds already, `rows` what that says.
  """

  def __init__(
    self,
    file: TextIO | None,
    board: Board | None,
    rows: Sequence[LogRow] = (),
    content: bytes = b'',
  ):
    self._file = file
    self._board = board
    self._size = len(content)
    self._digest = hashlib.sha256(content)
    # By kind of row and by step; eval is on the test set.
    self.evaluations: dict[str, dict[int, dict[str, float]]]
    self.evaluations = {'validation': {}, 'eval': {}}
    self.probes: set[int] = set()  # the steps of its rows
    self.decided = False  # whether a rule has ended smoothing
    for row in rows:
      self._note(**row)

  def write(self, kind: str, step: int, **values: float | None) -> None:
    """A row: train, validation, eval, probe, switch; not finite is null."""
    self._note(kind, step, **values)
    if self._file is None:
      return
    known = {n: v for n, v in values.items() if v is not None}
    known = {n: v for n, v in known.items() if math.isfinite(v)}
    row = {'kind': kind, 'step': step, **dict.fromkeys(values), **known}
    # Not before there is a row: a log without one holds no run yet.
    text = _line(row) if self._size else to_text([row])
    self._file.write(text)
    self._file.flush()
    self._size += len(text.encode())
    self._digest.update(text.encode())
    for name, value in known.items():
      self._board.add_scalar(f'{kind}/{name}', value, step)

  def position(self) -> dict[str, Any]:
    """Its length and SHA-256: which log belongs to a state; {} for none."""
    if self._file is None:
      return {}
    return {'bytes': self._size, 'sha256': self._digest.hexdigest()}

  def sync(self) -> None:
    """Waits until all that was written is on the disk; in any thread."""
    if self._file is not None:
      os.fsync(self._file.fileno())
      files.sync(pathlib.Path(self._file.name).parent)

  def _note(self, kind: str, step: int, **values: float | None) -> None:
    if kind in self.evaluations:
      self.evaluations[kind][step] = values
    elif kind == 'probe':
      self.probes.add(step)
    elif kind == 'switch':  # an earlier version wrote the rule's after a probe
      self.decided = bool(values.get('by_rule', step in self.probes))


def to_text(rows: Iterable[LogRow]) -> str:
  """The whole log that holds these rows; empty without a row."""
  lines = ''.join(map(_line, rows))
  return lines and _line(_HEADER) + lines


def _line(row: LogRow) -> str:
  return json.dumps(row) + '\n'


def read_until(path: pathlib.Path, position: Mapping[str, Any]) -> bytes:
  """A log up to a `RunLog.position`; DamagedFile: that is not its beginning."""
  content = files.read_bytes(path) if path.exists() else b''
  content = content[: position['bytes']]
  if hashlib.sha256(content).hexdigest() != position['sha256']:
    why = f'its first {position["bytes"]:,} bytes are not those that the newest'
    raise files.DamagedFile(f'{path}: {why} checkpoint was saved with')
  return content


def read(path: pathlib.Path, *, mend: bool = False) -> list[LogRow]:
  """The rows of a log in order; none where there is no log.

  A last row that is not whole is left out: its process was killed, or is
  writing it. Other lines that are no rows are DamagedFile, or left out to
  `mend` what a power cut may leave. A newer format is NewerFormat.
  """
  return parse(path, files.read_text(path), mend=mend) if path.exists() else []


def parse(path: pathlib.Path, text: str, *, mend: bool = False) -> list[LogRow]:
  """The rows of the text of a log, as `read`; `path` names it in errors."""
  *lines, _ = text.split('\n')
  rows: list[LogRow] = []
  for number, line in enumerate(lines, start=1):
    try:
      row = files.parse(f'{path}: line {number}', line, kind=str, step=int)
    except files.DamagedFile:
      if mend:
        continue
      raise
    if row['kind'] == files.FORMAT:
      files.check_format(path, row.get(files.FORMAT), FORMAT)
    else:
      rows.append(row)
  return rows


def is_number(value: Any) -> bool:
  """Whether a value of a row was measured, and is finite."""
  return type(value) in (int, float) and math.isfinite(value)
