"""The device count and the mapping never change the result."""

import json
import socket

import faults
import numpy as np
import pytest
from support import run_worker

from tsla.errors import InputError
from tsla.training import parallel


@pytest.mark.parametrize(
  'kind',
  [
    'online',
    pytest.param('plain', marks=pytest.mark.slow),
    pytest.param('probed', marks=pytest.mark.slow),
  ],
)
def test_one_device_is_pmap_on_8_is_jit_on_8_and_a_lost_pmean_would_show(
  tmp_path, kind
):
  result = run_worker('parallel_worker.py', tmp_path, kind, devices=8)
  probed = kind == 'probed'
  for mapping in ('pmap', 'jit'):
    differences = result['right'][mapping][: 3 + probed]
    assert max(differences) < 2e-5, result['right']
  state, losses, _, found = result['without_pmean']
  assert state > 1e-2, result
  assert losses > 1e-2, result
  assert not probed or found > 1e-2, result


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


def test_a_signal_to_one_of_two_processes_is_known_to_both(tmp_path):
  with socket.socket() as held:  # a port that nobody else gets meanwhile
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{held.getsockname()[1]}'
    workers = [
      faults.start(
        'highest_worker.py', address, index, *values, cache=tmp_path / 'cache'
      )
      for index, values in enumerate([(0, 15, 0, 15), (0, 0, 15, 2)])
    ]
    results = [worker.communicate(timeout=200) for worker in workers]
  for worker, (output, error) in zip(workers, results, strict=True):
    assert worker.returncode == 0, error[-3000:]
    assert json.loads(output.splitlines()[-1]) == [0, 15, 15, 15]
