"""How a run ends before its end: asked by a signal, or standing still.

SIGTERM, SIGHUP and SIGINT are noted, and honoured between two compiled calls. A
watchdog ends a run in which nothing is done any more, and says where it stood.
"""

import contextlib
import faulthandler
import os
import pathlib
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_GRACE_SECONDS = 25.0  # schedulers kill 30 s after the signal
# A scheduler signals every process, and so does the sweep among them; a closed
# terminal sends SIGHUP, and the shell in it once more.
_ECHO_SECONDS = 2.0
_STUCK = 4  # the exit code of a run that stood still
_PULSE_SECONDS = 1.0


class Interrupted(Exception):
  """The run was asked to stop, and saved first."""

  status = 'interrupted'

  def __init__(self, signum: int):
    text = 'saved and stopped\n  next: the same command goes on from here'
    super().__init__(f'{signal.Signals(signum).name}: {text}')
    self.exit_code = 128 + signum


class Requested:
  """By which signal a stop was asked for; 0 while by none."""

  signum: int = 0


@contextlib.contextmanager
def watch_signals(
  give_up: Callable[[], None], grace: float = _GRACE_SECONDS
) -> Iterator[Requested]:
  """Notes the first of the signals; a second one ends the process at once.

  Outside the main thread, which alone may, no signal is watched, and SIGHUP
  never is where it was ignored, as by nohup. If the process has not left after
  `grace` seconds, `give_up` is called and it ends without a save.
  """
  requested = Requested()
  if threading.current_thread() is not threading.main_thread():
    yield requested
    return
  # Standard error as it is now: `note` may leave the terminal before `heard`
  # has said why.
  error = os.open(os.devnull, os.O_WRONLY)
  with contextlib.suppress(OSError):  # it is closed
    os.dup2(2, error)
  first: float | None = None

  def note(signum: int, _: FrameType | None) -> None:
    requested.signum = requested.signum or signum
    if signum == signal.SIGHUP:
      _leave_terminal()

  def leave() -> None:
    say('the call takes too long: stopping without a save')
    try:
      give_up()
    finally:
      os._exit(128 + requested.signum)

  late = threading.Timer(grace, leave)
  late.daemon = True

  def heard(signum: int) -> None:
    nonlocal first
    if first is None:
      first, requested.signum = time.monotonic(), signum
      name = signal.Signals(signum).name
      say(f'\n{name}: stopping after this call, then saving', error)
      late.start()
    elif signum == signal.SIGINT or time.monotonic() - first >= _ECHO_SECONDS:
      os._exit(128 + signum)

  before = {
    number: signal.signal(number, note)
    for number in _SIGNALS
    if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN)
  }
  try:
    with _listening(heard):
      yield requested
  finally:
    late.cancel()
    for number, handler in before.items():
      signal.signal(number, handler)
    os.close(error)


@contextlib.contextmanager
def _listening(heard: Callable[[int], None]) -> Iterator[None]:
  """Calls `heard` with each signal, in a thread.

  The main one may be in a compiled call, and run no Python for minutes.
  """
  read, write = os.pipe()
  os.set_blocking(write, False)

  def listen() -> None:
    while signum := os.read(read, 1)[0]:
      if signum in _SIGNALS:
        heard(signum)

  listener = threading.Thread(target=listen, daemon=True)
  listener.start()
  wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
  try:
    yield
  finally:
    signal.set_wakeup_fd(wakeup)
    os.write(write, b'\0')
    listener.join()
    os.close(read)
    os.close(write)


def say(text: str, stream: int = 2) -> None:
  """A line on standard error, from any thread; nothing where that is gone."""
  with contextlib.suppress(OSError):
    os.write(stream, f'{text}\n'.encode())


def _leave_terminal() -> None:
  """Says no more but to files: writing to a closed terminal is an error."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  for stream in (1, 2):
    with contextlib.suppress(OSError):
      if not stat.S_ISREG(os.fstat(stream).st_mode):
        os.dup2(nowhere, stream)


@contextlib.contextmanager
def every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
  """Calls `call` again and again while inside, in a thread."""
  left = threading.Event()

  def repeat() -> None:
    while not left.wait(seconds):
      call()

  thread = threading.Thread(target=repeat, daemon=True)
  thread.start()
  try:
    yield
  finally:
    left.set()
    thread.join()


@contextlib.contextmanager
def watch_progress(
  minutes: float, stacks: pathlib.Path, give_up: Callable[[], None]
) -> Iterator[Callable[[], None]]:
  """Ends the process, exit code 4, when nothing was done for `minutes`.

  0 is for ever, and while it or the machine is suspended no time passes. The
  file `stacks` gets the stack of every thread, and `give_up` is called. What is
  yielded is to be called whenever something was done.
  """
  pulses = last = 0

  def alive() -> None:
    nonlocal last
    last = pulses

  def watch() -> None:
    nonlocal pulses
    pulses += 1  # a pause counts as one, however long it was
    if (pulses - last) * _PULSE_SECONDS < 60 * minutes:
      return
    say(f'nothing was done for {minutes:g} minutes: see {stacks}')
    try:
      with stacks.open('w') as file:
        faulthandler.dump_traceback(file, all_threads=True)
      give_up()
    finally:
      os._exit(_STUCK)

  with every(_PULSE_SECONDS, watch) if minutes else contextlib.nullcontext():
    yield alive
