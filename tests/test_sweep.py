"""Whole tables, trained: shared, killed, resumed, failed, listed."""

import fcntl
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time

import pytest
from archives import write_cifar100, write_cub2011, write_stanford_dogs
from support import ROOT, write_digits_npz

from tsla import files
from tsla.commands import sweep
from tsla.data import prepare
from tsla.data.builders import archive, builder_class
from tsla.sweep import table

_TABLE = """
from support import small_config
from tsla.sweep.table import Row, Table

def get_table():
  tsla = small_config({npz!r})
  lsr = tsla.copy_and_resolve_references()
  lsr.smoothing.schedule, lsr.smoothing.drop_epochs = 'constant', -1.0
  baseline = lsr.copy_and_resolve_references()
  baseline.smoothing.schedule, baseline.smoothing.theta = 'none', 0.0
  lsr.optimizer.learning_rate = tsla.optimizer.learning_rate = {rate}
  return Table('small', 'Small', (
    Row('baseline', baseline), Row('LSR', lsr), Row('TSLA(2)', tsla)))
"""
_ENV = os.environ | {
  'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')]),
  'JAX_ENABLE_COMPILATION_CACHE': 'true',  # in the tests' own XDG_CACHE_HOME
}
_PYTHON = (sys.executable, 'tests/one_core.py')
_SWEEP = (*_PYTHON, '-m', 'tsla', 'sweep')


@pytest.fixture
def write_table(tmp_path):
  """Writes a table of three rows, four epochs of 64 digits each."""

  def write(rate=0.1):
    npz = str(write_digits_npz(tmp_path / 'digits.npz'))
    path = tmp_path / 'small.py'
    path.write_text(_TABLE.format(npz=npz, rate=rate))
    return path

  return write


def start(*command, **options):
  """Starts a command."""
  return subprocess.Popen(
    [str(part) for part in command],
    **options,
    cwd=ROOT,
    env=_ENV,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )


def run(*command):
  """Its exit code, stdout and stderr."""
  process = start(*command)
  out, err = process.communicate(timeout=600)
  return process.returncode, out, err


def outcome(folder):
  """What a run ended with: status and log, without the clock."""
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) | {'images_per_second': 0} for line in lines]
  status = json.loads((folder / 'status.json').read_text())
  return status | {'seconds': 0}, rows


def folders(workdir):
  """The folder of each run of a table, by row and seed."""
  plan = json.loads((workdir / 'table.json').read_text())
  return {
    (planned['row'], planned['seed']): workdir / planned['directory']
    for planned in plan['runs']
  }


@pytest.mark.ci
def test_a_table_is_trained_once_and_a_branch_equals_its_run_alone(
  write_table, tmp_path
):
  path, shared = write_table(), tmp_path / 'shared'
  flags = (f'--table={path}', f'--workdir={shared}', '--seeds=1')
  code, out, err = run(*_SWEEP, *flags, '--jobs=2')
  assert code == 0, err
  assert '10 epochs instead of 12' in out
  assert 'TSLA(2) seed 0: top-1' in err
  assert (shared / 'report.html').stat().st_size > 10_000
  runs = folders(shared)
  config = json.loads((runs['TSLA(2)', 0] / 'config.json').read_text())
  assert config['init.fork_from'] == f'{runs["LSR", 0]}@2'

  alone = tmp_path / 'alone'
  code, _, err = run(
    *_PYTHON,
    '-c',
    'from tsla.sweep import table; from tsla.training import loop\n'
    f'row = table.load_table({str(path)!r}).rows[2]\n'
    f'loop.train_and_evaluate(row.config, {str(alone)!r})',
  )
  assert code == 0, err
  assert outcome(runs['TSLA(2)', 0]) == outcome(alone)

  # Started again: nothing is trained twice.
  times = {p: p.stat().st_mtime_ns for p in shared.glob('*/metrics.jsonl')}
  assert len(times) == 3
  code, out, err = run(*_SWEEP, *flags)
  assert code == 0, err
  assert out.count('1 of 1') == 3
  assert times == {p: p.stat().st_mtime_ns for p in times}


@pytest.mark.ci
def test_a_failed_run_is_named_and_the_rest_goes_on(write_table, tmp_path):
  workdir = tmp_path / 'runs'
  code, _, err = run(
    *_SWEEP,
    f'--table={write_table(rate=1e30)}',
    f'--workdir={workdir}',
    '--seeds=1',
    '--jobs=3',
  )
  assert code == 1
  assert 'baseline seed 0: top-1' in err
  runs = folders(workdir)
  for row in ('LSR', 'TSLA(2)'):  # the branch was tried without its trunk
    assert f'failed: {row} seed 0: ' in err
    assert 'diverged' in (runs[row, 0] / 'failure.txt').read_text()
  assert not (runs['baseline', 0] / 'failure.txt').exists()


@pytest.mark.ci
@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_saves_the_runs_and_the_sweep_goes_on(
  write_table, tmp_path, signum
):
  """As of Ctrl-C or `timeout`; the runs leave it to the sweep.

  The server that they were forked from ends by SIGTERM at once.
  """
  workdir = tmp_path / 'runs'
  command = (
    *_SWEEP,
    f'--table={write_table()}',
    f'--workdir={workdir}',
    '--seeds=1',
    '--epochs=2000',
  )
  process = start(*command, start_new_session=True)
  wait_for(lambda: list(workdir.glob('baseline*/metrics.jsonl')), process)
  os.killpg(process.pid, signum)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 128 + signum, err
  assert 'saved and stopped' in err
  (status,) = workdir.glob('*/status.json')
  assert json.loads(status.read_text())['state'] == 'interrupted'
  assert not list(workdir.glob('*/failure.txt'))
  (log,) = workdir.glob('logs/*.log')
  assert 'SIGTERM: stopping' in log.read_text()
  assert 'SIGINT' not in log.read_text()


@pytest.mark.slow
def test_a_run_ends_with_the_sweep_that_is_killed(write_table, tmp_path):
  workdir = tmp_path / 'runs'
  process = start(
    *_SWEEP,
    f'--table={write_table()}',
    f'--workdir={workdir}',
    '--seeds=1',
    '--epochs=2000',
  )
  wait_for(lambda: list(workdir.glob('baseline*/metrics.jsonl')), process)
  assert not are_free(workdir)
  process.kill()
  process.communicate(timeout=60)
  wait_for(lambda: are_free(workdir))


def are_free(workdir):
  """Whether no process trains any of the runs: it would hold the lock."""
  for path in workdir.glob('*/.lock'):
    with path.open() as lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        return False
  return True


def wait_for(condition, process=None, seconds=120):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    assert process is None or process.poll() is None, process.communicate()
    time.sleep(0.1)


def test_the_list_is_one_command_a_run_in_order(write_table, tmp_path, capsys):
  workdir = tmp_path / 'runs'
  flags = [f'--table={write_table()}', f'--workdir={workdir}', '--seeds=2']
  flags += ['--config.batch_size=8']
  assert sweep.main([*flags, '--list']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 6
  for index, line in enumerate(lines):
    words = shlex.split(line, comments=True)
    assert words[:4] == ['python', '-m', 'tsla', 'sweep']
    assert words[4:] == [*flags, f'--only={index}']
  # A branch waits for its trunk, and says how to train that.
  assert sweep.main([*flags, '--only=4']) == 2
  assert capsys.readouterr().err.splitlines() == [
    '--only=4: TSLA(2) seed 0 needs LSR seed 0, which is missing',
    f'  next: {" ".join(words[:-1])} --only=1',
  ]


@pytest.mark.slow
def test_the_commands_of_the_list_train_a_table(write_table, tmp_path):
  workdir = tmp_path / 'runs'
  flags = [f'--table={write_table()}', f'--workdir={workdir}', '--seeds=1']
  assert sweep.main([*flags, '--list']) == 0
  for index in range(3):
    assert sweep.main([*flags, f'--only={index}']) == 0
  for folder in folders(workdir).values():
    assert outcome(folder)[0]['state'] == 'done'


@pytest.mark.ci
def test_slurm_gets_one_array_a_stage(write_table, tmp_path):
  """With an sbatch that writes down what it is asked."""
  log = tmp_path / 'log'
  scripts = {
    'sbatch': f'echo "$@" >> {log}; wc -l < {log}',
    'python': f'exec {sys.executable} "$@"',
  }
  for name, body in scripts.items():
    (tmp_path / name).write_text(f'#!/bin/sh\n{body}\n')
    (tmp_path / name).chmod(0o755)
  flags = [f'--table={write_table()}', f'--workdir={tmp_path}', '--seeds=2']
  subprocess.run(
    ['bash', 'configs/sweeps/slurm.sh', *flags],
    cwd=ROOT,
    env=_ENV | {'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
    check=True,
  )
  job = 'configs/sweeps/slurm.sbatch ' + ' '.join(flags)
  assert log.read_text().splitlines() == [
    f'--parsable --array=0,1,2,3 {job}',
    f'--parsable --array=4,5 --dependency=afterany:1 {job}',
  ]


def test_without_slurm_its_script_says_what_it_needs():
  result = subprocess.run(
    ['/bin/bash', 'configs/sweeps/slurm.sh', '--table=a.py'],
    cwd=ROOT,
    env={'PATH': '/nowhere'},
    capture_output=True,
    text=True,
  )
  assert (result.returncode, result.stdout) == (2, '')
  assert 'there is no sbatch here' in result.stderr
  assert 'python -m tsla sweep --table=a.py' in result.stderr
  assert 'dirname' not in result.stderr


@pytest.mark.parametrize(
  ('text', 'message'),
  [(None, 'No such file'), ('0.5,0.5\n' * 2, '2 rows of 2 numbers')],
)
def test_a_matrix_of_no_use_is_refused_before_the_first_run(
  write_table, tmp_path, capsys, text, message
):
  matrix, workdir = tmp_path / 'rows.csv', tmp_path / 'runs'
  if text:
    matrix.write_text(text)
  flags = [
    *(f'--table={write_table()}', f'--workdir={workdir}'),
    '--config.smoothing.target=class_similarity',
    f'--config.teacher.matrix={matrix}',
  ]
  assert sweep.main(flags) == 2
  err = capsys.readouterr().err
  assert 'config.teacher.matrix' in err and message in err
  assert len(err.splitlines()) <= 3
  assert not list(workdir.glob('*/'))


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--only=18'], '--only=18: no such run'),
    (['--seeds=0'], '--seeds=0'),
    (['--jobs=0'], '--jobs=0'),
    (['--epochs=-3'], '--epochs=-3'),
    (['--config.epochs'], "'--config.epochs': not a flag"),
    (['--nonsense=1'], "'--nonsense=1': not a flag"),
    (['--nonsense'], '--list, --only\n'),
    (['--dryrun'], 'next: --dry_run'),
    (['--config.epochs=3'], 'next: --epochs=3'),
    (['--config.epoch=3'], r'--config.epochs=…'),
    (['--config.batch_size=1000000'], 'more than the 1294 training examples'),
    (['--config.model.weights=nowhere.pth'], 'nowhere.pth'),
    (['--config.data.name=no_such_set'], 'no_such_set'),
  ],
)
def test_bad_input_is_explained_before_anything_runs(
  flags, message, tmp_path, capsys
):
  workdir = tmp_path / 'runs'
  prepare.prepare('digits', tmp_path / 'data')
  capsys.readouterr()
  code = sweep.main(
    [
      '--table=configs/sweeps/digits.py',
      f'--workdir={workdir}',
      '--seeds=3',
      f'--config.data.path={tmp_path / "data"}',
      *flags,
    ]
  )
  err = capsys.readouterr().err
  assert code == 2
  assert message in err
  assert len(err.splitlines()) <= 3
  assert not list(workdir.glob('*/'))


@pytest.mark.ci
@pytest.mark.parametrize(
  'end', ['raise SystemExit(0)', 'def get_table(): os._exit(0)']
)
def test_a_table_that_ends_the_process_is_an_error(end, tmp_path):
  table = tmp_path / 'mine.py'
  table.write_text(f'import os\n{end}\n')
  code, _, err = run(
    *(sys.executable, '-m', 'tsla', 'sweep', f'--table={table}'),
    *(f'--workdir={tmp_path}', '--list'),
  )
  assert code == 2
  assert f'--table={table}: line 2: SystemExit: 0' in err
  assert len(err.splitlines()) <= 3


def test_a_second_sweep_in_one_directory_is_refused(
  write_table, tmp_path, capsys
):
  flags = [f'--table={write_table()}', f'--workdir={tmp_path}', '--seeds=1']
  with files.locked(tmp_path / '.lock'):
    assert sweep.main(flags) == 2
    assert 'another process is training here' in capsys.readouterr().err
    assert not (tmp_path / 'table.json').exists()
    assert sweep.main([*flags, '--dry_run']) == 0


@pytest.mark.slow
def test_a_digits_sweep_killed_at_random_moments_ends_with_the_same_table(
  tmp_path,
):
  """Three kills, of the sweep and so of its runs; four tables, one content."""
  rng = random.Random(0)

  def command(name):
    return (
      *_SWEEP,
      '--table=configs/sweeps/digits.py',
      f'--workdir={tmp_path / name}',
      f'--config.data.path={tmp_path / "data"}',
      '--seeds=1',
      '--epochs=6',
    )

  began = time.monotonic()
  code, _, err = run(*command('whole'))
  assert code == 0, err
  takes = time.monotonic() - began
  for _ in range(3):
    process = start(*command('killed'))
    time.sleep(rng.uniform(0.1, 0.5) * takes)
    process.kill()
    process.communicate()
    wait_for(lambda: are_free(tmp_path / 'killed'))  # its runs notice
  code, _, err = run(*command('killed'))
  assert code == 0, err
  whole, killed = folders(tmp_path / 'whole'), folders(tmp_path / 'killed')
  assert whole.keys() == killed.keys()
  for key, folder in whole.items():
    assert outcome(folder) == outcome(killed[key]), key


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'data', 'epochs', 'flags'),
  [
    ('cifar100', 'cifar100', 10, ()),
    ('stanford_dogs', 'stanford_dogs', 9, ('fine',)),
    ('cub2011', 'caltech_birds2011', 9, ('fine',)),
  ],
)
def test_the_paper_s_tables_run_on_archives_in_the_genuine_formats(
  name, data, epochs, flags, tmp_path, monkeypatch
):
  write = {
    'cifar100': lambda folder: {
      'archives': [write_cifar100(folder / 'cifar-100-binary.tar.gz')]
    },
    'stanford_dogs': write_stanford_dogs,
    'caltech_birds2011': write_cub2011,
  }[data]
  archives = write(tmp_path)['archives']
  if name == 'cifar100':
    archives = [{'path': tmp_path / 'cifar-100-binary.tar.gz', **archives[0]}]
  items = tuple(
    archive.Archive(
      f'http://127.0.0.1:1/{item["path"].name}', item['size'], item['sha256']
    )
    for item in archives
  )
  monkeypatch.setattr(builder_class(data), 'ARCHIVES', items)
  prepare.prepare(data, tmp_path / 'data', [item['path'] for item in archives])

  workdir = tmp_path / 'runs'
  more = ('--config.batch_size=20', '--config.model.width=3')
  if flags:  # weights of the same small network, in torchvision's own form
    weights = ROOT / 'tests' / 'golden' / 'torch_resnet18.safetensors'
    more += (
      '--config.data.image_size=20',
      '--config.augment.crop=16',
      f'--config.model.weights={weights}',
    )
  code, out, err = run(
    *_SWEEP,
    f'--table=configs/sweeps/{name}.py',
    f'--workdir={workdir}',
    f'--config.data.path={tmp_path / "data"}',
    f'--epochs={epochs}',
    '--seeds=1',
    *more,
  )
  assert code == 0, out + err
  runs = folders(workdir)
  assert len(runs) == len(table.load_table(f'configs/sweeps/{name}.py').rows)
  for folder in runs.values():
    status, rows = outcome(folder)
    assert status['state'] == 'done'
    assert rows[-1]['epoch'] == epochs
