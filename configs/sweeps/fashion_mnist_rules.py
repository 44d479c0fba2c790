"""The fashion-mnist-rules table: each rule against fixed s, and controls.

4,000 training images at 14 pixels: see `bases.fashion_mnist`. Its file first:

          python -m tsla idx --train=4000 \
            --folder=/usr/share/datasets/fashion-mnist \
            --out=data/fashion_mnist_4000.npz

Command:  python -m tsla sweep \
            --table=configs/sweeps/fashion_mnist_rules.py \
            --workdir=runs/fashion-rules --seeds=5
Hardware: 2 CPU cores
Hours:    0.3 (twenty minutes) for each part of wrong labels
"""

from configs import bases, rows
from tsla.sweep.table import Table


def get_table() -> Table:
  """Baseline, LSR, TSLA at four epochs, five rules, five controls."""
  return Table(
    name='fashion-mnist-rules',
    title='Fashion-MNIST of 4,000, ResNet-8: when to drop the smoothing',
    rows=rows.rules(bases.fashion_mnist, fixed=(2, 4, 7, 9), drop=7),
  )
