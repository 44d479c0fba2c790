"""Digits: TSLA whose s a rule finds, from the measured variance.

Row:      "auto: RULE" of the digits-rules table, default rule floor
Command:  python main.py --config=configs/digits_auto.py[:RULE]
          RULE is delta, mse, floor, plateau or optimal
Hardware: 2 CPU cores
Hours:    1 minute, compilation included
Expected: test top-1 98.89 ± 0.39 %, NLL 0.043 ± 0.010, mean ± std of seeds
          0 to 4, smoothing ended at epochs 15, 16, 14, 16, 13
"""

import ml_collections

from configs import bases


def get_config(rule: str | None = None) -> ml_collections.ConfigDict:
  """The experiment as a config; `rule` is what ends the smoothing."""
  config = bases.probed(bases.digits())
  return bases.auto(config, 0.1, rule or 'floor')
