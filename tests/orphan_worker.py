"""A sweep whose process is killed while it trains a run: does the run go too?

Prints whether the run had a session of its own, and whether it ended.
"""

import json
import multiprocessing
import os
import pathlib
import select
import signal
import sys
import types
from unittest import mock

from tsla.sweep import worker


def main():
  folder = pathlib.Path(sys.argv[1])
  read, write = os.pipe()
  run = types.SimpleNamespace(directory='run')

  def train(run, workdir):
    os.write(write, f'{os.getpid()} {os.getsid(0)}'.encode())
    signal.pause()

  def sweep():
    worker.Worker(run, folder, 0, {})
    signal.pause()

  # A spawned process would import all of this again.
  context = multiprocessing.get_context('fork')
  with (
    mock.patch.object(worker, 'train', train),
    mock.patch.object(multiprocessing, 'get_context', lambda method: context),
  ):
    process = context.Process(target=sweep)
    process.start()
  os.close(write)
  pid, session = map(int, os.read(read, 100).split())
  process.kill()
  process.join()
  # The pipe ends with the last process that could write to it.
  ended = bool(select.select([read], [], [], 60)[0])
  if not ended:
    os.kill(pid, signal.SIGKILL)
  print(json.dumps({'own_session': session == pid, 'ended': ended}))


if __name__ == '__main__':
  main()
