"""TensorBoard's event file, written by the thread that logs.

tensorboardX's `SummaryWriter` has a thread of its own behind a queue: where the
disk is full that thread dies, and who adds to the queue waits for ever.
"""

import pathlib
import time
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

_SECONDS = 120  # until what was added is on the disk


class Board:
  """Adds a run's numbers from update `step` on; what was there is hidden."""

  def __init__(self, folder: pathlib.Path, step: int):
    folder.mkdir(parents=True, exist_ok=True)
    self._writer = EventsWriter(str(folder / 'events'))
    self._written = time.monotonic()
    self._add(step, file_version='brain.Event:2')
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._add(step, session_log=start)

  def add_scalar(self, name: str, value: float, step: int) -> None:
    """Adds a number."""
    self._add(step, summary=scalar(name, value))
    if time.monotonic() - self._written > _SECONDS:
      self._writer.flush()
      self._written = time.monotonic()

  def close(self) -> None:
    """Brings the rest to the disk."""
    self._writer.close()

  def _add(self, step: int, **what: Any) -> None:
    event = event_pb2.Event(step=step, wall_time=time.time(), **what)
    self._writer.write_event(event)
