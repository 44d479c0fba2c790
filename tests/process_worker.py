"""One of several processes that train one run together.

With a place and a signal it sends itself that signal when its update `place` is
reported, or fails there if the signal is -1; the exit code is that of main.py.
A last argument is the method.
"""

import json
import os
import pathlib
import sys
from unittest import mock

import faults
from support import small_config

from tsla.errors import InputError
from tsla.runs import manifest
from tsla.runs.checkpoint import Checkpoints
from tsla.runs.lifecycle import Interrupted
from tsla.training import loop, parallel
from tsla.training.reporter import Reporter


def main():
  address, count, index, npz, workdir, place, signum, *method = sys.argv[1:]
  if int(count) > 1:
    parallel.join(address, int(count), int(index), seconds=60)
  config = small_config(npz)
  config.epochs = 8  # 32 updates, the switch at update 16
  config.smoothing.drop_epochs = 4.0
  config.parallel = 'jit'
  if method:
    (config.smoothing.method,) = method
  chunk, seen = Reporter.chunk, {}
  save = Checkpoints.save

  def remember(self, step, state, *args):
    # Of this process's own memory, not of what the first one writes.
    seen[step] = manifest.digests(manifest.host_copy(state))
    save(self, step, state, *args)

  def signal_at(self, before, step, row):
    chunk(self, before, step, row)
    if step == int(place) and int(signum) == -1:
      raise InputError('images: bad disk', cure='start again')
    if step == int(place):
      os.kill(os.getpid(), int(signum))

  with (
    mock.patch.object(Reporter, 'chunk', signal_at),
    mock.patch.object(Checkpoints, 'save', remember),
  ):
    try:
      loop.train_and_evaluate(config, workdir)
    except Interrupted as stop:
      sys.exit(stop.exit_code)
    except InputError as error:
      print(error)
      sys.exit(2)
  print(
    json.dumps({'rows': faults.rows(pathlib.Path(workdir)), 'end': seen[32]})
  )


if __name__ == '__main__':
  sys.exit(main())
