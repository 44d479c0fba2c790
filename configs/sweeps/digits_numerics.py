"""The digits-numerics table: bfloat16 against float32.

Command:  python -m tsla sweep \
            --table=configs/sweeps/digits_numerics.py \
            --workdir=runs/digits-numerics --seeds=5
Hardware: 2 CPU cores
Hours:    1 minute
"""

from configs import bases, rows
from tsla.sweep.table import Table


def get_table() -> Table:
  """TSLA in either precision."""
  return Table(
    name='digits-numerics',
    title='Digits, ResNet-8: bfloat16 against float32',
    rows=rows.numerics(bases.digits, drop=20),
  )
