"""The digits-methods table: the methods of docs/methods.md.

With `--config.data.label_noise=0.4` it is the table of noisy labels.

Command:  python -m tsla sweep \
            --table=configs/sweeps/digits_methods.py \
            --workdir=runs/digits-methods --seeds=5
Hardware: 2 CPU cores
Hours:    0.9 (52 minutes beside other jobs)
"""

from configs import bases, rows
from tsla.sweep.table import Table


def get_table() -> Table:
  """Baseline, eight methods to the end and in two stages, MaxSup's ramp."""
  return Table(
    name='digits-methods',
    title="Digits, ResNet-8: label smoothing's successors",
    rows=rows.methods(bases.digits, drops=(10, 20)),
  )
