"""The fashion-mnist-methods table: the methods of docs/methods.md.

4,000 training images at 14 pixels: see `bases.fashion_mnist`, and
`fashion_mnist_rules` for the command that writes its file. With
`--config.data.label_noise=0.4` it is the table of noisy labels.

Command:  python -m tsla sweep \
            --table=configs/sweeps/fashion_mnist_methods.py \
            --workdir=runs/fashion-methods --seeds=5
Hardware: 2 CPU cores
Hours:    0.8 (45 to 57 minutes beside other jobs)
"""

from configs import bases, rows
from tsla.sweep.table import Table


def get_table() -> Table:
  """Baseline, eight methods to the end and in two stages, MaxSup's ramp."""
  return Table(
    name='fashion-mnist-methods',
    title="Fashion-MNIST of 4,000, ResNet-8: label smoothing's successors",
    rows=rows.methods(bases.fashion_mnist, drops=(4, 7)),
  )
