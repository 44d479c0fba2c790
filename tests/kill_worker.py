"""Runs that are killed -9 again and again, each moment drawn from a seed.

Half of the kills fall on a change of the run's directory, counted by Python's
audit events; the others on a moment of the clock, so inside of compiled calls,
the compiler and the writing threads. The last argument is the method.
"""

import json
import os
import pathlib
import random
import signal
import sys
import threading
import time

import faults
from support import small_config, write_digits_npz

from tsla.training import loop

_CHANGES = {'open', 'os.rename', 'os.remove', 'os.rmdir', 'os.mkdir'}


def child(config, workdir, at_event=None, after_seconds=None):
  """Trains, in a fork; returns (whether it was killed, its seconds)."""
  start = time.monotonic()
  pid = os.fork()
  if pid:
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.waitstatus_to_exitcode(status) == 0, status
    return killed, time.monotonic() - start
  events = [0]

  def kill():
    os.kill(os.getpid(), signal.SIGKILL)

  def audit(event, args):
    if event in _CHANGES and str(workdir) in str(args[0]):
      events[0] += 1
      if events[0] == at_event:
        kill()

  sys.addaudithook(audit)
  if after_seconds is not None:
    threading.Timer(after_seconds, kill).start()
  loop.train_and_evaluate(config, workdir)
  (workdir.parent / 'events').write_text(str(events[0]))
  os._exit(0)


def main():
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  folder, kills = pathlib.Path(sys.argv[1]), int(sys.argv[2])
  rng = random.Random(int(sys.argv[3]))
  config = small_config(write_digits_npz(folder / 'digits.npz'))
  config.log_every_steps = 2
  config.smoothing.method = sys.argv[4]
  child(config, folder / 'first')  # fills the compilation cache
  _, seconds = child(config, folder / 'whole')
  changes = int((folder / 'events').read_text())
  whole = faults.arrays(folder / 'whole', 16), faults.rows(folder / 'whole')
  result, done = {'kills': 0, 'runs': 0, 'equal': 0, 'steps': []}, True
  while result['kills'] < kills or not done:
    if done:
      workdir = folder / f'run{result["runs"]}'
      result['runs'] += 1
    moment = {}
    if result['kills'] < kills:
      moment = (
        {'at_event': rng.randrange(1, changes + 1)}
        if rng.random() < 0.5
        else {'after_seconds': rng.uniform(0, seconds)}
      )
    killed, _ = child(config, workdir, **moment)
    done = not killed
    result['kills'] += killed
    if killed:
      result['steps'].append(
        max(
          (
            int(path.name)
            for path in workdir.glob('checkpoints/*')
            if path.name.isdigit()
          ),
          default=0,
        )
      )
    else:
      end = faults.arrays(workdir, 16), faults.rows(workdir)
      result['equal'] += end == whole
      left = [path.name for path in (workdir / 'checkpoints').iterdir()]
      assert all(name.isdigit() for name in left), left
      assert len(left) <= 3, left
  print(json.dumps(result))


if __name__ == '__main__':
  main()
