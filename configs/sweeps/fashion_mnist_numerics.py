"""The fashion-mnist-numerics table: bfloat16 against float32.

Its file is made as for `fashion_mnist_variance.py`.

Command:  python -m tsla sweep \
            --table=configs/sweeps/fashion_mnist_numerics.py \
            --workdir=runs/fashion-numerics --seeds=5
Hardware: 2 CPU cores
Hours:    3 minutes
"""

from configs import bases, rows
from tsla.sweep.table import Table


def get_table() -> Table:
  """TSLA in either precision."""
  return Table(
    name='fashion-mnist-numerics',
    title='Fashion-MNIST of 4,000, ResNet-8: bfloat16 against float32',
    rows=rows.numerics(bases.fashion_mnist, drop=7),
  )
