"""The fashion-mnist-whole table: all 60,000 images at 28 pixels.

Its file first:
          python -m tsla idx --folder=/usr/share/datasets/fashion-mnist \
            --out=data/fashion_mnist.npz

Command:  python -m tsla sweep \
            --table=configs/sweeps/fashion_mnist_whole.py \
            --workdir=runs/fashion-whole --seeds=3
Hardware: one GPU
Hours:    not yet run
"""

import ml_collections

from configs import bases
from tsla.sweep.table import Row, Table

_METHODS = ('label_smoothing', 'max_suppression', 'online')


def _base() -> ml_collections.ConfigDict:
  config = bases.fashion_mnist()
  config.epochs = 30
  config.batch_size = 128
  config.data.path = 'data/fashion_mnist.npz'
  config.data.image_size = 28
  config.model.name = 'resnet18'
  config.model.width = 64
  config.augment.pad = 2
  return config


def get_table() -> Table:
  """Baseline, label smoothing, MaxSup and OLS, each to the end."""
  return Table(
    name='fashion-mnist-whole',
    title='Fashion-MNIST, ResNet-18',
    rows=(
      Row('baseline', _base()),
      *(Row(name, bases.method(_base(), name)) for name in _METHODS),
    ),
  )
