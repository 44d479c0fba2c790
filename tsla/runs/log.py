"""A run's log: rows of `metrics.jsonl`, and the same numbers in TensorBoard.

The first line of a log says of which format it is, but in those that were
written before formats had versions.
"""

import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from tensorboardX import SummaryWriter

from tsla import files

FORMAT = 1
_HEADER = {'kind': files.FORMAT, 'step': 0, files.FORMAT: FORMAT}

LogRow = dict[str, Any]


class RunLog:
  """Appends rows to `metrics.jsonl` and TensorBoard, or to nothing.

  `rows` are what the log holds already.

  Attributes:
    evaluations: step -> the values of its `eval` row.
    probes: the steps that have a `probe` row.
    decided: whether a rule has ended smoothing: a `switch` row after a `probe`
      row of its step.
  """

  def __init__(
    self,
    file: TextIO | None,
    board: SummaryWriter | None,
    rows: Sequence[LogRow] = (),
  ):
    self._file = file
    self._board = board
    self._is_empty = not rows
    self.evaluations: dict[int, dict[str, float]] = {}
    self.probes: set[int] = set()
    self.decided = False
    for row in rows:
      self._note(**row)

  def write(self, kind: str, step: int, **values: float | None) -> None:
    """One row: `kind` is train, eval, probe or switch, `step` the updates done.

    A value that is not finite is written as null, as JSON has no other word.
    """
    self._note(kind, step, **values)
    if self._file is None:
      return
    values = {
      name: value if value is not None and math.isfinite(value) else None
      for name, value in values.items()
    }
    row = {'kind': kind, 'step': step, **values}
    # Not before there is a row: a log without one holds no run yet.
    self._file.write(to_text([row]) if self._is_empty else _line(row))
    self._file.flush()
    self._is_empty = False
    for name, value in values.items():
      if value is not None:
        self._board.add_scalar(f'{kind}/{name}', value, step)

  def _note(self, kind: str, step: int, **values: float | None) -> None:
    if kind == 'eval':
      self.evaluations[step] = values
    elif kind == 'probe':
      self.probes.add(step)
    elif kind == 'switch' and step in self.probes:
      self.decided = True


def to_text(rows: Iterable[LogRow]) -> str:
  """The whole log that holds these rows; empty without a row."""
  lines = ''.join(map(_line, rows))
  return lines and _line(_HEADER) + lines


def _line(row: LogRow) -> str:
  return json.dumps(row) + '\n'


def read(path: pathlib.Path, *, mend: bool = False) -> list[LogRow]:
  """The rows of a log in order; none where there is no log.

  A last row that is not whole is left out: its process was killed, or is
  writing it. To mend is to leave out other lines that are no rows, too, such as
  a power cut may leave.

  Raises:
    NewerFormat: the log is of a newer format.
    DamagedFile: it cannot be read, or has a line that is no row.
  """
  if not path.exists():
    return []
  *lines, _ = files.read_text(path).split('\n')
  rows: list[LogRow] = []
  for number, line in enumerate(lines, start=1):
    try:
      where = f'{path}: line {number}: '
      row = files.parse(where, line, kind=str, step=int)
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
