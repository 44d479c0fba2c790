"""One compilation serves a sweep."""

import json
import os
import pathlib
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from support import ROOT, run_worker

from tsla.runs import environment
from tsla.runs.environment import compiling_alone, keep_compiled


def test_the_tests_see_nothing_of_the_environment_of_who_runs_them():
  """Else this file failed where a user has named a folder of programs."""
  theirs = {
    'JAX_COMPILATION_CACHE_DIR': '/nowhere',
    'JAX_ENABLE_COMPILATION_CACHE': 'true',
    'JAX_ENABLE_X64': 'true',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': 'false',  # as the Makefile does
    'XLA_FLAGS': '--xla_force_host_platform_device_count=3',
    'TSLA_KILLS': '7',  # so, too
    'TSLA_OTHER': '1',
    'TFDS_DATA_DIR': '/nowhere',
    'SLURM_JOB_ID': '1',
    'https_proxy': 'http://127.0.0.1:9',
  }
  code = 'import conftest, json, os; print(json.dumps(dict(os.environ)))'
  result = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT / 'tests',
    env=os.environ | theirs,
    capture_output=True,
    text=True,
    check=True,
  )
  seen = json.loads(result.stdout)
  assert {name: seen[name] for name in theirs if name in seen} == {
    'JAX_ENABLE_COMPILATION_CACHE': 'false',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': 'false',
    'TSLA_KILLS': '7',
  }


@pytest.fixture
def cache_dir():
  before = jax.config.jax_compilation_cache_dir
  seconds = jax.config.jax_persistent_cache_min_compile_time_secs
  jax.config.update('jax_compilation_cache_dir', None)
  enabled = jax.config.jax_enable_compilation_cache
  yield lambda: jax.config.jax_compilation_cache_dir
  jax.config.update('jax_enable_compilation_cache', enabled)
  jax.config.update('jax_compilation_cache_dir', before)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', seconds)


def test_the_user_s_own_folder_is_left(cache_dir, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  jax.config.update('jax_compilation_cache_dir', 'own')
  keep_compiled()
  assert cache_dir() == 'own'
  jax.config.update('jax_compilation_cache_dir', None)
  keep_compiled()
  assert cache_dir().startswith(str(tmp_path / 'tsla' / 'xla'))


def test_a_program_is_compiled_by_one_process_while_the_others_wait(
  cache_dir, tmp_path, monkeypatch
):
  jax.config.update('jax_compilation_cache_dir', str(tmp_path))
  jax.config.update('jax_enable_compilation_cache', True)
  order = []

  def other():
    with compiling_alone('update'):  # of a file that is opened once more
      order.append('second')

  thread = threading.Thread(target=other)
  with compiling_alone('update'), compiling_alone('probe'):
    thread.start()
    thread.join(0.5)
    order.append('first')
  thread.join()
  assert order == ['first', 'second']
  monkeypatch.setattr(environment, '_MOST_SECONDS', 0.2)
  with compiling_alone('update'), compiling_alone('update'):
    pass  # whoever has it may be stopped: another one does not wait for ever
  jax.config.update('jax_compilation_cache_dir', str(tmp_path / 'nowhere'))
  with compiling_alone('update'):  # as it may
    pass


def test_without_a_folder_every_run_compiles(cache_dir, tmp_path, monkeypatch):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  keep_compiled()
  assert cache_dir() is None


@pytest.mark.parametrize(
  'devices',
  [  # jit, pmap
    pytest.param(1, marks=pytest.mark.ci),
    pytest.param(2, marks=pytest.mark.slow),
  ],
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
  assert len(result['first']) <= 20  # no program for every shape of an array
  # They were different runs all the same.
  rows = result['rows']
  assert [round(row['theta'], 6) for row in rows] == [0, 0.1, 0.1, 0.075] * 2
  rates = [round(row['learning_rate'], 6) for row in rows]
  assert rates == [0.1] * 4 + [0.05] * 4
  # LSR and TSLA(2) are the same in epoch one.
  assert len({row['loss'] for row in rows}) == 6


@pytest.mark.slow
def test_every_rule_and_lsr_that_is_probed_are_one_program(
  tmp_path, monkeypatch
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  result = run_worker('sweep_worker.py', tmp_path, 'probed')
  large = {'jit_init', 'jit_chunk', 'jit_evaluate', 'jit_probe', 'jit__fun'}
  assert 'jit_probe' in result['first']
  assert not large & set(result['later'])
  thetas = [row['theta'] for row in result['rows']]
  np.testing.assert_allclose(thetas[:2], 0.1, rtol=1e-6)
  assert thetas[2] > 0.2  # what was best at the start
