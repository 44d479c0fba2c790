"""The command line: help, CIFAR-100 without network and from an archive."""

import os
import signal
import subprocess
import sys

import pytest
from support import ROOT, run_worker

import main
from tsla.config import cli
from tsla.config.forms import default_config
from tsla.runs.lifecycle import Interrupted


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


TEST = {
  **{'top1': 0.97222, 'top5': 1.0, 'nll': 0.12344, 'brier': 0.05},
  **{'ece': 0.0123, 'count': 360.0, 'margin': 0.25, 'epoch': 30.0},
}


def end_with(monkeypatch, tmp_path, train):
  monkeypatch.setattr(main, 'train_and_evaluate', train)
  for name in ('keep_compiled', 'split_cores'):
    monkeypatch.setattr(main, name, lambda *_: None)
  command = cli.CommandLine(
    *(default_config(), tmp_path / 'a run', False, False, None, 60)
  )
  monkeypatch.setattr(cli, 'parse', lambda _: command)
  return main.main(['main.py'])


def test_the_last_lines_are_a_summary(monkeypatch, tmp_path, capsys):
  assert end_with(monkeypatch, tmp_path, lambda *_, **__: TEST) == 0
  assert capsys.readouterr().out.splitlines() == [
    'test of 360 images after epoch 30:',
    '  top-1 97.22 %  NLL 0.1234  ECE 1.23 %  margin 0.2500',
    f'directory: {tmp_path}/a run',
    f"next: python -m tsla report '{tmp_path}/a run'",
    f"      python -m tsla evaluate '{tmp_path}/a run'",
  ]
  more = TEST | {'top5': 0.99}
  end_with(monkeypatch, tmp_path, lambda *_, **__: more)
  assert 'top-1 97.22 %  top-5 99.00 %' in capsys.readouterr().out


def test_an_interrupted_run_says_how_to_go_on(monkeypatch, tmp_path, capsys):
  def train(*_, **__):
    raise Interrupted(signal.SIGTERM)

  assert end_with(monkeypatch, tmp_path, train) == 143
  assert capsys.readouterr().err == (
    'SIGTERM: saved and stopped\n  next: the same command goes on from here\n'
  )


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
