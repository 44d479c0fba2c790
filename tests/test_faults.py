"""Whatever ends a process, the run ends with the same bits."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import faults
import pytest
from support import ROOT, mounted

pytestmark = pytest.mark.slow

# More in `make nightly`.
KILLS = int(os.environ.get('TSLA_KILLS', '63'))
KINDS = (
  *('plain', 'probed', 'plateau', 'optimal', 'forked', 'teacher', 'online'),
  'mapped',
)


def outcome(worker, *args, timeout, **options):
  process = faults.start(worker, *args, **options)
  output, error = process.communicate(timeout=timeout)
  assert process.returncode == 0, error[-3000:]
  return json.loads(output.splitlines()[-1])


@pytest.fixture(scope='module')
def killer(tmp_path_factory):
  """The library that kills by system call; None without a compiler for C."""
  if not shutil.which('gcc'):
    return None
  library = tmp_path_factory.mktemp('killer') / 'killer.so'
  source = faults.ROOT / 'tests/killer.c'
  command = ['gcc', '-shared', '-fPIC', '-O1', '-o', library, source, '-ldl']
  subprocess.run(command, check=True)
  return library


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp('cache')


@pytest.mark.parametrize('kind', KINDS)
def test_kill_9_at_random_moments_ends_with_the_same_bits(
  tmp_path, killer, cache, kind
):
  kills = -(-KILLS // len(KINDS))
  result = outcome(
    *('kill_worker.py', kind, tmp_path / 'runs', kills),
    cache=cache,
    timeout=300 + 60 * kills,
    preload=killer,
  )
  print(kind, json.dumps(result))  # the figure of `make nightly`
  assert not result['unequal'], result
  assert len(result['kills']) == kills
  if killer:
    # Before the first save and after one, and the killer has found its calls.
    assert result['kills'][0] == 0 < max(result['kills']), result
    assert result['by_call'] > 1, result


@pytest.mark.parametrize('room', [0, 60_000])
def test_a_disk_that_fills_up_is_three_lines(tmp_path, room):
  """On a small disk of its own: the log fails, or the checkpoint alone."""
  with mounted(tmp_path / 'disk', 'size=2m') as disk:
    if not disk.done:
      pytest.skip('no right to mount')
    process = subprocess.Popen(
      [
        *(sys.executable, 'main.py', '--config=configs/digits_lsr.py'),
        *(f'--workdir={disk.path / "run"}', '--config.epochs=400'),
        *('--config.model.width=4', '--config.batch_size=256'),
        '--config.eval_every_epochs=400',
      ],
      cwd=ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
      stderr=subprocess.PIPE,
      text=True,
    )
    while not list(disk.path.glob('run/checkpoints/[0-9]*')):
      assert process.poll() is None
      time.sleep(0.01)
    with contextlib.suppress(OSError), (disk.path / 'rest').open('wb') as file:
      while True:
        file.write(bytes(4096))
        file.flush()
    os.truncate(disk.path / 'rest', (disk.path / 'rest').stat().st_size - room)
    _, error = process.communicate(timeout=200)
  assert process.returncode == 2, error[-3000:]
  *others, problem, allowed, cure = error.splitlines()
  assert 'No space left on device' in problem
  assert (allowed[:11], cure[:8]) == ('  allowed: ', '  next: ')
  known = {'data', 'smoothing', 'network', 'optimiser', 'epochs', 'devices'}
  known |= {'feed', 'directory', 'compiling', 'epoch'}
  assert {line.split()[0] for line in others} <= known, error


def test_resume_from_20_updates_in_a_row_around_the_switch(tmp_path):
  result = outcome(
    'steps_worker.py', tmp_path, cache=tmp_path / 'cache', timeout=900
  )
  assert list(result) == [str(step) for step in range(3, 23)]
  for step, found in result.items():
    assert found == {'differed_before': True, 'equal': True}, step


@pytest.mark.skipif(
  os.geteuid() != 0 or not shutil.which('mkfs.ext4'),
  reason='a file system is made and mounted',
)
def test_a_power_cut_loses_no_row_and_no_state_that_was_saved(tmp_path, cache):
  result = outcome('power_worker.py', tmp_path, cache=cache, timeout=600)
  if result is None:
    pytest.skip('nothing can be mounted here')
  assert result == [[True, True]] * 5
