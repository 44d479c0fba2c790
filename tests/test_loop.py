"""A run from config to files: log, switch, resume, end."""

import contextlib
import functools
import io
import json
import math
import shutil
import socket

import jax
import numpy as np
import pytest
from support import no_network, run_worker, write_digits_npz
from tensorboardX.proto import event_pb2

from tsla.config import durations
from tsla.data import augment, batches, datasets
from tsla.data.pipeline import augmented
from tsla.errors import InputError
from tsla.models import create_configured
from tsla.runs import retention
from tsla.runs.checkpoint import Checkpoints
from tsla.runs.directory import RunDirectory
from tsla.training import feeds, loop, parallel
from tsla.training.build import build, view_of
from tsla.training.reporter import Diverged

pytestmark = pytest.mark.usefixtures('compile_once')


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  with no_network(), contextlib.redirect_stderr(io.StringIO()) as said:
    test = loop.train_and_evaluate(config, workdir, overview=True)
  return workdir, test, said.getvalue()


def test_a_run_says_what_it_does_in_the_order_in_which_it_does_it(finished):
  said = finished[2]
  places = [
    said.find(text)
    for text in (
      '| conv1/kernel ',  # asked for
      'data       npz: 64 training images, 0 to select by, 40 test, 10 classes',
      'smoothing  label_smoothing, theta = 0.4, s = 2, schedule two_stage, '
      'rule none\n',
      'network    resnet8, ',
      'optimiser  sgd, learning rate 0.1 (constant), batch 16',
      'epochs     4, from update 0 of 16\n',
      f'directory  {finished[0]}\n',
      'compiling the update, once\n',
      'epoch 0.2/4  stage 1  theta 0.4 ',
      'compiling the test metrics, once\n',
      'epoch 1  test  top-1 ',
      'epoch 2.0/4  stage 1  theta 0.4 ',
      'epoch 2, update 8: smoothing is dropped, stage 2\n',
      'epoch 2  test  top-1 ',
      'epoch 4.0/4  stage 2  theta 0 ',
      'epoch 4  test  top-1 ',
    )
  ]
  assert -1 not in places, said
  assert places == sorted(places), said
  assert said.count('compiling') == 2 + said.count('with compiling')


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
    {'kind': 'switch', 'step': 8, 'epoch': 2.0, 'by_rule': 0.0}
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


def test_training_asks_nothing_of_the_network(finished):
  """`finished` ran without; this is what would have happened otherwise."""
  with no_network():
    for address in (('127.0.0.1', 9), ('localhost', 9)):
      with pytest.raises(AssertionError, match=r'socket\.'):
        socket.create_connection(address)


def test_every_epoch_is_evaluated_and_the_run_says_it_is_done(finished):
  workdir, test, _ = finished
  rows = read(workdir, 'eval')
  assert [row['step'] for row in rows] == [4, 8, 12, 16]
  assert {name: rows[-1][name] for name in test} == test
  assert set(test) >= {'top1', 'top5', 'nll'}
  status = json.loads((workdir / 'status.json').read_text())
  assert status.pop('seconds') > 0
  assert status == {'state': 'done', 'step': 16, 'test': test}
  assert list((workdir / 'tensorboard').glob('events.out.tfevents.*'))


def test_a_finished_run_trains_no_more(config, finished, monkeypatch, capsys):
  def fail(*args):
    raise AssertionError('a finished run makes no network')

  monkeypatch.setattr(loop, 'build', fail)
  assert loop.train_and_evaluate(config, finished[0]) == finished[1]
  assert 'finished' in capsys.readouterr().out


def test_a_directory_of_another_config_is_refused(config, finished):
  other = config.copy_and_resolve_references()
  other.smoothing.theta = 0.1
  with pytest.raises(InputError) as error:
    loop.train_and_evaluate(other, finished[0])
  assert 'smoothing.theta = 0.4 there, 0.1 here' in str(error.value)


def test_resuming_on_other_data_is_refused(config, finished, tmp_path):
  workdir = shutil.copytree(finished[0], tmp_path / 'run')
  (workdir / 'status.json').unlink()
  moved = config.copy_and_resolve_references()
  moved.data.path = str(tmp_path / 'moved.npz')
  write_digits_npz(moved.data.path, train=80)
  with pytest.raises(InputError, match='another data set') as error:
    loop.train_and_evaluate(moved, workdir)
  assert 'earlier version' not in str(error.value)
  about = json.loads((workdir / 'data.json').read_text())
  del about['feed']  # as before aspects counted
  (workdir / 'data.json').write_text(json.dumps(about))
  with pytest.raises(InputError, match=r'docs/changes\.md$'):
    loop.train_and_evaluate(moved, workdir)
  write_digits_npz(moved.data.path)  # the same content elsewhere
  assert loop.train_and_evaluate(moved, workdir) == finished[1]


def test_a_finished_run_is_not_taken_for_one_on_other_data(
  config, finished, tmp_path
):
  other = config.copy_and_resolve_references()
  other.data.path = str(write_digits_npz(tmp_path / 'other.npz', train=80))
  with pytest.raises(InputError, match='another data set'):
    loop.train_and_evaluate(other, finished[0])


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('{run}@1', r'not saved\n  allowed: epochs 3, 4\n.*keep_epochs=\(1,\)'),
    ('{run}@9', r'an epoch in 1 to 3'),
    ('{run}', r'RUN@EPOCH'),
    ('{run}/nowhere@3', r'config.json'),
  ],
)
def test_a_fork_that_cannot_be_is_explained(
  config, finished, tmp_path, source, message
):
  # The newest two; which one was the best, and kept, is left to rounding.
  trunk = shutil.copytree(finished[0], tmp_path / 'trunk')
  for step in (4, 8):
    shutil.rmtree(trunk / f'checkpoints/{step}', ignore_errors=True)
  branch = config.copy_and_resolve_references()
  branch.init.fork_from = source.format(run=trunk)
  with pytest.raises(InputError, match=message) as error:
    loop.train_and_evaluate(branch, tmp_path / 'run')
  assert len(str(error.value).splitlines()) <= 3


def test_a_second_process_in_one_directory_is_refused(config, tmp_path):
  def claim():
    return RunDirectory(tmp_path, config).claim('fingerprint')

  with claim(), pytest.raises(InputError, match='another process'):
    claim().__enter__()
  with claim():
    pass


@pytest.mark.parametrize('batch_size', [16, 64])
def test_a_diverged_run_stops_and_saves_no_bad_state(
  config, tmp_path, batch_size
):
  """With one update an epoch the loss is that before the update: finite."""
  bad = config.copy_and_resolve_references()
  bad.optimizer.learning_rate = 1e30
  bad.batch_size = batch_size
  with pytest.raises(Diverged, match='diverged'):
    loop.train_and_evaluate(bad, tmp_path)
  status = json.loads((tmp_path / 'status.json').read_text())
  assert status.pop('seconds') > 0
  assert status == {'state': 'diverged', 'step': 0}
  assert not list((tmp_path / 'checkpoints').glob('[0-9]*'))


def shown(workdir):
  """What TensorBoard shows: (tag, step) → value."""
  scalars = {}
  for path in sorted((workdir / 'tensorboard').glob('events.out.tfevents.*')):
    data = path.read_bytes()
    while data:  # records: length, its CRC, event, its CRC
      size = int.from_bytes(data[:8], 'little')
      event = event_pb2.Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]
      if event.session_log.status == event_pb2.SessionLog.START:
        scalars = {k: v for k, v in scalars.items() if k[1] < event.step}
      for value in event.summary.value:
        scalars[value.tag, event.step] = value.simple_value
  return scalars


def test_a_resumed_log_takes_back_what_tensorboard_has_beyond_it(
  config, tmp_path
):
  directory = RunDirectory(tmp_path, config)
  with directory.claim('fingerprint'):
    for start, steps in ((0, (2, 4, 6, 8)), (4, (5, 7))):
      with directory.log(start) as log:
        for step in steps:
          log.write('train', step, loss=step + start)
      for path in (tmp_path / 'tensorboard').glob('events*'):
        path.rename(f'{path}.{start}')  # they are named by the second
  expected = {('train/loss', step): step for step in (2, 4)}
  expected |= {('train/loss', step): step + 4 for step in (5, 7)}
  assert shown(tmp_path) == expected
  logged = [(row['step'], row['loss']) for row in read(tmp_path, 'train')]
  assert logged == [(step, value) for (_, step), value in expected.items()]


def test_tensorboard_holds_the_numbers_of_the_log(finished):
  scalars = shown(finished[0])
  for row in read(finished[0], 'train'):
    for name in ('loss', 'hard_loss', 'theta', 'learning_rate', 'accuracy'):
      assert scalars[f'train/{name}', row['step']] == pytest.approx(row[name])
    rate = row['images_per_second']
    assert rate is None if row['step'] == 1 else rate > 0
  assert scalars['eval/top1', 16] == pytest.approx(finished[1]['top1'])


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['plain', 'probed', 'auto'])
def test_resumed_and_forked_runs_equal_one_left_alone_bit_for_bit(
  tmp_path, kind
):
  result = run_worker('resume_worker.py', tmp_path, kind)
  if kind == 'auto':
    (drop,) = result.pop('drops')
    assert drop in (4, 8, 12)
  expected = {'stopped 6', 'stopped 8', 'stopped 10'}
  expected |= {'killed after 8', 'killed after 12'}
  if kind != 'auto':
    expected |= {'forked at 1', 'forked at 2'}
  assert set(result) == expected
  for name, outcome in result.items():
    assert outcome == {
      'differed_before': True,
      'equal': True,
      'same_rows': True,
    }, name


@pytest.mark.parametrize(
  ('steps_per_epoch', 'at_most', 'length'),
  [(390, 50, 39), (44, 50, 44), (46, 30, 23), (97, 50, 50), (7, 1, 1)],
)
def test_chunks_divide_the_epoch_where_they_can(
  steps_per_epoch, at_most, length
):
  assert feeds.chunk_length(steps_per_epoch, at_most) == length


def test_logged_rows_are_recomputed_from_the_states(config, finished):
  """One of stage one, one of stage two, the last evaluation; by NumPy."""
  dataset = datasets.load_dataset(config.data)
  run = build(
    config,
    dataset,
    durations.resolve(config, steps_per_epoch=4),
    parallel.choose('auto', config.batch_size),
  )
  with Checkpoints(finished[0] / 'checkpoints') as checkpoints:
    after_12, end = (checkpoints.restore(run.state, s) for s in (12, 16))

  @functools.partial(jax.jit, static_argnames='train')
  def logits_of(state, images, train):
    mutable = ['batch_stats'] if train else False
    apply = create_configured(config.model, 10).apply
    out = apply(state.variables, images, train=train, mutable=mutable)
    return out[0] if train else out

  def log_p_of(state, images, train):
    images = np.float32((np.asarray(images) / 255 - 0.5) / 0.5)
    logits = np.asarray(logits_of(state, images, train), np.float64)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))

  rows = {row['step']: row for row in read(finished[0], 'train')}
  stages = (run.state, 0, 0.4), (after_12, 12, 0)
  for stage, (state, step, theta) in enumerate(stages, start=1):
    epoch, place = divmod(step, 4)
    order = np.asarray(batches.epoch_order(config.seed, epoch, 64))
    picked = order[16 * place :][:16]
    images = augmented(
      view_of(config),
      dataset.train.images[picked],
      augment.example_keys(config.seed, epoch, picked),
    )
    log_p = log_p_of(state, images, train=True)
    labels = np.eye(10)[dataset.train.labels[picked]]
    expected = {
      'epoch': (step + 1) / 4,
      'stage': stage,
      'theta': theta,
      'learning_rate': 0.1,
      'loss': -(((1 - theta) * labels + theta / 10) * log_p).sum(1).mean(),
      'hard_loss': -(labels * log_p).sum(1).mean(),
      'accuracy': (log_p.argmax(1) == labels.argmax(1)).mean(),
    }
    row = rows[step + 1]
    found = {name: row[name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-5)
    assert set(row) == {*expected, 'kind', 'step', 'images_per_second'}

  log_p = log_p_of(end, dataset.test.images, train=False)
  nll = -log_p[np.arange(40), dataset.test.labels].mean()
  assert finished[1]['nll'] == pytest.approx(nll, rel=1e-5)
  assert int(jax.device_get(end.step)) == 16


@pytest.mark.ci
def test_a_last_save_that_does_not_come_back_is_no_end(
  config, finished, tmp_path, monkeypatch
):
  """A run ends with exit code 0 only when its state can be read again."""
  workdir = shutil.copytree(finished[0], tmp_path / 'run')
  (workdir / 'status.json').unlink()
  shutil.rmtree(workdir / 'checkpoints/16')
  tidy = retention.tidy

  def damage_the_last(directory, *args):
    tidy(directory, *args)  # what a save does last
    path = max((directory / '16').rglob('*'), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])

  with monkeypatch.context() as disk:
    disk.setattr(retention, 'tidy', damage_the_last)
    with pytest.raises(InputError, match='checkpoints/16: damaged') as error:
      loop.train_and_evaluate(config, workdir)
  assert len(str(error.value).splitlines()) <= 3
  assert json.loads((workdir / 'status.json').read_text())['state'] != 'done'
  # The same command trains the last epoch again.
  assert loop.train_and_evaluate(config, workdir) == finished[1]
