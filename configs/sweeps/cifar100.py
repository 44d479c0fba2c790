"""The CIFAR-100 table of arXiv:2006.11653: ResNet-18, 200 epochs.

Command:  python -m tsla sweep --table=configs/sweeps/cifar100.py \
            --workdir=runs/cifar100 --seeds=5
Hardware: one GPU, or a Cloud TPU VM
Hours:    not yet run
Settings: unverified transcription, see bases.py
"""

from configs import (
  cifar100_baseline,
  cifar100_lsr,
  cifar100_lsr_pre,
  cifar100_tsla,
  cifar100_tsla_pre,
)
from tsla.sweep.table import Row, Table

_DROP_EPOCHS = (120, 140, 160, 180)


def get_table() -> Table:
  """Eleven rows; the teacher of the "-pre" rows is the baseline's network."""
  return Table(
    name='cifar100',
    title='CIFAR-100, ResNet-18',
    rows=(
      Row('baseline', cifar100_baseline.get_config()),
      Row('LSR', cifar100_lsr.get_config()),
      *(
        Row(f'TSLA({s})', cifar100_tsla.get_config(str(s)))
        for s in _DROP_EPOCHS
      ),
      Row('LSR-pre', cifar100_lsr_pre.get_config(), teacher='baseline'),
      *(
        Row(
          f'TSLA-pre({s})',
          cifar100_tsla_pre.get_config(str(s)),
          teacher='baseline',
        )
        for s in _DROP_EPOCHS
      ),
    ),
  )
