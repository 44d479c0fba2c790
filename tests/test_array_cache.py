"""A computed array is kept whole or not at all."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from support import ROOT, Disk

from tsla.data import array_cache
from tsla.errors import InputError


@pytest.fixture
def home(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  return tmp_path / 'tsla' / 'kind'


class Computer:
  """Another array at every call, so that a call cannot go unnoticed."""

  calls = 0

  def __call__(self):
    self.calls += 1
    return np.arange(12, dtype=np.float16).reshape(4, 3) + self.calls


def test_the_same_facts_give_the_same_array(home):
  compute = Computer()
  first = array_cache.cached_array('kind', {'a': 1, 'b': [0.5]}, compute)
  again = array_cache.cached_array('kind', {'b': (0.5,), 'a': 1}, compute)
  np.testing.assert_array_equal(again, first, strict=True)
  other = array_cache.cached_array('kind', {'a': 2, 'b': [0.5]}, compute)
  assert compute.calls == 2 and (other != first).all()
  again = array_cache.cached_array('kind', {'a': 1, 'b': [0.5]}, compute)
  np.testing.assert_array_equal(again, first, strict=True)
  assert {path.suffix for path in home.iterdir()} == {'.array', ''}


def test_an_array_is_on_the_disk_before_it_has_its_name(home, monkeypatch):
  disk = Disk(monkeypatch)
  array_cache.cached_array('kind', {}, Computer())
  (path,) = home.glob('*.array')
  disk.assert_lasting(path)


def test_a_damaged_file_is_computed_again(home):
  compute = Computer()
  array_cache.cached_array('kind', {}, compute)
  (path,) = home.glob('*.array')
  whole = path.read_bytes()
  rng = np.random.default_rng(0)
  damages = [whole[:cut] for cut in (0, 31, 32, 33, len(whole) - 1)]
  for place in [0, 31, 32, *rng.integers(len(whole), size=20)]:
    changed = bytearray(whole)
    changed[place] ^= 1 << rng.integers(8)
    damages.append(bytes(changed))
  for damaged in damages:
    path.write_bytes(damaged)
    before = compute.calls
    got = array_cache.cached_array('kind', {}, compute)
    assert compute.calls == before + 1
    np.testing.assert_array_equal(
      array_cache.cached_array('kind', {}, compute), got, strict=True
    )
    assert compute.calls == before + 1


@pytest.mark.parametrize('moment', ['compute', 'sync', 'os.replace'])
def test_a_kill_leaves_nothing_that_is_trusted(home, moment):
  code = textwrap.dedent(f"""
    import os, signal
    import numpy as np
    from tsla.data import array_cache
    def kill(*args):
      os.kill(os.getpid(), signal.SIGKILL)
    compute = lambda: np.zeros((4, 3))
    if {moment!r} == 'compute':
      compute = kill
    elif {moment!r} == 'sync':
      os.fsync = kill
    else:
      os.replace = kill
    array_cache.cached_array('kind', {{}}, compute)
  """)
  killed = subprocess.run([sys.executable, '-c', code], cwd=ROOT)
  assert killed.returncode == -signal.SIGKILL
  compute = Computer()
  got = array_cache.cached_array('kind', {}, compute)
  assert compute.calls == 1 and (got > 0).any()
  assert sorted(path.suffix for path in home.iterdir()) == ['', '.array']


def test_a_cache_that_cannot_be_written_is_named(home):
  home.parent.mkdir()
  home.write_text('no folder')
  with pytest.raises(InputError, match='nothing can be stored there') as error:
    array_cache.cached_array('kind', {}, Computer())
  assert len(str(error.value).splitlines()) <= 3 and str(home) in str(
    error.value
  )


def test_those_who_ask_at_once_wait_for_the_first(home, tmp_path):
  code = textwrap.dedent("""
    import os, pathlib, sys, time
    import numpy as np
    from tsla.data import array_cache
    folder = pathlib.Path(sys.argv[1])
    def compute():
      (folder / 'computed').mkdir()  # a second one would fail
      while len(list(folder.glob('asks-*'))) < 3:
        time.sleep(0.01)
      time.sleep(0.1)  # the others come to the lock
      return np.arange(5)
    (folder / f'asks-{os.getpid()}').touch()
    print(array_cache.cached_array('kind', {}, compute).sum())
  """)
  args = [sys.executable, '-c', code, str(tmp_path)]
  processes = [
    subprocess.Popen(
      args, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True
    )
    for _ in range(3)
  ]
  assert [p.communicate()[0] for p in processes] == ['10\n'] * 3
