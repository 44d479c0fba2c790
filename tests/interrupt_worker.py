"""A small run that comes to a place, says so, and waits there for a signal.

With 0 seconds it goes on when it is told to, by a file.
"""

import os
import pathlib
import sys
import threading
import time
import types
from unittest import mock

from support import small_config

from tsla.errors import InputError
from tsla.runs import lifecycle
from tsla.runs.lifecycle import Interrupted
from tsla.training import build as build_lib
from tsla.training import loop
from tsla.training.reporter import Diverged


def main():
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  npz, workdir, place, seconds, grace = sys.argv[1:]
  workdir = pathlib.Path(workdir)
  config = small_config(npz)
  config.watchdog_minutes = float(grace) / 60 if place == 'hang' else 0.0
  if place == 'probe':
    config.variance.every_epochs, config.variance.num_batches = 1, 3
    config.variance.mode = 'last_layer'
  build = build_lib.build
  there = threading.Event()

  class Pause(threading.Event):
    """The watchdog's: no time passes before the place."""

    def wait(self, timeout=None):
      while not there.is_set() and not self.is_set():
        time.sleep(0.01)
      return super().wait(timeout)

  def reached():
    there.set()
    workdir.with_suffix('.reached').touch()
    if place == 'hang':
      threading.Event().wait()
    while not float(seconds) and not workdir.with_suffix('.go').exists():
      time.sleep(0.05)
    # A lock held in C, as by the compiler: no Python runs in the main thread.
    time.sleep(float(seconds))

  pausing = threading
  if place == 'hang':
    pausing = types.SimpleNamespace(**vars(threading) | {'Event': Pause})

  def slow(*args):
    run = build(*args)

    def chunk(state, length, *done):
      late = place == 'chunk' and int(state.step) == 9
      if late or place in ('compile', 'hang'):
        reached()
      return run.train_chunk(state, length, *done)

    def evaluate(state):
      if place == 'evaluation' and int(state.step) == 8:
        reached()
      return run.evaluate['eval'](state)

    def probe(state):
      if int(state.step) == 8:
        reached()
      return run.probe(state)

    return run._replace(
      train_chunk=chunk, evaluate={'eval': evaluate}, probe=run.probe and probe
    )

  with (
    mock.patch.object(loop, 'build', slow),
    mock.patch.object(lifecycle, 'threading', pausing),
    mock.patch.object(
      lifecycle.watch_signals.__wrapped__, '__defaults__', (float(grace),)
    ),
  ):
    try:
      loop.train_and_evaluate(config, workdir)
    except (Diverged, Interrupted) as stop:
      sys.exit(stop.exit_code)
    except InputError:
      sys.exit(2)


if __name__ == '__main__':
  main()
