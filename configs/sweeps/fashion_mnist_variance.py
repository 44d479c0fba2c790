"""The fashion-mnist-variance table: δ, θ* and ‖∇F‖ of five methods.

4,000 training images at 14 pixels: see `bases.fashion_mnist`. Its file first:

          python -m tsla idx --train=4000 \
            --folder=/usr/share/datasets/fashion-mnist \
            --out=data/fashion_mnist_4000.npz

Command:  python -m tsla sweep \
            --table=configs/sweeps/fashion_mnist_variance.py \
            --workdir=runs/fashion-variance --seeds=5
Hardware: 2 CPU cores
Hours:    0.2 (ten minutes) for each part of wrong labels
"""

from configs import bases, rows
from tsla.sweep.table import Table


def get_table() -> Table:
  """Baseline, LSR weak and strong, TSLA, LSR towards a teacher; all probed."""
  return Table(
    name='fashion-mnist-variance',
    title='Fashion-MNIST of 4,000, ResNet-8: the variance of the gradient',
    rows=rows.variance(bases.fashion_mnist, drop=7),
  )
