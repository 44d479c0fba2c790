"""Seconds of a start and of a save, beside those of another checkout, in turn.

A start is a whole process that trains one epoch, with its programs in a cache.
A save is what the loop does at an epoch's end: the state, and the log with it.

  git worktree add ../before COMMIT
  python benchmarks/against.py --size=digits --other=../before
"""

import inspect
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

import common

_SAVES = 40


def saves() -> None:
  """Prints the seconds of each of some saves of a state of the digits' size."""
  sys.path.insert(0, os.getcwd())
  import jax

  from tsla.runs import checkpoint, log

  shapes = [(3, 3, 64, 64)] * 8 + [(64,)] * 40
  state = {f'array-{n}': jax.numpy.ones(s) for n, s in enumerate(shapes)}
  with tempfile.TemporaryDirectory() as folder:
    home = pathlib.Path(folder)
    more: dict[str, Any] = {}
    if 'log' in inspect.signature(checkpoint.Checkpoints.save).parameters:
      file = (home / 'metrics.jsonl').open('w')
      more['log'] = log.RunLog(file, log.Board(home / 'tensorboard', 0))
    seconds = []
    # Another checkout may be older than the class that is opened by itself.
    opened = getattr(checkpoint, 'open_checkpoints', checkpoint.Checkpoints)
    with opened(home / 'checkpoints') as checkpoints:
      for step in range(_SAVES):
        for log_ in more.values():
          log_.write('train', step, loss=1.0)
        start = time.perf_counter()
        checkpoints.save(step, state, **more)
        checkpoints.wait()
        seconds.append(time.perf_counter() - start)
  print(json.dumps(seconds[3:]))


def main() -> None:
  """Runs both checkouts in turn."""
  parser = common.arguments(__doc__)
  parser.add_argument('--other', default='.', help='a checkout to compare with')
  parser.add_argument('--saves', action='store_true', help='(internal)')
  args = common.parse(parser)
  if args.saves:
    saves()
    return
  checkouts = {'here': str(common.ROOT), 'other': args.other}
  seconds: dict[str, dict[str, list[float]]] = {
    what: {name: [] for name in checkouts} for what in ('start', 'save')
  }
  with tempfile.TemporaryDirectory() as folder:
    for turn in range(args.rounds + 1):
      for name, checkout in checkouts.items():
        run = f'{folder}/{name}-{turn}'
        command = [sys.executable, 'main.py', '--config=configs/digits_tsla.py']
        command += [f'--workdir={run}', '--config.epochs=4']
        command += ['--config.smoothing.drop_epochs=2']
        start = time.perf_counter()
        _output(command, checkout, folder)
        seconds['start'][name].append(time.perf_counter() - start)
        command = [sys.executable, os.path.abspath(__file__), '--saves']
        each = json.loads(_output(command, checkout, folder).splitlines()[-1])
        seconds['save'][name].append(float(np.median(each)))
  figures = {}
  for what, of in seconds.items():
    here, other = (np.array(of[name][1:]) for name in checkouts)  # one to warm
    figures[what] = {
      'seconds': round(float(np.median(here)), 4),
      'other': round(float(np.median(other)), 4),
    } | common.ratio(here, other)
  common.record('against', args, 'cpu', figures)


def _output(command: list[str], checkout: str, folder: str) -> str:
  env = os.environ | {'XDG_CACHE_HOME': f'{folder}/cache', 'PYTHONPATH': ''}
  return subprocess.run(
    *(command,),
    cwd=checkout,
    env=env,
    check=True,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
  ).stdout


if __name__ == '__main__':
  main()
