"""The digits table: every method of the paper in minutes, on any machine.

Command:  python -m tsla sweep --table=configs/sweeps/digits.py \
            --workdir=runs/digits --seeds=3
Hardware: 2 CPU cores
Hours:    3 minutes on a busy machine
"""

from configs import (
  digits_baseline,
  digits_lsr,
  digits_lsr_pre,
  digits_tsla,
  digits_tsla_pre,
)
from tsla.sweep.table import Row, Table


def get_table() -> Table:
  """Baseline, LSR, TSLA at two drop epochs, and both towards a teacher."""
  return Table(
    name='digits',
    title='Digits, ResNet-8',
    rows=(
      Row('baseline', digits_baseline.get_config()),
      Row('LSR', digits_lsr.get_config()),
      Row('TSLA(10)', digits_tsla.get_config('10')),
      Row('TSLA(20)', digits_tsla.get_config('20')),
      Row('LSR-pre', digits_lsr_pre.get_config(), teacher='baseline'),
      Row('TSLA-pre(20)', digits_tsla_pre.get_config('20'), teacher='baseline'),
    ),
  )
