"""The device count and the mapping never change the result."""

import concurrent.futures
import socket

import numpy as np
import pytest
from support import run_worker, write_digits_npz

from tsla.errors import InputError
from tsla.training import parallel


def test_one_device_is_pmap_on_8_is_jit_on_8_and_a_lost_pmean_would_show(
  tmp_path,
):
  result = run_worker('parallel_worker.py', tmp_path, devices=8)
  for mapping in ('pmap', 'jit'):
    assert max(result['right'][mapping]) < 2e-5, result['right']
  state, losses, _ = result['without_pmean']
  assert state > 1e-2, result
  assert losses > 1e-2, result


@pytest.mark.parametrize(
  ('mode', 'devices'), [('jit', 1), ('jit', 8), ('pmap', 8)]
)
def test_evaluation_counts_each_example_once(mode, devices):
  result = run_worker('evaluation_worker.py', mode, devices=devices)
  assert result['devices'] == devices
  assert len(result['rows']) == 12
  for row in result['rows']:
    logits, labels = np.array(row['logits']), np.array(row['labels'])
    order = np.argsort(-logits, axis=1, kind='stable')
    top5 = (order[:, :5] == labels[:, None]).any(1).mean()
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    nll = -log_p[np.arange(len(labels)), labels].mean()
    got = row['got']
    assert got['count'] == len(labels)
    assert got['top1'] == pytest.approx((order[:, 0] == labels).mean())
    assert got['top5'] == pytest.approx(top5)
    assert got['nll'] == pytest.approx(nll, rel=1e-5)


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
  monkeypatch.setattr('jax.devices', lambda: [object()] * 8)
  with pytest.raises(InputError, match=r'batch_size = 20.*\n.*multiple of 8'):
    parallel.choose('auto', 20)


@pytest.mark.slow
def test_two_processes_train_the_run_of_one(tmp_path):
  npz = write_digits_npz(tmp_path / 'digits.npz')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'

  def process(count, index):
    workdir = tmp_path / f'processes{count}'
    args = address, count, index, npz, workdir
    return run_worker('process_worker.py', *args, devices=4 // count)

  with concurrent.futures.ThreadPoolExecutor() as pool:
    first, second = pool.map(process, (2, 2), (0, 1))
  alone = process(1, 0)
  assert len(alone) == 12
  assert first == second
  np.testing.assert_allclose(first, alone, rtol=1e-4)
