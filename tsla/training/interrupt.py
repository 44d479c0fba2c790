"""SIGTERM and SIGINT as a wish to stop, honoured between two chunks."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(Exception):
  """The run was asked to stop, and saved first.

  Attributes:
    exit_code: 128 + the signal's number: 143 for SIGTERM, 130 for SIGINT.
  """

  status = 'interrupted'

  def __init__(self, signum: int):
    super().__init__(f'{signal.Signals(signum).name}: saved and stopped')
    self.exit_code = 128 + signum


class Requested:
  """Whether, and by which signal, a stop was asked for."""

  signum: int | None = None


@contextlib.contextmanager
def watch_signals(alone: bool) -> Iterator[Requested]:
  """Notes the first SIGTERM or SIGINT; a second one acts at once.

  Args:
    alone: False where other processes train the same run: a save needs them
      all, and only one may have been signalled, so a signal ends it at once.
      Nor is anything watched outside the main thread, which alone can.
  """
  requested = Requested()
  before = {}

  def note(signum: int, frame: FrameType | None) -> None:
    del frame
    requested.signum = signum
    name = signal.Signals(signum).name
    os.write(2, f'\n{name}: stopping after this call, then saving\n'.encode())
    for number, handler in before.items():
      signal.signal(number, handler)

  main = threading.current_thread() is threading.main_thread()
  for number in (signal.SIGTERM, signal.SIGINT) if alone and main else ():
    before[number] = signal.signal(number, note)
  try:
    yield requested
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
