"""A run in a process of its own, as a sweep starts it."""

import pytest
from support import run_worker


@pytest.mark.ci
def test_a_run_has_its_own_session_and_ends_with_the_sweep_that_is_killed(
  tmp_path,
):
  """Ctrl-C goes to the sweep alone; what kills the sweep leaves no run."""
  result = run_worker('orphan_worker.py', tmp_path)
  assert result == {'own_session': True, 'ended': True}
