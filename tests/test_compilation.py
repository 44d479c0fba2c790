"""One compilation serves a sweep."""

import os
import pathlib

import pytest
from support import run_worker


@pytest.mark.parametrize(
  'devices',
  [1, pytest.param(2, marks=pytest.mark.slow)],  # jit, pmap
)
def test_baseline_lsr_tsla_and_every_seed_and_rate_are_one_program(
  tmp_path, monkeypatch, devices
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  result = run_worker('sweep_worker.py', tmp_path, devices=devices)
  assert pathlib.Path(result['cache']) == (
    tmp_path / f'cache/tsla/xla/{len(os.sched_getaffinity(0))}-cores'
  )
  large = {'jit_init', 'jit_chunk', 'jit_evaluate', 'jit__fun'}
  assert len(large & set(result['first'])) >= 2
  assert not large & set(result['later'])
  # They were different runs all the same.
  rows = result['rows']
  assert [round(row['next_theta'], 6) for row in rows] == [0, 0.1, 0.1, 0] * 2
  rates = [round(row['learning_rate'], 6) for row in rows]
  assert rates == [0.1] * 4 + [0.05] * 4
  # LSR and TSLA(2) are the same in epoch one.
  assert len({row['loss'] for row in rows}) == 6
