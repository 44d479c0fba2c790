"""The digits baseline with many seeds: what differs without any difference.

Command:  python -m tsla sweep \
            --table=configs/sweeps/digits_seeds.py \
            --workdir=runs/digits-seeds --seeds=100
Hardware: 2 CPU cores
Hours:    not yet run
"""

from configs import bases
from tsla.sweep.table import Row, Table


def get_table() -> Table:
  """The baseline alone."""
  return Table(
    name='digits-seeds',
    title='Digits, ResNet-8: the baseline, many seeds',
    rows=(Row('baseline', bases.digits()),),
  )
