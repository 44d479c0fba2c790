"""Runs stopped, killed or forked, in either stage, against one left alone.

With 'probed' each is probed, and with 'brief', which leaves out most of them;
with 'auto' a rule ends the smoothing of each, so that none can be forked. What
follows is the method.
"""

import json
import os
import pathlib
import shutil
import signal
import sys
from unittest import mock

import jax
import numpy as np
from support import small_config, write_digits_npz

from tsla.config import durations
from tsla.data import datasets
from tsla.runs.checkpoint import Checkpoints
from tsla.runs.lifecycle import Interrupted
from tsla.training import loop, parallel
from tsla.training.build import build
from tsla.training.reporter import Reporter


def train(config, workdir, stop_after=None, signum=signal.SIGTERM):
  """Trains to the end, or to a signal while update `stop_after` is reported."""
  chunk = Reporter.chunk

  def signal_at(self, before, step, row):
    chunk(self, before, step, row)
    if step == stop_after:
      os.kill(os.getpid(), signum)

  with mock.patch.object(Reporter, 'chunk', signal_at):
    try:
      loop.train_and_evaluate(config, workdir)
    except Interrupted as stop:
      assert stop.exit_code == 128 + signum
      status = json.loads((workdir / 'status.json').read_text())
      assert status.pop('seconds') > 0
      assert status == {'state': 'interrupted', 'step': stop_after}
    else:
      assert stop_after is None


def kill(workdir, newest):
  """Leaves what a kill would: nothing saved after update `newest`."""
  (workdir / 'status.json').unlink()
  for path in (workdir / 'checkpoints').iterdir():
    if path.name.isdigit() and int(path.name) > newest:
      shutil.rmtree(path)


def main():
  # The number of cores a program sees changes its sums.
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  folder = pathlib.Path(sys.argv[1])
  # Many runs of one program: compile it once.
  jax.config.update('jax_enable_compilation_cache', True)
  jax.config.update('jax_compilation_cache_dir', str(folder / 'cache'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  train_size = 80 if sys.argv[2] == 'auto' else 64  # 64 that are trained on
  config = small_config(write_digits_npz(folder / 'digits.npz', train_size))
  config.log_every_steps = 2
  kind = sys.argv[2]
  config.smoothing.method = (sys.argv[3:] or ['label_smoothing'])[0]
  if kind != 'plain':
    config.variance.every_epochs = 1
    config.variance.num_batches = 3
    config.variance.mode = 'last_layer'
  if kind == 'auto':
    config.smoothing.schedule, config.smoothing.drop_epochs = 'auto', -1.0
    config.smoothing.rule, config.smoothing.patience = 'plateau', 1
    config.data.validation = 0.2
    config.smoothing.min_epochs = 2.0
    config.smoothing.reset_momentum = True
    config.optimizer.learning_rate = 0.5
  like = build(
    config,
    datasets.load_dataset(config.data),
    durations.resolve(config, steps_per_epoch=4),
    parallel.choose('auto', config.batch_size),
  ).state

  def saved(workdir):
    with Checkpoints(workdir / 'checkpoints') as checkpoints:
      state = checkpoints.restore(like, checkpoints.latest_step)
      return [np.asarray(x) for x in jax.tree.leaves(state)]

  def rows(workdir):
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    clock = {'images_per_second': 0, 'seconds': 0}
    return [json.loads(line) | clock for line in lines]

  train(config, folder / 'whole')
  whole, result = saved(folder / 'whole'), {}

  def go_on(name, workdir):
    before = saved(workdir)
    train(config, workdir)
    after = saved(workdir)
    result[name] = {
      'differed_before': not all(map(np.array_equal, whole, before)),
      'equal': all(map(np.array_equal, whole, after)),
      'same_rows': rows(folder / 'whole') == rows(workdir),
    }

  # In stage one, at the switch, in stage two; the first two within an epoch's
  # updates and at its end.
  stops = (6, signal.SIGTERM), (8, signal.SIGINT), (10, signal.SIGTERM)
  for stop_after, signum in stops[-1:] if kind == 'brief' else stops:
    workdir = folder / f'stopped{stop_after}'
    train(config, workdir, stop_after, signum)
    if stop_after == 10:  # the log has rows beyond the checkpoint of 8
      killed = shutil.copytree(workdir, folder / 'killed8')
      kill(killed, newest=8)
      go_on('killed after 8', killed)
    go_on(f'stopped {stop_after}', workdir)
  if kind != 'brief':
    killed = shutil.copytree(folder / 'whole', folder / 'killed12')
    kill(killed, newest=12)
    go_on('killed after 12', killed)

  if kind == 'auto':
    drops = [r['step'] for r in rows(folder / 'whole') if r['kind'] == 'switch']
    print(json.dumps(result | {'drops': drops}))
    return

  # The trunk smooths to the end; two branches of it must be the whole run.
  trunk = config.copy_and_resolve_references()
  trunk.smoothing.schedule = 'constant'
  trunk.smoothing.drop_epochs = -1.0
  trunk.checkpoint_keep_epochs = (1, 2)
  train(trunk, folder / 'trunk')
  for epoch in (2,) if kind == 'brief' else (1, 2):
    branch = config.copy_and_resolve_references()
    branch.init.fork_from = f'{folder / "trunk"}@{epoch}'
    train(branch, folder / f'branch{epoch}')
    result[f'forked at {epoch}'] = {
      'differed_before': not all(
        map(np.array_equal, whole, saved(folder / 'trunk'))
      ),
      'equal': all(
        map(np.array_equal, whole, saved(folder / f'branch{epoch}'))
      ),
      'same_rows': rows(folder / 'whole') == rows(folder / f'branch{epoch}'),
    }
  print(json.dumps(result))


if __name__ == '__main__':
  sys.exit(main())
