"""The command line: what a user sees, and the exit code."""

import json
import os
import subprocess
import sys
import time

import pytest
from support import ROOT, run_worker, write_digits_npz

DIGITS = '--config=configs/digits_tsla.py'

BAD = {
  'missing config': ([], '--config is missing'),
  'no such file': (['--config=configs/digit_tsla.py'], 'digits_tsla.py'),
  'unknown field': (
    [DIGITS, '--config.smoothing.tetha=0.1'],
    'smoothing.theta',
  ),
  'unknown section': ([DIGITS, '--config.learning_rate=-5'], 'optimizer.learn'),
  'a section': ([DIGITS, '--config.smoothing=0.1'], 'smoothing.theta'),
  'wrong type': ([DIGITS, '--config.epochs=many'], 'whole number >= 1'),
  'out of range': ([DIGITS, '--config.smoothing.theta=1.2'], '1.2'),
  'negative rate': ([DIGITS, '--config.optimizer.learning_rate=-5'], '-5'),
  'drop after the end': ([DIGITS + ':40'], 'before epoch 30'),
  'drop not a number': ([DIGITS + ':soon'], "'soon': the s of TSLA(s)"),
  'dashes forgotten': ([DIGITS, 'config.epochs=1'], '--config.epochs=1'),
  'theta without schedule': (
    ['--config=configs/digits_baseline.py', '--config.smoothing.theta=0.1'],
    'smoothing.schedule',
  ),
  'address as path': ([DIGITS, '--config.data.path=gs://b/d'], 'mounted'),
  'not in a cluster': ([DIGITS, '--distributed'], '--distributed'),
  'two units': ([DIGITS, '--config.smoothing.drop_steps=8'], 'exactly one'),
  'unknown flag': ([DIGITS, '--wrokdir=x'], 'wrokdir'),
  'unknown network': ([DIGITS, '--config.model.name=resnet9'], 'resnet8'),
  'no data set': (
    [DIGITS, '--config.data.name=npz', '--config.data.path=nowhere.npz'],
    'nowhere.npz',
  ),
  'teacher of two places': (
    [
      DIGITS,
      '--config.smoothing.target=teacher',
      '--config.teacher.run=a',
      '--config.teacher.weights=b.pth',
    ],
    'exactly one with target teacher',
  ),
  'no such teacher': (
    [
      DIGITS,
      '--config.smoothing.target=teacher',
      '--config.teacher.weights=nowhere.pth',
    ],
    'nowhere.pth',
  ),
  'teacher not trained': (
    ['--config=configs/digits_tsla_pre.py', '--config.teacher.run=nowhere'],
    "config.teacher.run = 'nowhere'",
  ),
  'batch too large': ([DIGITS, '--config.batch_size=5000'], '1 to '),
}


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
  """One process runs all command lines of the catalogue."""
  folder = tmp_path_factory.mktemp('bad')
  npz = write_digits_npz(folder / 'digits.npz')
  common = ['--config.data.name=npz', f'--config.data.path={npz}']
  lines = {
    name: [arg for arg in argv if arg.startswith('--config=')]
    + (common if DIGITS in argv else [])
    + [arg for arg in argv if not arg.startswith('--config=')]
    + [f'--workdir={folder / "run"}']
    for name, (argv, _) in BAD.items()
  }
  (folder / 'lines.json').write_text(json.dumps(lines))
  return run_worker('main_worker.py', folder / 'lines.json')


@pytest.mark.parametrize('name', BAD)
def test_bad_input_is_three_lines_and_exit_code_2(outcomes, name):
  code, error, seconds = outcomes[name]
  assert code == 2, error
  assert 1 <= len(error.strip().splitlines()) <= 3, error
  assert BAD[name][1] in error
  assert 'Traceback' not in error
  assert seconds < 5


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
  start = time.monotonic()
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
  assert 'python -m tsla.data.prepare cifar100' in result.stderr
  assert time.monotonic() - start < 15


def test_cifar100_from_an_archive_trains_across_the_switch(tmp_path):
  rows = run_worker('cifar_worker.py', tmp_path)
  train = [row for row in rows if row['kind'] == 'train']
  assert [row['step'] for row in train] == [2, 4]
  assert [round(row['theta'], 3) for row in train] == [0.1, 0]
  assert [round(row['learning_rate'], 3) for row in train] == [0.1, 0.02]
  assert [row['step'] for row in rows if row['kind'] == 'switch'] == [2]
  assert [row['count'] for row in rows if row['kind'] == 'eval'] == [20, 20]
