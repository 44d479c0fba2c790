"""Two processes of two devices train the run of one of four; one may die."""

import contextlib
import json
import shutil
import signal
import socket
import time

import faults
import numpy as np
import pytest
from support import small_config, write_digits_npz

from tsla.training import loop

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
  folder = tmp_path_factory.mktemp('shared')
  write_digits_npz(folder / 'digits.npz')
  with _held:
    yield folder


_held = contextlib.ExitStack()


def free_address():
  """Held until the end, so that nobody else gets it; jax's server may."""
  held = _held.enter_context(socket.socket())
  held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  held.bind(('127.0.0.1', 0))
  return f'127.0.0.1:{held.getsockname()[1]}'


def begin(shared, workdir, count, signals):
  """Starts all processes; `signals` has (update, signal) by index."""
  address = free_address()
  return [
    faults.start(
      *('process_worker.py', address, count, index),
      *(shared / 'digits.npz', workdir, *signals.get(index, (-1, 0))),
      cache=shared / f'cache{count}',
      devices=4 // count,
    )
    for index in range(count)
  ]


def end(workers, timeout=300):
  result = [worker.communicate(timeout=timeout) for worker in workers]
  return [
    (worker.returncode, output, error)
    for worker, (output, error) in zip(workers, result, strict=True)
  ]


def train(shared, workdir, count):
  result = []
  for code, output, error in end(begin(shared, workdir, count, {})):
    assert code == 0, error[-3000:]
    result.append(json.loads(output.splitlines()[-1]))
  return result


@pytest.fixture(scope='module')
def together(shared):
  return train(shared, shared / 'together', 2)


def test_each_process_reads_a_set_that_is_on_the_disk_for_its_own_devices(
  shared, tmp_path, together, monkeypatch
):
  """To rounding: here the batch is split by hand, there by the compiler."""
  monkeypatch.setenv('TSLA_DEVICE_MEMORY', '1')
  first, second = train(shared, tmp_path / 'mapped', 2)
  assert first == second
  np.testing.assert_allclose(losses(first), losses(together[0]), rtol=1e-3)
  data = json.loads((tmp_path / 'mapped/data.json').read_text())
  assert data['feed'].startswith('mapped, ')


def losses(result):
  return [row['loss'] for row in result['rows'] if row['kind'] == 'train']


def test_both_hold_the_same_bits_and_the_losses_of_one_process(
  shared, together
):
  first, second = together
  assert first == second
  assert first['end'] == faults.arrays(shared / 'together', 32)
  (alone,) = train(shared, shared / 'alone', 1)
  assert len(losses(alone)) == 32
  np.testing.assert_allclose(losses(first), losses(alone), rtol=1e-3)


@pytest.mark.parametrize('index', [0, 1])
@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_either_saves_one_step_and_resumes_to_the_same_bits(
  shared, tmp_path, together, index, signum
):
  workers = begin(shared, tmp_path / 'run', 2, {index: (10, int(signum))})
  for code, _, error in end(workers):
    assert code == 128 + signum, error[-3000:]
  status = faults.status(tmp_path / 'run')
  assert status['state'] == 'interrupted'
  assert status['step'] == 10
  assert faults.arrays(tmp_path / 'run', 10)
  assert train(shared, tmp_path / 'run', 2) == together


@pytest.mark.parametrize('index', [0, 1])
def test_when_one_is_killed_the_other_ends_and_the_run_resumes(
  shared, tmp_path, together, index
):
  kill = {index: (10, int(signal.SIGKILL))}
  workers = begin(shared, tmp_path / 'run', 2, kill)
  workers[index].communicate(timeout=300)
  assert workers[index].returncode == -signal.SIGKILL
  other = workers[1 - index]
  other.communicate(timeout=300)  # alone it would wait for ever
  assert other.returncode != 0
  assert train(shared, tmp_path / 'run', 2) == together


@pytest.mark.parametrize('index', [0, 1])
def test_what_one_cannot_go_on_with_ends_all_and_the_run_resumes(
  shared, tmp_path, together, index
):
  """As where the disk of one machine fails; they would wait for ever."""
  workers = begin(shared, tmp_path / 'run', 2, {index: (10, -1)})
  _, error = workers[index].communicate(timeout=90)
  assert workers[index].returncode == 2, error[-3000:]
  assert error.splitlines()[-2:] == ['images: bad disk', '  next: start again']
  other = workers[1 - index]
  other.communicate(timeout=150)
  assert other.returncode != 0
  assert train(shared, tmp_path / 'run', 2) == together


CONFIG = """
from support import small_config

def get_config():
  config = small_config({npz!r})
  config.data.label_noise = 0.25
  return config
"""


def command(shared, address, index, workdir, *flags, version='new'):
  """main.py as process `index` of two, on a small config."""
  file = shared / 'config.py'
  file.write_text(CONFIG.format(npz=str(shared / 'digits.npz')))
  return faults.start(
    *('agree_worker.py', version, f'--config={file}', f'--workdir={workdir}'),
    *(f'--coordinator={address}', '--num_processes=2'),
    *(f'--process_index={index}', *flags),
    cache=shared / 'cache_agree',
  )


def field(name, first, second):
  return [f'--config.{name}={value}' for value in (first, second)]


# What an error says of it -> the flag of each process.
DIFFERENT = {
  'config.optimizer.learning_rate': field('optimizer.learning_rate', 0.1, 0.2),
  'config.seed': field('seed', 0, 1),
  'data set': field('data.path', 'digits.npz', 'others.npz'),
  'teacher': field('teacher.run', 'teacher0', 'teacher1'),
  'config.epochs': field('epochs', 4, 5),
  'config.smoothing.method': field('smoothing.method', 'one', 'two'),
  'workdir': ['--workdir=here', '--workdir=there'],
  'versions': ['', ''],
  # It stops process 1 alone, and must not leave the other one waiting.
  'stopped by': field('data.path', 'digits.npz', 'missing.npz'),
}


OWN = """
import tsla

def soft():
  return tsla.Method(tsla.penalised(lambda z, labels, y_hat, kept: z.max(-1)))
"""


@pytest.fixture(scope='module')
def teachers(shared):
  for seed in range(2):
    config = small_config(shared / 'digits.npz')
    config.epochs, config.seed, config.smoothing.drop_epochs = 1, seed, 0.5
    loop.train_and_evaluate(config, shared / f'teacher{seed}')


@pytest.mark.parametrize('what', DIFFERENT)
def test_all_processes_refuse_what_is_not_the_same_in_all(
  shared, tmp_path, teachers, what
):
  write_digits_npz(shared / 'others.npz', train=60)
  address, workers = free_address(), []
  start = time.monotonic()
  for index, flag in enumerate(DIFFERENT[what]):
    flags = [flag.replace('path=', f'path={shared}/')]
    if what == 'workdir':
      flags = []
    if what == 'config.smoothing.method':
      path = tmp_path / f'{index}/mine.py'
      path.parent.mkdir()
      path.write_text(f'{OWN}# {index}\n')
      flags = [f'--config.smoothing.method={path}:soft']
    if what == 'teacher':
      flags = [flag.replace('run=', f'run={shared}/')]
      flags.append('--config.smoothing.target=teacher')
    different = what == 'workdir' and index
    workdir = tmp_path / ('there' if different else 'here')
    version = 'old' if what == 'versions' and index else 'new'
    workers.append(
      command(
        shared, address, index, workdir, *filter(None, flags), version=version
      )
    )
  for code, _, error in end(workers):
    assert code == 2, error[-3000:]
    lines = error.splitlines()[-3:]
    assert lines[0].startswith('not the same in all processes: ')
    assert f'{what}: ' in lines[0]
    assert 'in process 0, ' in lines[0] and ' in process 1' in lines[0]
  assert time.monotonic() - start < 60
  assert not (tmp_path / 'here/metrics.jsonl').exists()


def test_the_same_in_all_processes_trains_from_data_in_two_places(
  shared, tmp_path
):
  copy = shutil.copy(shared / 'digits.npz', tmp_path / 'elsewhere.npz')
  address = free_address()
  workers = [
    command(shared, address, index, tmp_path / 'run', *flags)
    for index, flags in enumerate([[], [f'--config.data.path={copy}']])
  ]
  for code, _, error in end(workers):
    assert code == 0, error[-3000:]
  assert faults.status(tmp_path / 'run')['state'] == 'done'
  assert not (tmp_path / 'run/.processes').exists()


@pytest.mark.parametrize('index', [0, 1])
def test_a_process_that_waits_for_the_others_in_vain_says_so(
  shared, tmp_path, index
):
  worker = command(
    *(shared, free_address(), index, tmp_path / 'run', '--join_seconds=5')
  )
  ((code, _, error),) = end([worker], timeout=60)
  assert code == 2, error[-3000:]
  lines = error.splitlines()
  assert len(lines) == 3, lines
  assert lines[0].startswith('--join_seconds=5: not all processes')


def test_a_port_that_is_taken_is_three_lines(shared, tmp_path):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    address = f'127.0.0.1:{taken.getsockname()[1]}'
    worker = command(shared, address, 0, tmp_path / 'run')
    ((code, _, error),) = end([worker], timeout=60)
  assert code == 2, error[-3000:]
  lines = error.splitlines()
  assert len(lines) == 3, lines
  assert lines[0].startswith(f'--coordinator={address}: ')
  assert 'in use' in lines[0]
