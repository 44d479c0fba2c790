"""Stops, hangs and divergence: what is on the disk, and the exit code."""

import itertools
import json
import signal
import time
import types

import faults
import pytest
from support import small_config, write_digits_npz

from tsla.runs import lifecycle
from tsla.training import loop
from tsla.training.reporter import Diverged

pytestmark = pytest.mark.usefixtures('hears_sighup')


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
  folder = tmp_path_factory.mktemp('shared')
  write_digits_npz(folder / 'digits.npz')
  return folder


def begin(shared, workdir, place, seconds, grace):
  """Starts the worker; returns when it has come to `place`."""
  worker = faults.start(
    *('interrupt_worker.py', shared / 'digits.npz', workdir),
    *(place, seconds, grace),
    cache=shared / 'cache',
  )
  reached = workdir.with_suffix('.reached')
  deadline = time.monotonic() + 200
  while not reached.exists():
    assert worker.poll() is None, worker.communicate()[1][-2000:]
    assert time.monotonic() < deadline
    time.sleep(0.05)
  return worker


def send(worker, signum):
  """Returns when the worker has noted the signal."""
  worker.send_signal(signum)
  assert any('stopping after this call' in line for line in worker.stderr)


def end(worker):
  _, error = worker.communicate(timeout=300)
  assert 'Traceback' not in error, error
  return worker.returncode, error


@pytest.mark.parametrize(
  ('place', 'signum', 'code', 'step', 'evaluated'),
  [
    # In the chunk after update 9: it ends, and its state is saved.
    pytest.param('chunk', signal.SIGTERM, 143, 10, 8, marks=pytest.mark.ci),
    # In the test after update 8: its row is written too.
    pytest.param(
      *('evaluation', signal.SIGINT, 130, 8, 8), marks=pytest.mark.slow
    ),
    pytest.param(
      *('evaluation', signal.SIGHUP, 129, 8, 8), marks=pytest.mark.slow
    ),
    # In the probe after update 8: its row is written, the state saved as the
    # probe leaves it, and the test is left to the next start.
    pytest.param(*('probe', signal.SIGTERM, 143, 8, 4), marks=pytest.mark.slow),
  ],
)
def test_a_signal_saves_and_leaves(
  shared, tmp_path, place, signum, code, step, evaluated
):
  workdir = tmp_path / 'run'
  worker = begin(shared, workdir, place, seconds=0, grace=3600)
  send(worker, signum)
  workdir.with_suffix('.go').touch()
  assert end(worker)[0] == code
  assert faults.status(workdir) == {'state': 'interrupted', 'step': step}
  assert faults.arrays(workdir, step)
  last = [row['step'] for row in faults.rows(workdir) if row['kind'] == 'eval']
  assert last[-1] == evaluated
  probed = [r['step'] for r in faults.rows(workdir) if r['kind'] == 'probe']
  assert probed == ([0, 4, 8] if place == 'probe' else [])


@pytest.mark.slow
@pytest.mark.parametrize(
  ('place', 'step'),
  [('compile', 0), ('chunk', 8), ('probe', 4), ('evaluation', 8)],
)
def test_a_call_that_takes_too_long_is_left(shared, tmp_path, place, step):
  """The state before the test is on the disk already."""
  workdir = tmp_path / 'run'
  worker = begin(shared, workdir, place, seconds=3600, grace=1)
  worker.send_signal(signal.SIGTERM)
  code, error = end(worker)
  assert code == 143
  assert 'without a save' in error
  assert faults.status(workdir) == {'state': 'interrupted', 'step': step}
  if step:
    assert faults.arrays(workdir, step)


@pytest.mark.ci
def test_a_second_signal_leaves_at_once(shared, tmp_path):
  worker = begin(shared, tmp_path / 'run', 'compile', seconds=3600, grace=3600)
  send(worker, signal.SIGINT)
  assert worker.poll() is None
  worker.send_signal(signal.SIGINT)
  assert end(worker)[0] == 130


@pytest.mark.parametrize(
  ('second', 'after', 'left'),
  [
    (signal.SIGTERM, 1.0, []),  # of the sweep, after the scheduler's
    (signal.SIGHUP, 1.0, []),
    (signal.SIGTERM, 3.0, [143]),
    (signal.SIGHUP, 3.0, [129]),
    (signal.SIGINT, 1.0, [130]),
  ],
)
def test_a_second_sigterm_within_a_second_is_the_first_one_again(
  monkeypatch, second, after, left
):
  """On a clock of the test's own, in its own process."""
  monkeypatch.setattr(lifecycle, '_leave_terminal', lambda: None)
  codes, times = [], itertools.count(100, after)
  clock = types.SimpleNamespace(monotonic=lambda: next(times))
  monkeypatch.setattr(lifecycle, 'time', clock)
  monkeypatch.setattr(lifecycle.os, '_exit', codes.append)
  with lifecycle.watch_signals(lambda: None, grace=1000) as requested:
    for signum in (signal.SIGTERM, second):
      signal.raise_signal(signum)
  assert requested.signum == signal.SIGTERM
  assert codes == left


@pytest.mark.slow
def test_a_run_that_stands_still_dumps_its_stacks(shared, tmp_path):
  workdir = tmp_path / 'run'
  worker = begin(shared, workdir, 'hang', seconds=0, grace=1)
  code, error = end(worker)
  assert code == 4
  assert str(workdir / 'stacks-0.txt') in error
  assert faults.status(workdir) == {'state': 'stuck', 'step': 0}
  stacks = (workdir / 'stacks-0.txt').read_text()
  assert 'interrupt_worker.py' in stacks
  assert 'in reached' in stacks
  assert stacks.count('hread 0x') > 1


def test_divergence_names_update_and_array_and_keeps_what_was_good(
  shared, tmp_path, monkeypatch
):
  """A parameter is bad from update 11 on, counted from 1."""
  config = small_config(shared / 'digits.npz')
  config.log_every_steps = 2
  build = loop.build

  def poisoned(*args):
    run = build(*args)

    def chunk(state, length, *done):
      if int(state.step) == 10:
        params = dict(state.params)
        params['fc'] = {
          **params['fc'],
          'bias': params['fc']['bias'] + float('inf'),
        }
        state = state.replace(params=params)
      return run.train_chunk(state, length, *done)

    return run._replace(train_chunk=chunk)

  monkeypatch.setattr(loop, 'build', poisoned)
  with pytest.raises(Diverged) as error:
    loop.train_and_evaluate(config, tmp_path)
  assert error.value.exit_code == 3
  assert 'the loss of update 11 is not finite' in str(error.value)
  assert 'after update 12 params/' in str(error.value)
  assert faults.status(tmp_path) == {'state': 'diverged', 'step': 8}
  assert faults.arrays(tmp_path, 8)
  rows = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert json.loads(rows[-1])['step'] == 12
