"""The house's rule: imports point one way."""

import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
# A floor imports only floors before it, and its own.
FLOORS = (
  'tsla.errors',
  'tsla.files',
  'tsla.programs',
  'tsla.smoothing',
  'tsla.data',
  'tsla.models',
  'tsla.evaluation',
  'tsla.config',
  'tsla.runs',
  'tsla.training',
  'tsla.sweep',
  'tsla.pages',
  'tsla.report',
  'tsla.advise',
  'tsla.theory',
  'tsla.commands',
  'tsla.__main__',
  'configs',
  'main',
)


def floor(module):
  for level, name in enumerate(FLOORS):
    if module == name or module.startswith(name + '.'):
      return level
  return None


def imported(tree):
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'imports are absolute'
      yield node.module
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def test_imports_point_one_way():
  seen = 0
  for path in [*ROOT.glob('tsla/**/*.py'), *ROOT.glob('configs/**/*.py')]:
    module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    module = module.removesuffix('.__init__')
    if module == 'tsla':  # the package's face re-exports the first floor
      continue
    own = floor(module)
    assert own is not None, f'{module} stands on no floor: add it to FLOORS'
    for other in imported(ast.parse(path.read_text())):
      if floor(other) is not None:
        assert floor(other) <= own, f'{module} imports {other}'
        seen += 1
  assert seen > 20


def test_the_theory_needs_no_run_and_no_network():
  seen = set()
  for path in ROOT.glob('tsla/theory/*.py'):
    for other in imported(ast.parse(path.read_text())):
      if floor(other) is not None:
        seen.add(FLOORS[floor(other)])
  assert seen == {'tsla.errors', 'tsla.smoothing', 'tsla.pages', 'tsla.theory'}


def test_no_tensorflow_no_torch_no_pickle_in_the_product():
  banned = {'tensorflow', 'torch', 'pickle', 'dill', 'cloudpickle'}
  for path in [*ROOT.glob('tsla/**/*.py'), ROOT / 'main.py']:
    names = {
      name.split('.')[0] for name in imported(ast.parse(path.read_text()))
    }
    assert not names & banned, path


def test_only_pages_import_matplotlib():
  users = {
    path.parent.name
    for path in [*ROOT.glob('tsla/**/*.py'), ROOT / 'main.py']
    if any(
      name.split('.')[0] == 'matplotlib'
      for name in imported(ast.parse(path.read_text()))
    )
  }
  assert users == {'pages', 'report', 'theory'}


def test_the_training_process_never_imports_tensorflow():
  code = (
    'import sys, main, tsla.data.prepare, tsla.data.datasets\n'
    'import tensorflow_datasets\n'
    "print([m for m in ('tensorflow', 'torch') if m in sys.modules])"
  )
  result = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert result.stdout.strip() == '[]', result.stderr
