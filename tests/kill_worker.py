"""Runs of one kind that are killed -9 again and again, at moments of a seed.

The first kill falls on the first row of the log. Of the others most fall on a
system call that changes the run's directory, by its count, before, in or after
it (tests/killer.c), and the rest on a moment of the clock, so inside of
compiled calls and the compiler; without a killer all of them do.
"""

import ctypes
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

CALLS = ('create', 'write', 'sync', 'rename', 'unlink', 'mkdir')
BEFORE, AFTER, HALF = range(3)
FIRST_ROW = '/metrics.jsonl', 'write', 1, AFTER


def configs(kind, folder):
  """The run of this kind, after those that it builds on."""
  size = 80 if kind in ('plateau', 'optimal') else 64  # 64 that are trained on
  config = small_config(write_digits_npz(folder / 'digits.npz', size))
  config.log_every_steps = 2
  if kind in ('probed', 'plateau', 'optimal', 'forked'):
    config.variance.every_epochs = 1
    config.variance.num_batches = 3
    config.variance.mode = 'last_layer'
  if kind == 'mapped':
    config.data.feed = kind
  base = config.copy_and_resolve_references()
  if kind in ('plateau', 'optimal'):
    config.smoothing.schedule, config.smoothing.drop_epochs = 'auto', -1.0
    config.smoothing.rule, config.smoothing.patience = kind, 1
    config.smoothing.reset_momentum = True
    config.data.validation = 0.2
    config.optimizer.learning_rate = 0.5
  if kind == 'online':
    config.smoothing.method, config.smoothing.theta = 'online', 0.5
  if kind == 'teacher':
    config.smoothing.target = 'teacher'
    config.teacher.run = str(folder / 'base')
    return [base, config]
  if kind == 'forked':
    base.smoothing.schedule, base.smoothing.drop_epochs = 'constant', -1.0
    base.checkpoint_keep_epochs = (1,)
    config.init.fork_from = f'{folder / "base"}@1'
    return [base, config]
  return [config]


def child(config, workdir, at_call=None, after_seconds=None):
  """Trains, in a fork; returns (whether it was killed, its seconds, counts)."""
  start = time.monotonic()
  read, write = os.pipe()
  pid = os.fork()
  if pid:
    os.close(write)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.waitstatus_to_exitcode(status) == 0, status
    with open(read) as file:
      counts = json.loads(file.read() or '{}')
    return killed, time.monotonic() - start, counts
  killer = ctypes.CDLL(None)
  if hasattr(killer, 'arm'):
    below, call, count, mode = at_call or ('', CALLS[0], 0, BEFORE)
    killer.arm(f'{workdir}{below}'.encode(), CALLS.index(call), count, mode)
  if after_seconds is not None:
    kill = os.kill, (os.getpid(), signal.SIGKILL)
    threading.Timer(after_seconds, *kill).start()
  loop.train_and_evaluate(config, workdir)
  if hasattr(killer, 'arm'):
    counts = {call: killer.counts(i) for i, call in enumerate(CALLS)}
    os.write(write, json.dumps(counts).encode())
  os._exit(0)


def moment(rng, counts, seconds):
  if counts and rng.random() < 0.75:
    call = rng.choice([call for call in CALLS if counts[call]])
    mode = rng.choice([BEFORE, AFTER] + [HALF] * (call == 'write'))
    return {'at_call': ('', call, rng.randint(1, counts[call]), mode)}
  return {'after_seconds': rng.uniform(0, seconds)}


def saved(workdir):
  names = (path.name for path in workdir.glob('checkpoints/*'))
  return max((int(name) for name in names if name.isdigit()), default=0)


def main():
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  kind, folder, kills = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
  folder.mkdir()
  rng = random.Random(kind)
  *before, config = configs(kind, folder)
  for each in before:
    child(each, folder / 'base')
  child(config, folder / 'first')  # fills the compilation cache
  _, seconds, counts = child(config, folder / 'whole')
  whole = faults.arrays(folder / 'whole', 16), faults.rows(folder / 'whole')
  result = {'by_call': 0, 'kills': [], 'runs': 0, 'unequal': []}
  done = True
  while len(result['kills']) < int(kills) or not done:
    if done:
      workdir = folder / f'run{result["runs"]}'
      result['runs'] += 1
      story = []
    when = {}
    if len(result['kills']) < int(kills):
      when = moment(rng, counts, seconds)
      if counts and not result['kills']:
        when = {'at_call': FIRST_ROW}
    killed, _, _ = child(config, workdir, **when)
    done = not killed
    if killed:
      result['kills'].append(saved(workdir))
      result['by_call'] += 'at_call' in when
      story.append(when)
    else:
      if (faults.arrays(workdir, 16), faults.rows(workdir)) != whole:
        result['unequal'].append([workdir.name, *story])
      left = [path.name for path in (workdir / 'checkpoints').iterdir()]
      assert all(name.isdigit() for name in left), left
      assert len(left) <= 3, left
  print(json.dumps(result))


if __name__ == '__main__':
  main()
