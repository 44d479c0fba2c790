"""One door: `tsla COMMAND` and `python -m tsla COMMAND`."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
from support import ROOT

import tsla.commands
from tsla import __main__ as door
from tsla.commands import parser
from tsla.errors import InputError

# Beside the standard library, jax and optax with what they need.
_HIDE = """
import importlib.abc, sys

class Hide(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path, target=None):
    if name.split('.')[0] in {hidden}:
      raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Hide())
import tsla
from tsla.__main__ import main
sys.exit(main({argv}))
"""
_TRAINING = {
  *('flax', 'orbax', 'clu', 'ml_collections', 'tensorflow_datasets'),
  *('array_record', 'requests', 'PIL', 'safetensors', 'sklearn'),
  *('tensorboardX', 'tqdm', 'matplotlib'),
}


def python(*argv, cwd=ROOT, **options):
  return subprocess.run(
    [sys.executable, *map(str, argv)],
    cwd=cwd,
    capture_output=True,
    text=True,
    timeout=200,
    **options,
  )


def assert_helps(code, error, *words):
  assert code == 2
  assert 1 <= len(error.strip().splitlines()) <= 3, error
  for word in words:
    assert word in error


@pytest.mark.parametrize('argv', [[], ['-h'], ['--help']])
def test_help_lists_each_command_in_a_line(argv, capsys):
  assert door.main(argv) == 0
  lines = capsys.readouterr().out.splitlines()
  assert all(len(line) <= 80 for line in lines)
  for name in door.COMMANDS:
    (line,) = (line for line in lines if line.split()[:1] == [name])
    assert len(line.split()) > 3


def test_help_starts_without_jax_and_flax():
  code = (
    'import sys; from tsla.__main__ import main; code = main(["--help"]); '
    'print({"jax", "optax", "flax", "numpy"} & set(sys.modules), code)'
  )
  result = python('-c', code)
  assert result.stdout.splitlines()[-1] == 'set() 0', result.stderr
  assert python('-m', 'tsla').stdout == result.stdout.rpartition('set()')[0]


@pytest.mark.parametrize('name', door.COMMANDS)
def test_each_command_has_its_help(name, capsys):
  try:
    code = door.main([name, '--help'])
  except SystemExit as end:
    code = end.code
  assert not code
  assert f'python -m tsla {name}' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('name', 'near'),
  [('swep', 'sweep'), ('checks', 'check'), ('train', '--help')],
)
def test_an_unknown_command_names_the_nearest(name, near, capsys):
  code = door.main([name, '--jobs=2'])
  error = capsys.readouterr().err
  assert_helps(code, error, repr(name), f'next: python -m tsla {near}\n')


@pytest.mark.parametrize(
  ('argv', 'words'),
  [
    (['prepare'], 'prepare --help'),
    (['prepare', 'digits', '--data-dir=x'], 'next: --data_dir'),
    (['prepare', 'digits', '--data=x'], "'--data=x': not a flag"),
    (['prepare', 'digits', '--image_size=-5'], '0 and <= 8192'),
    (['weights', '--in', 'a.pth'], '--out'),
    (['idx', '--folder=a', '--out=b', '--train=many'], "'many'"),
    (['idx', '--folder=a', '--out=b', '--trian=1'], 'next: --train'),
    (['sweep', '--list'], '--table'),
  ],
)
def test_flags_that_cannot_be_used_are_three_lines(argv, words, capsys):
  code = door.main(argv)
  out, error = capsys.readouterr()
  assert not out
  assert_helps(code, error, words)


def test_the_wrapper_catches_bad_input_and_nothing_else():
  @parser.command
  def main(parser):
    raise {'bad': InputError, 'bug': ValueError}[parser.argv[0]]('x')

  assert main(['bad']) == 2
  with pytest.raises(ValueError, match='x'):
    main(['bug'])


@pytest.mark.parametrize('flags', [[], ['-u']])  # at its end, in a print
def test_a_command_that_nobody_reads_on_ends_quietly(flags):
  reader, writer = os.pipe()
  os.close(reader)
  command = [sys.executable, *flags, '-m', 'tsla', '--help']
  env = {n: v for n, v in os.environ.items() if n != 'PYTHONUNBUFFERED'}
  try:
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=writer, stderr=-1)
  finally:
    os.close(writer)
  assert (done.returncode, done.stderr) == (141, b'')


@pytest.mark.ci
@pytest.mark.parametrize(
  ('name', 'flag'),
  [
    *(('sweep', '--help'), ('report', '--help'), ('weights', '--help')),
    *(('check', '--help'), ('prepare', 'cifar100')),
  ],
)
def test_without_the_training_requirements_it_says_what_to_install(
  name, flag, tmp_path
):
  argv = [name, flag, f'--data_dir={tmp_path}']
  result = python('-c', _HIDE.format(hidden=_TRAINING, argv=argv))
  words = [name, "pip install 'tsla[train]'", 'requirements.txt']
  assert_helps(result.returncode, result.stderr, *words)


def test_import_tsla_needs_no_training_requirement():
  code = _HIDE.format(hidden=_TRAINING, argv=['theory'])
  result = python('-c', code.replace('import tsla\n', 'from tsla import *\n'))
  assert result.returncode == 0, result.stderr
  assert 'TSLA' in result.stdout


@pytest.mark.parametrize(
  ('body', 'words'),
  [
    ('from tsla.data import builder', "cannot import name 'builder'"),
    ('import tsla.data.prepares', "No module named 'tsla.data.prepares'"),
    ('import tsla.data.prepare.x', "No module named 'tsla.data.prepare.x'"),
    ('import _no_such_module', None),
  ],
)
def test_a_mistake_of_our_own_is_not_taken_for_a_requirement(
  body, words, monkeypatch, tmp_path, capsys
):
  (tmp_path / 'broken.py').write_text(body)
  path = [*tsla.commands.__path__, str(tmp_path)]
  monkeypatch.setattr(tsla.commands, '__path__', path)
  monkeypatch.setitem(door.COMMANDS, 'broken', 'does not import')
  if words is None:
    assert_helps(door.main(['broken']), capsys.readouterr().err, body[7:])
  else:
    with pytest.raises(ImportError, match=re.escape(words)):
      door.main(['broken'])
  sys.modules.pop('tsla.commands.broken', None)


@pytest.mark.ci
def test_the_console_script_finds_the_tables_imports(tmp_path):
  """It starts in a folder of its own, as pip's does."""
  (tmp_path / 'tsla').symlink_to(ROOT / 'tsla')
  script = tmp_path / 'script'
  script.write_text(
    'import sys\nfrom tsla.__main__ import main\nsys.exit(main())\n'
  )
  flags = '--table=configs/sweeps/digits.py', f'--workdir={tmp_path}/runs'
  result = python(script, 'sweep', *flags, '--dry_run')
  assert result.returncode == 0, result.stderr
  assert 'TSLA(20)' in result.stdout


def test_pyproject_installs_the_door():
  text = (ROOT / 'pyproject.toml').read_text()
  assert '[project.scripts]\ntsla = "tsla.__main__:main"\n' in text


def test_training_without_its_requirements_is_three_lines():
  argv = [sys.executable, '-S', 'main.py', '--help']
  result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
  lines = (result.stdout + result.stderr).splitlines()
  assert result.returncode == 2 and len(lines) == 3, lines
  assert 'main.py needs ' in lines[0] and sys.executable in lines[1]
  assert 'requirements.txt' in lines[2]


def test_a_wheel_holds_every_file_that_the_package_reads():
  text = (ROOT / 'pyproject.toml').read_text()
  given = tomllib.loads(text)['tool']['setuptools']['package-data']
  held = {
    file
    for package, patterns in given.items()
    for pattern in patterns
    for file in (ROOT / package.replace('.', '/')).glob(pattern)
  }
  listed = subprocess.run(
    ['git', 'ls-files', 'tsla'], cwd=ROOT, capture_output=True, text=True
  ).stdout
  others = {ROOT / name for name in listed.split() if not name.endswith('.py')}
  assert len(others) > 5 and not others - held


def test_no_text_names_a_module_as_a_command():
  files = [
    path
    for pattern in ('*', 'configs/**/*', 'docs/**/*', 'tests/**/*', 'tsla/**/*')
    for path in [*ROOT.glob(pattern), *ROOT.glob('benchmarks/**/*')]
    if path.suffix in {'', '.py', '.md', '.sh', '.sbatch', '.toml', '.html'}
    and path.is_file()
  ]
  assert len(files) > 150
  old = re.compile(r"""-m['",\s]+tsla\.""")
  named = [path for path in files if old.search(path.read_text())]
  assert not named
