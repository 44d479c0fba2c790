"""One device, pmap on eight and jit on eight, in one process: differences.

With 'probed' the probes of either mode are compared too.
"""

import json
import pathlib
import sys
from unittest import mock

import jax
import numpy as np
from jax.sharding import Mesh
from support import small_config, write_digits_npz

from tsla.config import durations
from tsla.data import datasets
from tsla.training import parallel
from tsla.training.build import build


def modes():
  devices = np.asarray(jax.devices())
  return {
    'single': parallel.Devices('jit', Mesh(devices[:1], 'batch')),
    'pmap': parallel.choose('auto', 16),
    'jit': parallel.choose('jit', 16),
  }


def numbers(found):
  """Without the errors, which are differences of what nearly agrees."""
  row = found.compute()
  return [row[name] for name in row if not name.endswith('_error')]


def train(config, dataset, devices, updates):
  steps = durations.resolve(config, steps_per_epoch=4)
  run = build(config, dataset, steps, devices)
  state, losses, found = run.state, [], []
  if run.probe:
    config = config.copy_and_resolve_references()
    config.variance.mode = 'last_layer'
    last = build(config, dataset, steps, devices)
    state, found = run.probe(state)
    found = [*numbers(found), *numbers(last.probe(last.state)[1])]
  while len(losses) < updates:
    state, row = run.train_chunk(state, 1)
    losses.append(float(row.compute()['loss']))
  test = run.evaluate['eval'](state)
  state = jax.tree.map(np.asarray, state)
  state = state.params, state.batch_stats, state.opt_state, state.target
  return state, losses, test, found


def largest_difference(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return max(
    (float(np.abs(np.subtract(x, y, dtype=float)).max()) for x, y in pairs),
    default=None,
  )


_pmean = jax.lax.pmean


def forgotten_by_the_step(tree, *axis, **named):
  """BatchNorm, which names its axis, is left alone."""
  return tree if axis else _pmean(tree, **named)


def main():
  path = pathlib.Path(sys.argv[1]) / 'digits.npz'
  npz = write_digits_npz(path, train=80, test=37)
  config = small_config(npz)
  config.data.validation = 0.2
  if sys.argv[2] == 'online':  # its state must be of the whole batch
    config.smoothing.method = 'online'
    config.smoothing.theta = 0.5
  if sys.argv[2] == 'probed':
    config.variance.every_epochs = 1
    config.variance.num_batches = 3
  dataset = datasets.load_dataset(config.data)
  assert len(jax.devices()) == 8
  assert {n: m.mode for n, m in modes().items()} == {
    'single': 'jit',
    'pmap': 'pmap',
    'jit': 'jit',
  }
  runs = {
    name: train(config, dataset, devices, updates=5)
    for name, devices in modes().items()
  }
  # The defect that out_axes=None would hide: every device keeps its own mean.
  with mock.patch('jax.lax.pmean', forgotten_by_the_step):
    lost = train(config, dataset, modes()['pmap'], updates=5)
  single = runs.pop('single')

  def differences(run):
    return [largest_difference(single[i], run[i]) for i in range(4)]

  result = {
    'right': {name: differences(run) for name, run in runs.items()},
    'without_pmean': differences(lost),
  }
  print(json.dumps(result))


if __name__ == '__main__':
  sys.exit(main())
