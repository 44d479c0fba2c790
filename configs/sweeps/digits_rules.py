"""The digits-rules table: each rule against every fixed s, and the controls.

All rows are probed each epoch and leave out the same tenth of the training set.
With `--config.data.label_noise=0.4` it is the table of noisy labels.

Command:  python -m tsla.experiments.sweep \
            --table=configs/sweeps/digits_rules.py \
            --workdir=runs/digits-rules --seeds=5
Hardware: 2 CPU cores
Hours:    not yet run
"""

import ml_collections

from configs import bases
from tsla.experiments.table import Row, Table
from tsla.smoothing.rules import NAMES

_THETA, _DROP = 0.1, 20.0


def get_table() -> Table:
  """Baseline, LSR, TSLA at four epochs, five rules, five controls."""
  fixed = ('5', '10', '20', '25')
  controls = ('linear', 'cosine', 'rising', 'reversed')
  return Table(
    name='digits-rules',
    title='Digits, ResNet-8: when to drop the smoothing',
    rows=(
      Row('baseline', _base()),
      Row('LSR', bases.lsr(_base(), _THETA)),
      *(
        Row(f'TSLA({drop})', bases.tsla(_base(), _THETA, drop, _DROP))
        for drop in fixed
      ),
      *(
        Row(f'auto: {rule}', bases.auto(_base(), _THETA, rule))
        for rule in NAMES
      ),
      *(
        Row(
          f'{schedule} of area {_THETA * _DROP:g}',
          bases.control(_base(), schedule, _THETA, _DROP),
        )
        for schedule in controls
      ),
      Row(f'TSLA({_DROP:g}), momentum reset', _reset()),
    ),
  )


def _base() -> ml_collections.ConfigDict:
  return bases.probed(bases.digits())


def _reset() -> ml_collections.ConfigDict:
  config = bases.tsla(_base(), _THETA, None, _DROP)
  config.smoothing.reset_momentum = True
  return config
