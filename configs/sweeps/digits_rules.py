"""The digits-rules table: each rule against every fixed s, and the controls.

With `--config.data.label_noise=0.4` it is the table of noisy labels.

Command:  python -m tsla sweep \
            --table=configs/sweeps/digits_rules.py \
            --workdir=runs/digits-rules --seeds=5
Hardware: 2 CPU cores
Hours:    10 minutes
"""

from configs import bases, rows
from tsla.sweep.table import Table


def get_table() -> Table:
  """Baseline, LSR, TSLA at four epochs, five rules, five controls."""
  return Table(
    name='digits-rules',
    title='Digits, ResNet-8: when to drop the smoothing',
    rows=rows.rules(bases.digits, fixed=(5, 10, 20, 25), drop=20),
  )
