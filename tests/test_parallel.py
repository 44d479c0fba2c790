"""The device count and the mapping never change the result."""

import contextlib
import json
import socket

import faults
import jax
import numpy as np
import pytest
from support import run_worker

from tsla.errors import InputError
from tsla.training import parallel


@pytest.mark.parametrize(
  'kind',
  [
    pytest.param('online', marks=pytest.mark.ci),
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


@pytest.mark.ci
@pytest.mark.parametrize(
  ('mode', 'devices'),
  [
    ('jit', 1),
    ('jit', 8),
    ('pmap', 8),
  ],
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


@pytest.fixture
def others(monkeypatch):
  """Makes this process 0 of as many as are put here, with their facts."""
  facts = []

  def gather(text):
    return [text, *map(json.dumps, facts)]

  monkeypatch.setattr('jax.process_count', lambda: 2)
  monkeypatch.setattr(parallel, '_gather', gather)
  return facts


def test_facts_are_compared_by_name_with_every_process(others):
  others += [{'seed': '1', 'same': "'x'"}, {'seed': '2', 'same': "'x'"}]
  with pytest.raises(InputError) as error:
    parallel.check_same({'same': 'x', 'seed': 1})
  assert error.value.problem == (
    'not the same in all processes: seed: 1 in process 0, 2 in process 2'
  )
  others[1] = {'seed': '1', 'same': "'x'", 'more': '3'}
  with pytest.raises(InputError, match='more: nothing in process 0, 3 in pro'):
    parallel.check_same({'same': 'x', 'seed': 1})
  others[1] = others[0]
  parallel.check_same({'same': 'x', 'seed': 1})


def test_what_stops_one_process_stops_all(others):
  others.append({'seed': '1'})
  with parallel.agreement() as facts:
    facts['seed'] = 1
  with (
    pytest.raises(InputError, match="stopped by: 'no data' in process 0, not"),
    parallel.agreement() as facts,
  ):
    facts['seed'] = 1
    raise InputError('no data')
  others[0]['stopped by'] = "'no data'"  # the same in all is said as it is
  with pytest.raises(InputError, match=r'^no data'), parallel.agreement() as f:
    f['seed'] = 1
    raise InputError('no data')


def test_a_folder_is_claimed_where_the_mark_of_process_0_is_seen(
  others, tmp_path, monkeypatch
):
  claims = []

  @contextlib.contextmanager
  def claim():
    claims.append('held')
    try:
      yield
    finally:
      claims.append('free')

  monkeypatch.setattr(parallel, '_SHARED_SECONDS', 0.2)
  monkeypatch.setattr(parallel, '_gather', lambda text: [text, text])
  with parallel.claimed(tmp_path, claim()):
    assert claims == ['held']
  assert claims == ['held', 'free']
  monkeypatch.setattr('jax.process_index', lambda: 1)
  (tmp_path / '.processes').write_text('of another start')
  answers = iter(['{}', 'mark', '{"workdir": "True"}'])
  monkeypatch.setattr(parallel, '_gather', lambda t: [next(answers), t])
  with (
    pytest.raises(InputError, match=r'workdir: True in .*not there'),
    parallel.claimed(tmp_path, claim()),
  ):
    pass
  assert claims[2:] == ['held', 'free']


def test_a_taken_port_is_refused_before_jax_crashes():
  with socket.create_server(('127.0.0.1', 0)) as taken:
    address = f'127.0.0.1:{taken.getsockname()[1]}'
    with pytest.raises(InputError, match=f'--coordinator={address}: .*in use'):
      parallel.join(address, 2, 0, seconds=60)


@pytest.mark.ci
def test_a_signal_to_one_of_two_processes_is_known_to_both(tmp_path):
  with socket.socket() as held:  # a port that nobody else gets meanwhile
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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


@pytest.mark.parametrize(
  ('name', 'value', 'cure'),
  [
    ('jax_enable_x64', True, 'JAX_ENABLE_X64=0, or leave it out'),
    ('jax_threefry_partitionable', False, 'JAX_THREEFRY_PARTITIONABLE=1, or'),
    ('jax_random_seed_offset', 5, 'JAX_RANDOM_SEED_OFFSET=0, or'),
  ],
)
def test_a_jax_that_gives_other_numbers_is_refused(name, value, cure):
  """Labels' noise, orders and crops would be those of another run."""
  before = getattr(jax.config, name)
  parallel.check_platform()
  jax.config.update(name, value)
  try:
    with pytest.raises(InputError) as error:
      parallel.check_platform()
  finally:
    jax.config.update(name, before)
  assert error.value.problem == f'{name.upper()} = {value}'
  assert error.value.cure.startswith(cure)
