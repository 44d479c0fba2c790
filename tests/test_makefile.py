"""`make demo`, but for the installation, which needs a network."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from support import ROOT

from tsla.commands import sweep

pytestmark = pytest.mark.skipif(not shutil.which('make'), reason='no make')


@pytest.fixture
def make_demo(tmp_path, monkeypatch):
  """Runs it in a folder of its own, as if all were installed there.

  Its Python notes what it is asked, and goes on with `then`, in shell. What
  comes back is what make says, and what Python was asked.
  """
  monkeypatch.chdir(tmp_path)

  def make(then):
    for name in ('configs', 'requirements.txt', 'requirements-dev.txt'):
      (tmp_path / name).symlink_to(ROOT / name)
    python = tmp_path / '.venv/bin/python'
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> asked\n{then}\n')
    python.chmod(0o755)
    (tmp_path / '.venv/.ready').touch()
    # What a `make test` around this one hands down is left out.
    env = {key: value for key, value in os.environ.items() if 'MAKE' not in key}
    env |= {'PYTHONPATH': str(ROOT), 'JAX_ENABLE_COMPILATION_CACHE': 'true'}
    result = subprocess.run(
      ['make', f'--file={ROOT / "Makefile"}', 'VENV=.venv', 'demo'],
      env=env,
      capture_output=True,
      text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout, (tmp_path / 'asked').read_text().splitlines()

  return make


def test_make_demo_trains_three_seeds_of_six_rows(make_demo, capsys):
  said, asked = make_demo('exit 0')
  assert asked[:3] == ['-m', 'tsla', 'sweep']
  assert sweep.main([*asked[3:], '--dry_run']) == 0
  title, _, *rows = capsys.readouterr().out.splitlines()
  assert title == 'Digits, ResNet-8: 6 rows × 3 seeds = 18 runs'
  assert [row.split()[:2] for row in rows[:6]] == [
    [name, '30']
    for name in (
      *('baseline', 'LSR', 'TSLA(10)', 'TSLA(20)'),
      *('LSR-pre', 'TSLA-pre(20)'),
    )
  ]
  (workdir,) = (word[10:] for word in asked if word.startswith('--workdir='))
  assert f'Open {workdir}/report.html' in said


@pytest.mark.slow
def test_make_demo_writes_the_report_that_it_says(make_demo, tmp_path):
  """In a tenth of its epochs."""
  said, _ = make_demo(f'exec {sys.executable} "$@" --epochs=3')
  (page,) = re.findall(r'^Open (\S+)\. ', said, re.MULTILINE)
  assert '18 of 18 runs are done' in (tmp_path / page).read_text()
