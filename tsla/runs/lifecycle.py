"""How a run ends before its end: asked by a signal, or standing still.

SIGTERM and SIGINT are noted, and honoured between two compiled calls. A
watchdog ends a run in which nothing is done any more, and says where it stood.
"""

import contextlib
import faulthandler
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Schedulers kill 30 s after the signal.
_GRACE_SECONDS = 25.0
# A scheduler signals every process, and so does the sweep among them.
_ECHO_SECONDS = 2.0
_STUCK = 4  # the exit code of a run that stood still


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
  """By which signal a stop was asked for; 0 while by none."""

  signum: int = 0


@contextlib.contextmanager
def watch_signals(
  give_up: Callable[[], None], grace: float = _GRACE_SECONDS
) -> Iterator[Requested]:
  """Notes the first SIGTERM or SIGINT; a second one ends the process at once.

  A thread does, for the main one may be in a compiled call, or in the compiler,
  and run no Python for minutes. Outside the main thread, which alone may, no
  signal is watched.

  If the process has not left after `grace` seconds, `give_up` is called and it
  ends without a save: what is on the disk then is the newest there is.
  """
  requested = Requested()
  if threading.current_thread() is not threading.main_thread():
    yield requested
    return
  read, write = os.pipe()
  os.set_blocking(write, False)
  left = threading.Event()

  def note(signum: int, frame: FrameType | None) -> None:
    del frame
    requested.signum = requested.signum or signum

  def leave(signum: int) -> None:
    if not left.wait(grace):
      os.write(2, b'the call takes too long: stopping without a save\n')
      try:
        give_up()
      finally:
        os._exit(128 + signum)

  def listen() -> None:
    first: float | None = None
    while signum := os.read(read, 1)[0]:
      if signum not in _SIGNALS:
        continue
      if first is not None:
        if (
          signum == signal.SIGTERM and time.monotonic() - first < _ECHO_SECONDS
        ):
          continue
        os._exit(128 + signum)
      first = time.monotonic()
      name = signal.Signals(signum).name
      os.write(2, f'\n{name}: stopping after this call, then saving\n'.encode())
      threading.Thread(target=leave, args=(signum,), daemon=True).start()

  listener = threading.Thread(target=listen, daemon=True)
  listener.start()
  wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
  before = {number: signal.signal(number, note) for number in _SIGNALS}
  try:
    yield requested
  finally:
    left.set()
    for number, handler in before.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(wakeup)
    os.write(write, b'\0')
    listener.join()
    os.close(read)
    os.close(write)


@contextlib.contextmanager
def watch_progress(
  minutes: float, stacks: pathlib.Path, give_up: Callable[[], None]
) -> Iterator[Callable[[], None]]:
  """Ends the process, exit code 4, when nothing was done for a while.

  It waits `minutes`, 0: for ever. The file `stacks` gets the stack of every
  thread, and `give_up` is called. What is yielded is to be called whenever
  something was done.
  """
  last = time.monotonic()
  left = threading.Event()

  def alive() -> None:
    nonlocal last
    last = time.monotonic()

  def watch() -> None:
    while (rest := last + 60 * minutes - time.monotonic()) > 0:
      if left.wait(rest):
        return
    text = f'nothing was done for {minutes:g} minutes: see {stacks}\n'
    os.write(2, text.encode())
    try:
      with stacks.open('w') as file:
        faulthandler.dump_traceback(file, all_threads=True)
      give_up()
    finally:
      os._exit(_STUCK)

  if not minutes:
    yield alive
    return
  watcher = threading.Thread(target=watch, daemon=True)
  watcher.start()
  try:
    yield alive
  finally:
    left.set()
    watcher.join()
