"""A run on a file system of its own, whose power is cut again and again.

A copy of the ext4 image holds what a power cut would leave: nothing that was
not brought to the disk. Prints, for each copy, whether the checkpoint before
the newest one is there, and whether the run ends as if nothing had been; or
null where nothing can be mounted.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import faults
from kill_worker import child, configs, saved

from tsla.training import loop

CUTS = 5
LAST = 32


@contextlib.contextmanager
def mounted(image, place):
  """Raises CalledProcessError where nothing can be mounted."""
  command = ['mount', '-o', 'loop', image, place]
  subprocess.run(command, check=True, capture_output=True)
  try:
    yield
  finally:
    # Also while a process that failed is still at work there.
    subprocess.run(['umount', '--lazy', place], check=True)


def end(workdir):
  return faults.arrays(workdir, LAST), faults.rows(workdir)


def main():
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  folder = pathlib.Path(sys.argv[1])
  (config,) = configs('plain', folder)
  config.epochs = 8
  image, disk = folder / 'image', folder / 'disk'
  disk.mkdir()
  with image.open('wb') as file:
    file.truncate(64 << 20)
  subprocess.run(['mkfs.ext4', '-q', image], check=True)
  try:
    with mounted(image, disk):
      pass
  except subprocess.CalledProcessError:
    print('null')
    return
  child(config, folder / 'whole')
  steps = [0]
  with mounted(image, disk):
    pid = os.fork()
    if not pid:
      loop.train_and_evaluate(config, disk / 'run')
      os._exit(0)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
      if saved(disk / 'run') > steps[-1] and len(steps) <= CUTS:
        os.kill(pid, signal.SIGSTOP)
        steps.append(saved(disk / 'run'))
        shutil.copy(image, folder / f'cut{len(steps) - 1}')
        os.kill(pid, signal.SIGCONT)
      time.sleep(0.005)
  result = []
  for cut, before in enumerate(steps[:-1], start=1):
    with mounted(folder / f'cut{cut}', disk):
      lasting = saved(disk / 'run') >= before
      child(config, disk / 'run')
      result.append([lasting, end(disk / 'run') == end(folder / 'whole')])
  print(json.dumps(result))


if __name__ == '__main__':
  main()
