"""The digits-variance table: δ, θ* and ‖∇F‖ over the epochs of five methods.

With `--config.data.label_noise=0.2` it is the table of noisy labels.

Command:  python -m tsla sweep \
            --table=configs/sweeps/digits_variance.py \
            --workdir=runs/digits-variance --seeds=5
Hardware: 2 CPU cores
Hours:    5 minutes
"""

from configs import bases, rows
from tsla.sweep.table import Table


def get_table() -> Table:
  """Baseline, LSR weak and strong, TSLA, LSR towards a teacher; all probed."""
  return Table(
    name='digits-variance',
    title='Digits, ResNet-8: the variance of the gradient',
    rows=rows.variance(bases.digits, drop=20),
  )
