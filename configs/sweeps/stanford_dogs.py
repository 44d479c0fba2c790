"""The Stanford Dogs table of arXiv:2006.11653: ResNet-18, 90 epochs.

Command:  python -m tsla sweep \
            --table=configs/sweeps/stanford_dogs.py \
            --workdir=runs/stanford_dogs --seeds=5
Hardware: one GPU, or a Cloud TPU VM
Hours:    not yet run
Settings: unverified transcription, see bases.py
"""

from configs import (
  stanford_dogs_baseline,
  stanford_dogs_lsr,
  stanford_dogs_tsla,
)
from tsla.sweep.table import Row, Table


def get_table() -> Table:
  """Nine rows, all from the same ImageNet weights."""
  return Table(
    name='stanford_dogs',
    title='Stanford Dogs, ResNet-18',
    rows=(
      Row('baseline', stanford_dogs_baseline.get_config()),
      Row('LSR', stanford_dogs_lsr.get_config()),
      *(
        Row(f'TSLA({s})', stanford_dogs_tsla.get_config(str(s)))
        for s in (20, 30, 40, 50, 60, 70, 80)
      ),
    ),
  )
