"""Whatever ends a process, the run ends with the same bits."""

import json
import os

import faults
import pytest

pytestmark = pytest.mark.slow

# More in `make nightly`.
KILLS = int(os.environ.get('TSLA_KILLS', '25'))


def outcome(worker, *args, timeout, **options):
  process = faults.start(worker, *args, **options)
  output, error = process.communicate(timeout=timeout)
  assert process.returncode == 0, error[-3000:]
  return json.loads(output.splitlines()[-1])


def test_kill_9_at_random_moments_ends_with_the_same_bits(tmp_path):
  result = outcome(
    *('kill_worker.py', tmp_path, KILLS, 0, 'label_smoothing'),
    cache=tmp_path / 'cache',
    timeout=60 * KILLS,
  )
  print(json.dumps(result))  # the figure of `make nightly`
  assert result['kills'] == KILLS
  assert result['equal'] == result['runs']
  # They fell before the first save, and after at least two others: which ones
  # the clock decides.
  found = set(result['steps'])
  assert 0 in found and len(found) >= 3, result


def test_resume_from_20_updates_in_a_row_around_the_switch(tmp_path):
  result = outcome(
    'steps_worker.py', tmp_path, cache=tmp_path / 'cache', timeout=900
  )
  assert list(result) == [str(step) for step in range(3, 23)]
  for step, found in result.items():
    assert found == {'differed_before': True, 'equal': True}, step
