"""Digits: TSLA(s) towards the baseline network's predictions.

Row:      "TSLA-pre(s)", default s = 20 of the digits table
Command:  python main.py --config=configs/digits_baseline.py
          python main.py --config=configs/digits_tsla_pre.py[:s]
Hardware: 2 CPU cores
Hours:    20 seconds, compilation included
Expected: test top-1 98.80 ± 0.42 %, mean ± std of seeds 0, 1, 2
"""

import ml_collections

from configs import bases


def get_config(drop_epoch: str | None = None) -> ml_collections.ConfigDict:
  """The experiment as a config; `drop_epoch` is the s of TSLA(s)."""
  config = bases.tsla(bases.digits(), 0.1, drop_epoch, default=20)
  return bases.taught_by(config, 'digits_baseline', bases.digits())
