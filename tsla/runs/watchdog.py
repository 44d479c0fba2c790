"""A run that stands still says where, and ends."""

import contextlib
import faulthandler
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

EXIT_CODE = 4


@contextlib.contextmanager
def watch_progress(
  minutes: float, stacks: pathlib.Path, give_up: Callable[[], None]
) -> Iterator[Callable[[], None]]:
  """Ends the process, exit code 4, when nothing was done for a while.

  Args:
    minutes: that long; 0: for ever.
    stacks: a file that then gets the stack of every thread.
    give_up: called before the process ends.

  Yields:
    A function to call whenever something was done.
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
      os._exit(EXIT_CODE)

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
