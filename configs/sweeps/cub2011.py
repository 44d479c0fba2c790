"""The CUB-2011 table of arXiv:2006.11653: ResNet-18, 90 epochs.

Command:  python -m tsla sweep \
            --table=configs/sweeps/cub2011.py \
            --workdir=runs/cub2011 --seeds=5
Hardware: one GPU, or a Cloud TPU VM
Hours:    not yet run
Settings: unverified transcription, see bases.py
"""

from configs import cub2011_baseline, cub2011_lsr, cub2011_tsla
from tsla.sweep.table import Row, Table


def get_table() -> Table:
  """Nine rows, all from the same ImageNet weights."""
  return Table(
    name='cub2011',
    title='CUB-2011, ResNet-18',
    rows=(
      Row('baseline', cub2011_baseline.get_config()),
      Row('LSR', cub2011_lsr.get_config()),
      *(
        Row(f'TSLA({s})', cub2011_tsla.get_config(str(s)))
        for s in (20, 30, 40, 50, 60, 70, 80)
      ),
    ),
  )
