"""Trains the runs of a sweep a little, with a cache of compiled programs.

Prints where the cache is, which programs the first run put there and which the
others did, and what each run's log would say.
"""

import json
import pathlib
import sys

import jax
from support import small_config, write_digits_npz

from tsla.config import durations
from tsla.data import datasets
from tsla.runs.environment import keep_compiled
from tsla.training import parallel, step
from tsla.training.build import build

KINDS = {
  'none': (0.0, -1.0),
  'constant': (0.1, -1.0),
  'two_stage': (0.1, 2.0),
  'linear': (0.3, 1.0),
}
# Of runs that are probed: rule and patience.
RULES = {'constant': ('', 2), 'delta': ('delta', 2), 'optimal': ('optimal', 1)}


def configs(npz):
  """Two seeds of each kind of run; with rules if they are asked for."""
  probed = sys.argv[2:] == ['probed']
  for seed, rate in ((0, 0.1), (2**32 - 1, 0.05)):
    for kind in RULES if probed else KINDS:
      config = small_config(npz)
      config.seed = seed
      config.optimizer.learning_rate = rate
      if probed:
        config.smoothing.schedule = 'auto' if RULES[kind][0] else 'constant'
        config.smoothing.rule, config.smoothing.patience = RULES[kind]
        config.smoothing.theta, config.smoothing.drop_epochs = 0.1, -1.0
        config.variance.every_epochs = 1
        config.variance.num_batches = 3
        config.variance.mode = 'last_layer'
      else:
        config.smoothing.schedule = kind
        config.smoothing.theta, config.smoothing.drop_epochs = KINDS[kind]
      yield kind, config


def main():
  folder = pathlib.Path(sys.argv[1])
  jax.config.update('jax_enable_compilation_cache', True)
  keep_compiled()
  cache = pathlib.Path(jax.config.jax_compilation_cache_dir)
  npz = write_digits_npz(folder / 'digits.npz')
  rows, programs = [], []
  for kind, config in configs(npz):
    run = build(
      config,
      datasets.load_dataset(config.data),
      durations.resolve(config, steps_per_epoch=4),
      parallel.choose('auto', config.batch_size),
    )
    state = run.state
    if run.probe:
      state, _ = run.probe(state)
    state, row = run.train_chunk(state, 4)
    run.evaluate['eval'](state)
    assert row.bad_array == step.NONE
    row = {name: float(value) for name, value in row.compute().items()}
    rows.append({'seed': config.seed, 'kind': kind, **row})
    programs.append({path.name for path in cache.glob('*-cache')})
  result = {
    'cache': str(cache),
    'first': [name.split('-')[0] for name in programs[0]],
    'later': [name.split('-')[0] for name in programs[-1] - programs[0]],
    'rows': rows,
  }
  print(json.dumps(result))


if __name__ == '__main__':
  sys.exit(main())
