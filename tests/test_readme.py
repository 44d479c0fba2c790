"""The README's table of faults names tests that exist."""

import re

from support import ROOT


def test_each_fault_in_the_readme_names_a_test_that_exists():
  text = (ROOT / 'README.md').read_text()
  section = text.partition('## What can go wrong\n')[2].partition('\n## ')[0]
  rows = [line for line in section.splitlines() if line.startswith('| ')]
  existing = {
    name
    for path in ROOT.glob('tests/test_*.py')
    for name in re.findall(r'^def (test_\w+)', path.read_text(), re.M)
  }
  assert len(rows) > 12
  for row in rows[1:]:  # after the heading
    named = re.findall(r'`(test_\w+)`', row)
    assert named, row
    assert set(named) <= existing, row
