"""The table of faults names tests that exist."""

import re

from support import ROOT


def test_each_fault_names_a_test_that_exists():
  text = (ROOT / 'docs/faults.md').read_text()
  rows = [line for line in text.splitlines() if line.startswith('| ')]
  existing = {
    name
    for path in ROOT.glob('tests/test_*.py')
    for name in re.findall(r'^def (test_\w+)', path.read_text(), re.M)
  }
  assert len(rows) > 30
  for row in rows[1:]:  # after the heading
    named = re.findall(r'`(test_\w+)`', row)
    assert named, row
    assert set(named) <= existing, row
