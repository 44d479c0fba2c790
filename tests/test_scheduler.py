"""Which run is trained after which, and what is noted of those that fail."""

import json
import os

import pytest

from tsla.commands import sweep
from tsla.config import forms
from tsla.data import datasets
from tsla.runs import directory
from tsla.sweep import plan, table, worker
from tsla.sweep import pool as scheduler
from tsla.sweep.worker import Outcome

_TABLE = 'configs/sweeps/digits.py'
_ROWS = ('baseline', 'LSR', 'TSLA(10)', 'TSLA(20)', 'LSR-pre', 'TSLA-pre(20)')


@pytest.fixture
def runs(tmp_path):
  """The digits table's, one seed; LSR-pre and TSLA-pre have a teacher."""
  return plan.plan(table.load_table(_TABLE), [0], tmp_path)


@pytest.fixture
def run_all(runs, tmp_path, monkeypatch):
  """Schedules them; the workers only say how they ended."""

  def schedule(failing=()):
    started, running = [], {}
    folders = [run.directory for run in runs]
    ended = {name for name in folders if (tmp_path / name).exists()}

    class Worker:
      def __init__(self, run, workdir, slot, variables):
        assert workdir == tmp_path
        assert ended.issuperset(run.needs)
        self.run, self.slot = run, slot
        started.append(run.row)
        running[run.row] = variables['CUDA_VISIBLE_DEVICES']
        assert len(set(running.values())) == len(running) <= 2
        self.ended, writer = os.pipe()  # ready, as nobody writes any more
        os.close(writer)

      def outcome(self):
        os.close(self.ended)
        ended.add(self.run.directory)
        del running[self.run.row]
        if self.run.row in failing:
          return Outcome(3, 'diverged')
        return Outcome(0, 'top-1 99 %')

    monkeypatch.setattr(scheduler, 'Worker', Worker)
    monkeypatch.setattr(scheduler, 'find_devices', lambda: ('gpu', 2))
    digits = table.load_table(_TABLE)
    failures, signum = scheduler.train_table(digits, runs, tmp_path, 2, 'again')
    assert signum == 0
    reasons = {run.row: failures.get(run.directory) for run in runs}
    return started, {row: why for row, why in reasons.items() if why}

  return schedule


def notes(runs, folder):
  """What lies in the folders of the runs, for the report."""
  paths = {run.row: folder / run.directory / 'failure.txt' for run in runs}
  return {
    row: path.read_text().strip()
    for row, path in paths.items()
    if path.exists()
  }


def test_without_its_teacher_a_run_fails_with_the_reason(
  runs, run_all, tmp_path
):
  started, failures = run_all(failing=['baseline'])
  assert set(started) == set(_ROWS[:4])
  needs = 'needs baseline seed 0, which failed'
  assert failures == {
    'baseline': 'diverged',
    'LSR-pre': needs,
    'TSLA-pre(20)': needs,
  }
  assert notes(runs, tmp_path) == failures


def test_runs_in_one_folder_are_one(runs, run_all):
  runs.append(runs[1])
  started, failures = run_all()
  assert set(started) == set(_ROWS) and len(started) == len(_ROWS)
  assert failures == {}


def test_without_its_trunk_a_run_is_trained_all_the_same(
  runs, run_all, tmp_path
):
  started, failures = run_all(failing=['LSR'])
  assert set(started) == set(_ROWS)
  assert failures == {'LSR': 'diverged'} == notes(runs, tmp_path)


def test_a_finished_run_is_left_and_an_old_failure_forgotten(
  runs, run_all, tmp_path
):
  done = tmp_path / runs[0].directory
  done.mkdir()
  (done / 'status.json').write_text('{"state": "done", "step": 16}')
  directory.note_failure(tmp_path / runs[-1].directory, 'of an earlier try')
  started, failures = run_all()
  assert set(started) == set(_ROWS[1:])
  assert failures == {} == notes(runs, tmp_path)


@pytest.mark.parametrize(
  ('code', 'noted'),
  [(0, {}), (143, {}), (2, {'LSR': 'why'}), (3, {'LSR': 'why'})],
)
def test_one_run_of_the_list_notes_how_it_failed(
  runs, tmp_path, monkeypatch, code, noted
):
  directory.note_failure(tmp_path / runs[1].directory, 'of an earlier try')
  monkeypatch.setattr(worker, 'train', lambda *run: Outcome(code, 'why'))
  flags = [f'--table={_TABLE}', f'--workdir={tmp_path}', '--seeds=1']
  assert sweep.main([*flags, '--only=1']) == code
  assert notes(runs, tmp_path) == noted


@pytest.mark.parametrize('data', ['same', 'other'])
def test_one_run_of_the_list_is_on_the_data_of_those_that_have_begun(
  runs, tmp_path, monkeypatch, capsys, data
):
  """The last run of the table has saved an update."""
  trained, begun = [], tmp_path / runs[-1].directory
  (begun / 'checkpoints' / '4').mkdir(parents=True)
  loaded = datasets.load_dataset(runs[-1].config.data)
  fingerprint = {'same': loaded.fingerprint, 'other': 'e' * 64}[data]
  for name, value in (
    ('config.json', forms.flatten(runs[-1].config)),
    ('data.json', {'fingerprint': fingerprint}),
    ('status.json', {'state': 'interrupted', 'step': 4}),
  ):
    (begun / name).write_text(json.dumps(value))
  (begun / 'metrics.jsonl').write_text('')

  def train(run, workdir):
    trained.append(run.row)
    return Outcome(0, '')

  monkeypatch.setattr(worker, 'train', train)
  order, check = [], sweep.check_inputs
  monkeypatch.setattr(sweep, 'split_cores', lambda *_: order.append('cores'))
  monkeypatch.setattr(
    sweep, 'check_inputs', lambda *a: (order.append('data'), check(*a))
  )
  flags = [f'--table={_TABLE}', f'--workdir={tmp_path}', '--seeds=1']
  assert sweep.main([*flags, '--only=0']) == {'same': 0, 'other': 2}[data]
  assert trained == [runs[0].row] * (data == 'same')
  assert order == ['cores', 'data']  # or jax has its devices before
  refused = f'{begun}: was trained on other data\n' in capsys.readouterr().err
  assert refused == (data == 'other')
