"""TSLA on the whole of the digits' training set."""

import importlib
import statistics

import pytest

from tsla.training import loop


@pytest.mark.slow
def test_tsla_reaches_98_8_percent_over_three_seeds(tmp_path):
  top1 = []
  for seed in range(3):
    config = importlib.import_module('configs.digits_tsla').get_config()
    config.seed, config.data.validation = seed, 0.0
    config.data.path = str(tmp_path / 'data')
    top1.append(loop.train_and_evaluate(config, tmp_path / str(seed))['top1'])
  assert statistics.mean(top1) >= 0.988
