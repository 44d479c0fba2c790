"""One run of an update an epoch, resumed from each of 20 updates in a row."""

import json
import os
import pathlib
import shutil
import sys

import faults
from support import small_config, write_digits_npz

from tsla.training import loop


def main():
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  folder = pathlib.Path(sys.argv[1])
  config = small_config(write_digits_npz(folder / 'digits.npz'))
  config.batch_size, config.epochs = 64, 26
  config.smoothing.drop_epochs = 13.0
  config.checkpoint_keep_epochs = tuple(range(3, 24))
  config.eval_every_epochs = 13
  loop.train_and_evaluate(config, folder / 'whole')
  whole = faults.arrays(folder / 'whole', 26), faults.rows(folder / 'whole')
  result = {}
  for step in range(3, 23):
    workdir = shutil.copytree(folder / 'whole', folder / f'from{step}')
    (workdir / 'status.json').unlink()
    for path in (workdir / 'checkpoints').iterdir():
      if int(path.name) > step:
        shutil.rmtree(path)
    before = faults.arrays(workdir, step)
    loop.train_and_evaluate(config, workdir)
    result[step] = {
      'differed_before': before != whole[0],
      'equal': (faults.arrays(workdir, 26), faults.rows(workdir)) == whole,
    }
    shutil.rmtree(workdir)
  print(json.dumps(result))


if __name__ == '__main__':
  main()
