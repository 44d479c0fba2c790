"""Each listed mutant still fits the code, its tests are there."""

import importlib
import tomllib

import pytest
from support import ROOT

HERE = ROOT / 'tests/mutants'


@pytest.fixture
def run(monkeypatch):
  monkeypatch.syspath_prepend(str(HERE))
  return importlib.import_module('run')


def test_each_listed_mutant_stands_where_it_says_and_its_tests_exist(run):
  mutants, complaints = run.read()
  assert not complaints, '\n'.join(complaints)
  assert len(mutants) >= 30


def test_each_change_argued_equivalent_is_of_lines_that_stand():
  argued = tomllib.loads((HERE / 'equivalent.toml').read_text())
  for entry in argued.get('equivalent', ()):
    lines = (ROOT / entry['file']).read_text().splitlines()
    gone = set(entry['old'].splitlines()) - {line.strip() for line in lines}
    assert not gone, f'{entry["file"]}: {gone}'
    assert entry['new'] != entry['old']
    assert entry['why']


def test_an_entry_of_no_use_is_named(run, tmp_path):
  file = "file = 'tsla/errors.py'"
  tests = "tests = ['tests/test_mutants.py::test_{}']"
  some, none = tests.format('an_entry_of_no_use_is_named'), tests.format('x')
  entries = (
    f"{file}\nold = 'class InputError'\nnew = 'klass InputError'\n{some}",
    f"{file}\nold = '= '\nnew = '== '\n{some}",
    f"{file}\nold = 'no such line'\nnew = ''\n{none}",
    "file = 'tsla/none.py'\nold = 'a'\nnew = 'b'",
    "old = 'a'",
  )
  text = ''.join(f"[[mutant]]\nwhy = '?'\n{entry}\n" for entry in entries)
  (tmp_path / 'room.toml').write_text(text)
  _, complaints = run.read(tmp_path)
  said = (
    'room 1: new is no Python',
    'room 2: old stands',
    'room 3: old stands 0 times',
    'room 3: no test tests/test_mutants.py',
    'room 4: no file tsla/none.py',
    'room 5: ',
  )
  assert len(complaints) == len(said), complaints
  for words, complaint in zip(said, complaints, strict=True):
    assert complaint.startswith(words)
