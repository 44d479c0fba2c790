"""Saves a replicated state, or reads one back, on all devices there are."""

import json
import pathlib
import sys

import jax
import numpy as np

from tsla.runs.checkpoint import Checkpoints
from tsla.training import parallel


def main():
  what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
  devices = parallel.choose('auto', 64)
  values = {'a': np.random.default_rng(0).normal(size=(64, 3))}
  state = devices.replicate(jax.tree.map(np.float32, values))
  with Checkpoints(folder / 'checkpoints') as checkpoints:
    if what == 'save':
      checkpoints.save(1, state)
      print(json.dumps(True))
      return
    zeros = devices.replicate(jax.tree.map(np.zeros_like, state))
    got = checkpoints.restore(zeros, 1)
    checkpoints.confirm(1)
  result = {
    'devices': len(jax.devices()),
    'placed': len(got['a'].sharding.device_set),
    'equal': np.array_equal(got['a'], np.float32(values['a'])),
  }
  print(json.dumps(result))


if __name__ == '__main__':
  sys.exit(main())
