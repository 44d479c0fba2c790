"""A run from config to files: log, switch, resume, end."""

import json
import math

import jax
import numpy as np
import pytest
from support import run_worker, small_config, write_digits_npz

from tsla.errors import InputError
from tsla.training import loop
from tsla.training.reporter import Diverged


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  return small_config(write_digits_npz(folder / 'digits.npz'))


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  return workdir, loop.train_and_evaluate(config, workdir)


def read(workdir, kind):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return [row for row in rows if row['kind'] == kind]


def test_the_log_has_theta_at_drop_minus_1_at_drop_and_after(finished):
  rows = {row['step']: row for row in read(finished[0], 'train')}
  assert list(rows) == list(range(1, 17))
  # Row n is update n - 1 counted from 0: it took the state to n updates.
  thetas = [rows[step + 1]['theta'] for step in (7, 8, 9)]
  np.testing.assert_allclose(thetas, [0.4, 0, 0], rtol=1e-6)
  assert [rows[step + 1]['stage'] for step in (7, 8, 9)] == [1, 2, 2]
  assert read(finished[0], 'switch') == [
    {'kind': 'switch', 'step': 8, 'epoch': 2.0}
  ]


def test_the_log_tells_optimised_and_hard_loss_apart(finished):
  for row in read(finished[0], 'train'):
    assert row['learning_rate'] == pytest.approx(0.1)
    assert math.isfinite(row['loss'])
    assert math.isfinite(row['hard_loss'])
    if row['stage'] == 2:
      assert row['loss'] == pytest.approx(row['hard_loss'], 1e-6)
    else:
      assert row['loss'] != pytest.approx(row['hard_loss'], 1e-5)


def test_every_epoch_is_evaluated_and_the_run_says_it_is_done(finished):
  workdir, test = finished
  rows = read(workdir, 'eval')
  assert [row['step'] for row in rows] == [4, 8, 12, 16]
  assert {name: rows[-1][name] for name in test} == test
  assert set(test) >= {'top1', 'top5', 'nll'}
  status = json.loads((workdir / 'status.json').read_text())
  assert status == {'state': 'done', 'step': 16, 'test': test}
  assert list((workdir / 'tensorboard').glob('events.out.tfevents.*'))


def test_a_finished_run_returns_at_once(config, finished, monkeypatch, capsys):
  def fail(*args):
    raise AssertionError('a finished run loads nothing')

  monkeypatch.setattr('tsla.data.datasets.load', fail)
  assert loop.train_and_evaluate(config, finished[0]) == finished[1]
  assert 'finished' in capsys.readouterr().out


def test_a_directory_of_another_config_is_refused(config, finished):
  other = config.copy_and_resolve_references()
  other.smoothing.theta = 0.1
  with pytest.raises(InputError) as error:
    loop.train_and_evaluate(other, finished[0])
  assert 'smoothing.theta = 0.4 there and 0.1 here' in str(error.value)


def test_a_diverged_run_stops_and_saves_no_bad_state(config, tmp_path):
  bad = config.copy_and_resolve_references()
  bad.optimizer.learning_rate = 1e30
  with pytest.raises(Diverged, match=r'loss = (nan|inf)'):
    loop.train_and_evaluate(bad, tmp_path)
  status = json.loads((tmp_path / 'status.json').read_text())
  assert status == {'state': 'diverged', 'step': 0}
  assert read(tmp_path, 'train')[-1]['loss'] is None


def test_resume_in_each_stage_and_at_the_switch_is_bit_for_bit():
  result = run_worker('resume_worker.py')
  assert sorted(map(int, result)) == [5, 7, 8, 9, 11]
  for stopped_at, outcome in result.items():
    assert outcome == {
      'stopped_early': True,
      'equal': True,
      'same_rows': True,
    }, stopped_at


@pytest.mark.parametrize(
  ('steps_per_epoch', 'at_most', 'length'),
  [(390, 50, 39), (44, 50, 44), (46, 30, 23), (97, 50, 50), (7, 1, 1)],
)
def test_chunks_divide_the_epoch_where_they_can(
  steps_per_epoch, at_most, length
):
  assert loop.chunk_length(steps_per_epoch, at_most) == length


def test_logged_loss_is_recomputed_from_the_checkpoint(config, finished):
  """The evaluation on record is that of the state on disk."""
  from tsla.data import datasets
  from tsla.training import config as config_lib
  from tsla.training import parallel
  from tsla.training.build import build
  from tsla.training.checkpoint import open_checkpoints

  dataset = datasets.load(config.data)
  run = build(
    config,
    dataset,
    config_lib.resolve_durations(config, steps_per_epoch=4),
    parallel.choose('auto', config.batch_size),
  )
  with open_checkpoints(finished[0] / 'checkpoints') as checkpoints:
    state = checkpoints.restore(run.state)
  logits = state.apply_fn(
    {'params': state.params, 'batch_stats': state.batch_stats},
    ((dataset.test.images / 255 - 0.5) / 0.5).astype(np.float32),
    train=False,
  )
  logits = np.asarray(logits, np.float64)
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  labels = dataset.test.labels
  nll = -log_p[np.arange(len(labels)), labels].mean()
  assert finished[1]['nll'] == pytest.approx(nll, rel=1e-5)
  assert int(jax.device_get(state.step)) == 16
