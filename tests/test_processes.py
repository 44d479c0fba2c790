"""Two processes of two devices train the run of one of four; one may die."""

import contextlib
import json
import signal
import socket

import faults
import numpy as np
import pytest
from support import write_digits_npz

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
  folder = tmp_path_factory.mktemp('shared')
  write_digits_npz(folder / 'digits.npz')
  with _held:
    yield folder


_held = contextlib.ExitStack()


def free_address():
  """Held until the end, so that nobody else gets it; jax's server shares it."""
  held = _held.enter_context(socket.socket())
  held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
  held.bind(('127.0.0.1', 0))
  return f'127.0.0.1:{held.getsockname()[1]}'


def begin(shared, workdir, count, signals, methods=((), ())):
  """Starts all processes; `signals` has (update, signal) by index."""
  address = free_address()
  return [
    faults.start(
      *('process_worker.py', address, count, index),
      *(shared / 'digits.npz', workdir, *signals.get(index, (-1, 0))),
      *methods[index],
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


OWN = """
import tsla

def soft():
  return tsla.Method(tsla.penalised(lambda z, labels, y_hat, kept: z.max(-1)))
"""


@pytest.mark.parametrize('edited', [False, True])
def test_a_method_of_one_s_own_is_the_same_in_all_processes(
  shared, tmp_path, edited
):
  """As if each had it on a machine of its own."""
  methods = []
  for index in range(2):
    path = tmp_path / str(index) / 'mine.py'
    path.parent.mkdir()
    path.write_text(OWN + '# edited\n' * (edited and index))
    methods.append([f'{path}:soft'])
  workers = begin(shared, tmp_path / 'run', 2, {}, methods)
  for code, output, error in end(workers):
    assert code == 2 * edited, error[-3000:]
    if edited:
      said = [x for x in output.splitlines() if '[Gloo]' not in x]
      assert 'mine.py:soft: not the same in all processes' in said[0]
      assert len(said) == 3 and said[1].startswith('  allowed: ')
  assert (tmp_path / 'run').exists() != edited
