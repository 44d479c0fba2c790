"""TSLA on the digits, as shipped and on the whole of their training set."""

import importlib
import statistics

import pytest
from support import changed

from tsla.training import loop


# As shipped, five seeds gave 98.7 ± 0.4 % as the tests compile and 98.9 ± 0.3 %
# as users do. Another CPU draws anew, as it were; a mean of three then errs by
# 0.24 points, and the bound is three times that below.
@pytest.mark.slow
@pytest.mark.parametrize(
  ('fields', 'least'),
  [({}, 0.98), ({'data__validation': 0.0}, 0.988)],
  ids=['shipped', 'whole'],
)
def test_tsla_reaches_its_accuracy_over_three_seeds(tmp_path, fields, least):
  top1 = []
  for seed in range(3):
    config = importlib.import_module('configs.digits_tsla').get_config()
    path = str(tmp_path / 'data')
    config = changed(config, seed=seed, data__path=path, **fields)
    top1.append(loop.train_and_evaluate(config, tmp_path / str(seed))['top1'])
  assert statistics.mean(top1) >= least
