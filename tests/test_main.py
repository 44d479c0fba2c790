"""The command line: help, CIFAR-100 without network and from an archive."""

import os
import subprocess
import sys

import pytest
from support import ROOT, run_worker


def main_process(*argv, **env):
  return subprocess.run(
    [sys.executable, 'main.py', *map(str, argv)],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'} | env,
    capture_output=True,
    text=True,
    timeout=200,
  )


def test_help_exits_0_and_lists_the_fields():
  result = main_process('--help')
  assert result.returncode == 0
  assert '--config.smoothing.drop_epochs: float = -1.0' in result.stdout


def test_cifar100_without_network_says_what_to_do(tmp_path):
  # A proxy that refuses is the nearest to no network that a test can have.
  result = main_process(
    '--config=configs/cifar100_tsla.py',
    f'--config.data.path={tmp_path}',
    f'--workdir={tmp_path / "run"}',
    https_proxy='http://127.0.0.1:9',
    http_proxy='http://127.0.0.1:9',
  )
  assert result.returncode == 2, result.stderr
  lines = result.stderr.strip().splitlines()
  assert len(lines) <= 3, result.stderr
  assert 'python -m tsla prepare cifar100' in result.stderr


@pytest.mark.ci
def test_cifar100_from_an_archive_trains_across_the_switch(
  tmp_path, monkeypatch
):
  """And where the environment says so, no compiled program is kept."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setenv('JAX_ENABLE_COMPILATION_CACHE', 'false')
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  rows = run_worker('cifar_worker.py', tmp_path)
  train = [row for row in rows if row['kind'] == 'train']
  assert [row['step'] for row in train] == [2, 4]
  assert [round(row['theta'], 3) for row in train] == [0.1, 0]
  assert [round(row['learning_rate'], 3) for row in train] == [0.1, 0.02]
  assert [row['step'] for row in rows if row['kind'] == 'switch'] == [2]
  assert [row['count'] for row in rows if row['kind'] == 'eval'] == [20, 20]
  (programs,) = (tmp_path / 'cache/tsla/xla').iterdir()
  assert not list(programs.iterdir())
