"""One of several processes that train one run together."""

import json
import pathlib
import sys

import jax
from support import small_config

from tsla.training import loop


def main():
  address, count, index, npz, workdir = sys.argv[1:]
  if int(count) > 1:
    jax.distributed.initialize(address, int(count), int(index))
  config = small_config(npz)
  config.epochs = 3
  config.parallel = 'jit'
  loop.train_and_evaluate(config, workdir)
  log = pathlib.Path(workdir, 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in log]
  print(json.dumps([row['loss'] for row in rows if row['kind'] == 'train']))


if __name__ == '__main__':
  sys.exit(main())
