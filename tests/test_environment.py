"""A run's directory says where the run comes from."""

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest
from support import small_config, write_digits_npz

from tsla.runs import environment
from tsla.training import loop

FIELDS = {
  'python',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'platform',
  'device_kind',
  'device_count',
  'process_count',
  'cpu_count',
  'xla_flags',
  'git_revision',
  'git_dirty',
  'command',
}


def git(folder, *arguments):
  subprocess.run(
    ['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *arguments],
    cwd=folder,
    check=True,
    capture_output=True,
  )


@pytest.fixture
def checkout(tmp_path):
  file = tmp_path / 'tsla/runs/environment.py'
  file.parent.mkdir(parents=True)
  file.write_text('first')
  git(tmp_path, 'init')
  return tmp_path


def test_a_run_directory_has_a_flat_record_of_the_process(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(sys, 'argv', ['main.py', '--workdir=a b'])
  monkeypatch.setenv('XLA_FLAGS', '--xla_force_host_platform_device_count=1')
  config = small_config(write_digits_npz(tmp_path / 'digits.npz'))
  config.epochs = 1
  config.smoothing.drop_epochs = 0.5
  loop.train_and_evaluate(config, tmp_path / 'run')
  record = json.loads((tmp_path / 'run/environment.json').read_text())
  assert set(record) == FIELDS
  assert not [v for v in record.values() if isinstance(v, (dict, list))]
  assert record['orbax-checkpoint'] == metadata.version('orbax-checkpoint')
  assert (record['platform'], record['device_count']) == ('cpu', 1)
  assert record['cpu_count'] == len(os.sched_getaffinity(0))
  assert record['xla_flags'] == '--xla_force_host_platform_device_count=1'
  assert record['command'].endswith("main.py '--workdir=a b'")


def test_the_revision_and_whether_the_code_differs_from_it(checkout):
  git(checkout, 'add', '.')
  git(checkout, 'commit', '-m', 'first')
  head = (checkout / '.git').glob('refs/heads/*')
  expected = next(iter(head)).read_text().strip()
  record = environment.describe(checkout)
  assert (record['git_revision'], record['git_dirty']) == (expected, False)
  (checkout / 'tsla/runs/environment.py').write_text('second')
  record = environment.describe(checkout)
  assert (record['git_revision'], record['git_dirty']) == (expected, True)


@pytest.mark.parametrize('without', ['git', 'checkout', 'ours', 'commit'])
def test_without_git_or_a_checkout_of_it_the_fields_are_empty(
  checkout, without, monkeypatch
):
  match without:
    case 'git':
      monkeypatch.setenv('PATH', str(checkout))
    case 'checkout':
      (checkout / '.git').rename(checkout / 'git')
    case 'commit':
      git(checkout, 'add', '.')
  record = environment.describe(checkout)
  assert (record['git_revision'], record['git_dirty']) == ('', None)
