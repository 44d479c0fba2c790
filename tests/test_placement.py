"""Runs of a sweep on the devices of a machine."""

import pytest

from tsla.sweep.worker import environment, find_devices


def test_each_slot_has_a_gpu_of_its_own():
  got = [environment(slot, 4, 'gpu', 4, {}) for slot in range(4)]
  assert got == [{'CUDA_VISIBLE_DEVICES': str(slot)} for slot in range(4)]


def test_more_runs_than_gpus_share_the_memory():
  got = [environment(slot, 4, 'gpu', 2, {}) for slot in range(4)]
  assert [v['CUDA_VISIBLE_DEVICES'] for v in got] == ['0', '1', '0', '1']
  fractions = [float(v['XLA_PYTHON_CLIENT_MEM_FRACTION']) for v in got]
  assert fractions == [0.45] * 4


def test_what_the_user_hides_or_sets_stays():
  mine = {
    'CUDA_VISIBLE_DEVICES': 'GPU-a,GPU-b',
    'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.2',
  }
  got = environment(3, 4, 'gpu', 2, mine)
  assert got == {
    'CUDA_VISIBLE_DEVICES': 'GPU-b',
    'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.2',
  }


def test_each_slot_has_a_tpu_chip_of_its_own():
  got = environment(2, 4, 'tpu', 4, {})
  assert got['TPU_VISIBLE_CHIPS'] == '2'
  assert got['TPU_PROCESS_BOUNDS'] == '1,1,1'


@pytest.mark.parametrize(('jobs', 'platform'), [(1, 'gpu'), (4, 'cpu')])
def test_one_run_takes_every_device_and_cpus_are_shared(jobs, platform):
  assert environment(0, jobs, platform, 4, {}) == {}


def test_devices_are_counted_elsewhere():
  assert find_devices() == ('cpu', 1)
