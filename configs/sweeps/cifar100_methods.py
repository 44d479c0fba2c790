"""The cifar100-methods table: the methods of docs/methods.md.

Command:  python -m tsla sweep \
            --table=configs/sweeps/cifar100_methods.py \
            --workdir=runs/cifar100-methods --seeds=5
Hardware: one GPU, or a Cloud TPU VM
Hours:    not yet run
Settings: unverified transcription, see bases.py
"""

from configs import bases, rows
from tsla.sweep.table import Table


def get_table() -> Table:
  """Baseline, eight methods to the end and in two stages, MaxSup's ramp."""
  return Table(
    name='cifar100-methods',
    title="CIFAR-100, ResNet-18: label smoothing's successors",
    rows=rows.methods(bases.cifar100, drops=(120, 160)),
  )
