"""A run's log: rows of `metrics.jsonl`, and the same numbers in TensorBoard."""

import json
import math
from collections.abc import Sequence
from typing import Any, TextIO

from tensorboardX import SummaryWriter


class RunLog:
  """Appends rows to `metrics.jsonl` and TensorBoard, or to nothing.

  Args:
    file: `metrics.jsonl`, None for the processes that do not write.
    board: TensorBoard's file.
    rows: what the log holds already.

  Attributes:
    evaluations: step -> the values of its `eval` row.
    probes: the steps that have a `probe` row.
  """

  def __init__(
    self,
    file: TextIO | None,
    board: SummaryWriter | None,
    rows: Sequence[str] = (),
  ):
    self._file = file
    self._board = board
    self.evaluations: dict[int, dict[str, float]] = {}
    self.probes: set[int] = set()
    for row in map(json.loads, rows):
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
    self._file.write(json.dumps(row) + '\n')
    self._file.flush()
    for name, value in values.items():
      if value is not None:
        self._board.add_scalar(f'{kind}/{name}', value, step)

  def _note(self, kind: str, step: int, **values: float | None) -> None:
    if kind == 'eval':
      self.evaluations[step] = values
    elif kind == 'probe':
      self.probes.add(step)


def parse_row(line: str) -> dict[str, Any] | None:
  """A row of the log; None for the half that a killed process may leave."""
  try:
    row = json.loads(line)
  except json.JSONDecodeError:
    return None
  return row if isinstance(row, dict) and 'step' in row else None
