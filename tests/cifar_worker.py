"""Trains configs/cifar100_tsla.py on a small archive in the genuine form."""

import json
import pathlib
import sys

import archives
import main_worker

from tsla.data.builders.archive import Archive
from tsla.data.builders.cifar100 import Cifar100
from tsla.data.prepare import prepare


def main():
  folder = pathlib.Path(sys.argv[1])
  path = folder / 'cifar-100-binary.tar.gz'
  written = archives.write_cifar100(path, train=100, test=20)
  Cifar100.ARCHIVES = (
    Archive(
      url='http://127.0.0.1:9/cifar-100-binary.tar.gz',
      size=written['size'],
      sha256=written['sha256'],
    ),
  )
  prepare('cifar100', folder / 'data', [path])
  code, error, *_ = main_worker.run(
    [
      '--config=configs/cifar100_tsla.py:1',
      f'--config.data.path={folder / "data"}',
      '--config.data.download=false',
      '--config.batch_size=50',
      '--config.epochs=2',
      '--config.optimizer.milestone_epochs=(1,)',
      '--config.model.width=4',
      f'--workdir={folder / "run"}',
    ]
  )
  assert code == 0, error
  rows = (folder / 'run' / 'metrics.jsonl').read_text().splitlines()
  print(json.dumps([json.loads(row) for row in rows]))


if __name__ == '__main__':
  sys.exit(main())
