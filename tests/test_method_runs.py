"""Methods in whole runs: killed, forked, probed, and what a target learnt.

The network is small, with BatchNorm, in a file of one's own, as are a method
that learns and the schedules that come to 0 more than once.
"""

import dataclasses
import functools
import io
import json
import shutil
import types

import faults
import jax
import numpy as np
import pytest
import resume_worker
from support import changed, run_worker, small_config, write_digits_npz

from configs import bases
from tsla import models
from tsla.config import durations
from tsla.data import augment, batches, datasets
from tsla.data.pipeline import augmented
from tsla.errors import InputError
from tsla.runs import manifest
from tsla.runs.checkpoint import Checkpoints
from tsla.runs.log import RunLog
from tsla.training import loop, parallel
from tsla.training.build import build, view_of
from tsla.training.reporter import Reporter
from tsla.training.step import TrainMetrics
from tsla.training.teacher import load_teacher

pytestmark = [pytest.mark.usefixtures('compile_once'), pytest.mark.ci]

OWN = """
from typing import NamedTuple

import jax
import jax.numpy as jnp
import tsla
from flax import linen as nn


class Net(nn.Module):
  classes: int

  @nn.compact
  def __call__(self, x, *, train):
    x = nn.Dense(16)(x.reshape(len(x), -1))
    x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))
    self.sow('intermediates', 'features', x)
    return nn.Dense(self.classes)(x)


def net(num_classes):
  return Net(num_classes)


class Memory(NamedTuple):
  epochs: jax.Array  # i32[]
  last: jax.Array  # f32[N, K], what was said of each example an epoch ago
  now: jax.Array


def memory(task):
  uniform = jnp.full((task.num_examples, task.num_classes), 1 / 10)
  return tsla.Target(
    lambda arrays, state, seen: state.last[seen.indices],
    state=Memory(jnp.int32(0), uniform, uniform),
    update=lambda state, seen: state._replace(
      now=state.now.at[seen.indices].set(jax.nn.softmax(seen.logits))
    ),
    end_epoch=lambda state: Memory(state.epochs + 1, state.now, state.now),
  )


def remembering():
  return tsla.Method(
    tsla.smoothed_cross_entropy,
    memory,
    mixture=True,
    lowest=-1.0,
    highest=1.0,
  )


def crossing(theta, durations):
  del durations
  return tsla.piecewise((theta, 0.0, -theta, 0.0), (4, 6, 11))


def pausing(theta, durations):
  del durations
  return tsla.piecewise((theta, 0.0, theta), (8, 10))
"""
METHODS = (
  *('max_suppression', 'online', 'OWN.py:remembering'),
  *('margin', 'confidence_penalty', 'zipf', 'negative', 'class_similarity'),
)
LEARNING = METHODS[1:3]
EACH = [
  *METHODS[:3],
  *(pytest.param(m, marks=pytest.mark.ci) for m in METHODS[3:]),
]
SWITCH = {'kind': 'switch', 'step': 8, 'epoch': 2.0, 'by_rule': 0.0}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('shared')
  write_digits_npz(folder / 'digits.npz')
  (folder / 'OWN.py').write_text(OWN)
  return folder


def configure(folder, **fields):
  """16 updates, 4 an epoch, probed at each end of one."""
  config = small_config(folder / 'digits.npz')
  config.log_every_steps = 2
  config.checkpoint_keep_epochs = (1, 2)
  config.variance.every_epochs, config.variance.num_batches = 1, 3
  return adapted(changed(config, **fields), folder)


def adapted(config, folder):
  """With what its method needs besides its name."""
  config.model.name = f'{folder}/OWN.py:net'
  match config.smoothing.method:
    case 'margin':  # within the 10 of the default there is nothing to see
      config.smoothing.options = 'm=0.5'
    case 'negative':
      config.smoothing.theta = -0.4
    case 'class_similarity':
      config.smoothing.method = 'label_smoothing'
      config.smoothing.target = 'class_similarity'
      if not config.teacher.run:
        rows = np.random.default_rng(0).dirichlet(np.ones(10), 10)
        config.teacher.matrix = str(folder / 'rows.csv')
        np.savetxt(config.teacher.matrix, rows, delimiter=',')
  for leaf in ('method', 'schedule'):
    name = config.smoothing[leaf]
    config.smoothing[leaf] = name.replace('OWN', f'{folder}/OWN')
  return config


@pytest.fixture(scope='module')
def programs():
  """All runs of a method share what is compiled, whatever their schedule.

  So they may: what tells them apart is handed to the functions. By the method
  and the name of what is mapped.
  """
  mapped = {}

  def shared(config, *args):
    def once(devices, fn, **options):
      kind = f'{config.smoothing.method} {config.smoothing.target}'
      key = kind, fn.__name__
      return mapped.setdefault(key, real(devices, fn, **options))

    with pytest.MonkeyPatch.context() as patch:
      real = parallel.Devices.map
      patch.setattr(parallel.Devices, 'map', once)
      return build(config, *args)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop, 'build', shared)
    yield mapped


@pytest.fixture(scope='module')
def wholes(folder, programs):
  """Config and directory of a method's run that nobody disturbs."""

  @functools.cache
  def whole(method):
    config = configure(folder, smoothing__method=method)
    workdir = folder / method.replace('OWN.py:', '')
    loop.train_and_evaluate(config, workdir)
    return config, workdir

  return whole


def rows(workdir, kind=None):
  """The log without what the clock makes."""
  clock = {'images_per_second', 'seconds'}
  return [
    {name: value for name, value in row.items() if name not in clock}
    for row in faults.rows(workdir)
    if kind in (None, row['kind'])
  ]


def same_end(workdir, whole):
  assert faults.arrays(workdir, 16) == faults.arrays(whole, 16)
  assert rows(workdir) == rows(whole)


@pytest.mark.parametrize(
  'method',
  [
    METHODS[0],
    'zipf',
    *(pytest.param(m, marks=pytest.mark.ci) for m in METHODS[1:5]),
    *(pytest.param(m, marks=pytest.mark.ci) for m in METHODS[6:]),
  ],
)
def test_two_stages_are_one_program(wholes, programs, method):
  _, workdir = wholes(method)
  counts = {name: f._cache_size() for (_, name), f in programs.items()}
  assert counts == {'chunk': 1, 'evaluate': 1, 'probe': 1}
  assert rows(workdir, 'switch') == [SWITCH]
  train = rows(workdir, 'train')
  assert [row['stage'] for row in train] == [1] * 4 + [2] * 4
  smoothed = [abs(row['loss'] - row['hard_loss']) > 1e-4 for row in train]
  assert smoothed == [True] * 4 + [False] * 4
  learnt = 3 if method in LEARNING else 0
  names = [name.split('/')[0] for name in faults.arrays(workdir, 16)]
  assert names.count('target') == learnt and 'batch_stats' in names


@pytest.mark.parametrize('method', EACH)
def test_stopped_and_killed_runs_end_as_the_one_left_alone(
  wholes, programs, tmp_path, method
):
  """In the midst of epoch two, when a target has learnt half of the epoch."""
  config, whole = wholes(method)
  stopped, killed = tmp_path / 'stopped', tmp_path / 'killed'
  resume_worker.train(config, stopped, stop_after=6)
  # What a kill leaves: rows beyond the checkpoint, the last one torn.
  shutil.copytree(stopped, killed)
  (killed / 'status.json').unlink()
  log = (whole / 'metrics.jsonl').read_bytes()
  rows = log.splitlines(keepends=True)
  with (killed / 'metrics.jsonl').open('ab') as file:
    done = (stopped / 'metrics.jsonl').read_bytes().count(b'\n')
    file.write(b''.join(rows[done:])[: len(log) // 4])
  for workdir in (stopped, killed):
    assert faults.arrays(workdir, 6) != faults.arrays(whole, 16)
    resume_worker.train(config, workdir)
    same_end(workdir, whole)
  assert {f._cache_size() for f in programs.values()} == {1}


@pytest.mark.parametrize('method', EACH)
def test_a_branch_of_the_trunk_is_the_run_alone(
  folder, wholes, tmp_path, method
):
  config, whole = wholes(method)
  trunk = configure(
    folder,
    smoothing__method=method,
    smoothing__schedule='constant',
    smoothing__drop_epochs=-1.0,
  )
  loop.train_and_evaluate(trunk, tmp_path / 'trunk')
  branch = changed(config, init__fork_from=f'{tmp_path / "trunk"}@2')
  loop.train_and_evaluate(branch, tmp_path / 'branch')
  same_end(tmp_path / 'branch', whole)


def softmax(logits):
  p = np.exp(np.float64(logits) - np.max(logits, axis=1, keepdims=True))
  return p / p.sum(1, keepdims=True)


def learnt_by_numpy(method, seen):
  """The target's state after updates that saw (labels, indices, logits)."""
  means, last = np.full((10, 10), 0.1), np.full((64, 10), 0.1)
  now, rights = last.copy(), [[] for _ in range(10)]
  for count, (labels, indices, logits) in enumerate(seen, start=1):
    now[indices] = softmax(logits)
    for label, p in zip(labels, now[indices], strict=True):
      rights[label] += [p] if p.argmax() == label else []
    if count % 4 == 0:  # an epoch's end
      last = now.copy()
      means = np.array([np.mean(r or [[0.1] * 10], axis=0) for r in rights])
      rights = [[] for _ in range(10)]
  if method == 'online':
    sums = np.array([np.sum(r or [[0.0] * 10], axis=0) for r in rights])
    return means, sums, np.array([len(r) for r in rights])
  return len(seen) // 4, last, now


@pytest.fixture(scope='module')
def replayed(wholes):
  """The run of a method again, update by update: what there was to learn.

  Returns config, run, states by step, and (labels, indices, logits) of each
  update, of the weights before it.
  """

  @functools.cache
  def replay(method):
    config, _ = wholes(method)
    dataset = datasets.load_dataset(config.data)
    steps = durations.resolve(config, steps_per_epoch=4)
    run = loop.build(config, dataset, steps, parallel.choose('auto', 16))
    forward = jax.jit(
      functools.partial(
        models.create_configured(config.model, 10).apply,
        train=True,
        mutable=['batch_stats'],
      )
    )
    state, states, seen = run.state, {}, []
    for step in range(10):
      states[step] = jax.tree.map(np.array, state)
      epoch, place = divmod(step, 4)
      order = np.asarray(batches.epoch_order(config.seed, epoch, 64))
      picked = order[16 * place :][:16]
      images = augmented(
        view_of(config),
        dataset.train.images[picked],
        augment.example_keys(config.seed, epoch, picked),
      )
      images = np.float32((np.asarray(images) / 255 - 0.5) / 0.5)
      logits = np.asarray(forward(states[step].variables, images)[0])
      seen.append((dataset.train.labels[picked], picked, logits))
      state, _ = run.train_chunk(state, 1)
    return config, run, states, seen

  return replay


def assert_close(found, expected, atol=0.0):
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def assert_equal(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('method', LEARNING)
def test_a_target_learns_from_the_logits_of_each_gradient(
  wholes, replayed, method
):
  """Within an epoch, at its end, and where theta is 0, by NumPy."""
  _, _, states, seen = replayed(method)
  for step in (3, 4, 6, 8):
    expected = learnt_by_numpy(method, seen[:step])
    assert_close(states[step].target, expected, atol=2e-6)
  if method == 'online':
    assert 0 < states[6].target.counts.sum() < 32
    kinds = (states[8].target.y_hat == np.float32(0.1)).all(1)
    assert 0 < kinds.sum() < 10  # also a class of which none was right
  assert not np.array_equal(states[9].target[2], states[8].target[2])
  # The run itself, in chunks of two, says the same.
  _, workdir = wholes(method)
  with Checkpoints(workdir / 'checkpoints') as checkpoints:
    saved = checkpoints.restore(states[8], 8)
  assert_close(saved.target, states[8].target, atol=2e-6)
  assert_close(saved.params, states[8].params, atol=2e-6)


@pytest.mark.parametrize('method', LEARNING)
def test_a_probe_at_an_epoch_s_end_sees_what_was_learnt_in_it(
  wholes, replayed, method
):
  _, run, states, seen = replayed(method)
  _, workdir = wholes(method)
  with Checkpoints(workdir / 'checkpoints') as checkpoints:

    def delta(target, step=4):
      state = checkpoints.restore(run.state, step)
      target = jax.tree.map(
        lambda new, old: jax.device_put(
          np.asarray(new, old.dtype), old.sharding
        ),
        type(state.target)(*target),
        state.target,
      )
      return run.probe(state.replace(target=target))[1].compute()['delta']

    (logged,) = (r['delta'] for r in rows(workdir, 'probe') if r['step'] == 4)
    assert logged == pytest.approx(
      delta(learnt_by_numpy(method, seen[:4])), rel=1e-4
    )
    assert logged != pytest.approx(delta(states[0].target), rel=1e-2)


def test_only_a_mixture_of_labels_has_a_delta(wholes):
  for method in (*METHODS[:3], 'zipf'):
    probes = rows(wholes(method)[1], 'probe')
    assert [row['step'] for row in probes] == [0, 4, 8, 12, 16]
    for row in probes:
      speaks = method in LEARNING
      for name in ('delta', 'delta_error', 'theta_paper', 'theta_paper_error'):
        assert (row[name] is not None) == speaks, (method, name)
      assert row['rule_delta'] == 0 or speaks
      for name in ('sigma2', 'theta_star', 'mse_ratio', 'cosine'):
        assert row[name] is not None, (method, name)


def stages(thetas):
  """By update, counted from 1: two from where theta stays 0."""
  last = max((count for count, t in enumerate(thetas) if t), default=-1)
  return [1 if count <= last else 2 for count in range(len(thetas))], last + 1


def assert_stages(workdir, thetas, every, switches):
  """The rows of a run with these thetas, `every` updates a row."""
  train = rows(workdir, 'train')
  ends = range(every, 17, every)
  assert [row['step'] for row in train] == list(ends)
  found = [row['theta'] for row in train]
  np.testing.assert_allclose(found, [thetas[e - 1] for e in ends], rtol=1e-6)
  stage, end = stages(thetas)
  assert [row['stage'] for row in train] == [stage[e - 1] for e in ends]
  assert [row['step'] for row in rows(workdir, 'switch')] == switches
  assert switches[-1:] == ([end] if end < 16 else [])


CROSSING = [0.4] * 4 + [0.0] * 2 + [-0.4] * 5 + [0.0] * 5
SCHEDULES = {
  'two_stage': [0.4] * 8 + [0.0] * 8,
  'reversed': [0.0] * 8 + [0.4] * 8,
  'OWN.py:crossing': CROSSING,
  'OWN.py:pausing': [0.4] * 8 + [0.0] * 2 + [0.4] * 6,
}


@pytest.fixture(scope='module')
def scheduled(folder, programs):
  """Config and directory of a run of one method by its schedule."""

  @functools.cache
  def run(schedule):
    config = configure(
      folder, smoothing__method=METHODS[2], smoothing__schedule=schedule
    )
    workdir = folder / schedule.replace('OWN.py:', '')
    loop.train_and_evaluate(config, workdir)
    return config, workdir

  return run


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_stage_two_is_where_theta_stays_0(scheduled, tmp_path, schedule):
  """Also after a resume, from wherever, and in a fork of another schedule."""
  config, whole = scheduled(schedule)
  thetas = SCHEDULES[schedule]
  end = stages(thetas)[1]
  assert_stages(whole, thetas, 2, [end] if end < 16 else [])
  for stop in (6, 12):
    workdir = tmp_path / str(stop)
    resume_worker.train(config, workdir, stop_after=stop)
    resume_worker.train(config, workdir)
    same_end(workdir, whole)
  trunk = {'OWN.py:pausing': 'two_stage', 'two_stage': 'OWN.py:pausing'}
  if schedule in trunk:  # they part at update 8 and after
    fork_from = f'{scheduled(trunk[schedule])[1]}@2'
    branch = changed(config, init__fork_from=fork_from)
    loop.train_and_evaluate(branch, tmp_path / 'branch')
    assert rows(tmp_path / 'branch', 'switch') == rows(whole, 'switch')
    same_end(tmp_path / 'branch', whole)


def test_a_ramp_crosses_0_and_goes_on(folder, programs, tmp_path, capsys):
  """θ is 0 before one gradient, which is not the end of smoothing."""
  config = configure(
    folder,
    smoothing__method='label_smoothing',
    smoothing__target='prior',
    smoothing__schedule='ramp',
    smoothing__drop_epochs=-1.0,
    smoothing__options='to=-0.4',
    smoothing__reset_momentum=True,
  )
  loop.train_and_evaluate(config, tmp_path)
  said = 'label_smoothing, to=-0.4, y_hat prior, theta = 0.4, schedule ramp'
  assert f'smoothing  {said}' in capsys.readouterr().err
  thetas = 0.4 - 0.05 * np.arange(16)
  thetas[8] = 0
  assert_stages(tmp_path, list(thetas), 2, [])
  train = rows(tmp_path, 'train')
  assert all(abs(row['loss'] - row['hard_loss']) > 1e-6 for row in train)


@pytest.mark.ci
@pytest.mark.parametrize(('classes', 'says'), [(999, False), (1000, True)])
def test_a_loss_that_sorts_many_classes_says_so(
  folder, tmp_path, monkeypatch, capsys, classes, says
):
  load, names = datasets.load_dataset, tuple(map(str, range(classes)))
  monkeypatch.setattr(loop, 'build', build)  # no program is shared
  monkeypatch.setattr(
    datasets,
    'load_dataset',
    lambda options: dataclasses.replace(load(options), class_names=names),
  )
  config = configure(folder, smoothing__method='zipf', epochs=3)
  config.variance.every_epochs = 0
  resume_worker.train(config, tmp_path, stop_after=2)
  said = "'zipf' sorts 1,000 logits an example, which is slow on a CPU"
  assert (said in ''.join(capsys.readouterr())) == says


def test_a_negative_theta_has_a_probe_without_delta(scheduled):
  _, workdir = scheduled('OWN.py:crossing')
  for row in rows(workdir, 'probe'):
    assert (row['delta'] is None) == (row['theta'] < 0)
    assert (row['theta_paper'] is None) == (row['theta'] < 0)
    assert row['mse_ratio'] is not None
  assert rows(workdir, 'probe')[2]['theta'] == pytest.approx(-0.4)


@pytest.mark.parametrize(
  ('stop', 'schedule', 'drop', 'thetas', 'stages', 'switches'),
  [
    # All that is left of the smoothing is in one chunk.
    (10, 'OWN.py:crossing', 2.0, CROSSING[11::2], [2] * 3, [8, 11]),
    (8, 'two_stage', 3.0, [0.4] * 2 + [0.0] * 2, [1, 1, 2, 2], [8, 12]),
    (10, 'reversed', 3.0, [0.0] + [0.4] * 2, [1, 1, 1], [8]),
    (12, 'constant', -1.0, [0.4, 0.4], [1, 1], [8]),
  ],
)
def test_a_run_that_had_dropped_may_smooth_again(
  folder, scheduled, tmp_path, stop, schedule, drop, thetas, stages, switches
):
  config, _ = scheduled('two_stage')
  resume_worker.train(config, tmp_path, stop_after=stop)
  schedule = schedule.replace('OWN', f'{folder}/OWN')
  other = changed(
    config, smoothing__schedule=schedule, smoothing__drop_epochs=drop
  )
  loop.train_and_evaluate(other, tmp_path, allow_changed_config=True)
  later = [row for row in rows(tmp_path, 'train') if row['step'] > stop]
  found = [row['theta'] for row in later]
  np.testing.assert_allclose(found, thetas, rtol=1e-6)
  assert [row['stage'] for row in later] == stages
  assert [row['step'] for row in rows(tmp_path, 'switch')] == switches


@pytest.mark.parametrize(
  ('patience', 'most', 'switch'), [(2, -1.0, 4), (3, 2.0, 8)]
)
def test_a_switch_is_of_the_rule_or_of_the_schedule(
  wholes, tmp_path, patience, most, switch
):
  config = changed(
    wholes('max_suppression')[0],
    smoothing__schedule='auto',
    smoothing__rule='mse',
    smoothing__patience=patience,
    smoothing__max_epochs=most,
    smoothing__drop_epochs=-1.0,
  )
  for stop in (6, 10):
    resume_worker.train(config, tmp_path, stop_after=stop)
  loop.train_and_evaluate(config, tmp_path)
  fired = [row['rule_mse'] for row in rows(tmp_path, 'probe')]
  assert fired[:2] == [1, 2]
  thetas = [0.4] * switch + [0.0] * (16 - switch)
  assert_stages(tmp_path, thetas, 2, [switch])


@pytest.mark.parametrize(('drop', 'switch'), [(4, 4), (8, 8), (12, 8)])
def test_a_rule_that_fires_when_the_schedule_has_ended_switches_nothing(
  drop, switch
):
  """The schedule ends at update 8, the probe of update `drop` decides."""
  file = io.StringIO()
  board = types.SimpleNamespace(add_scalar=lambda *args: None)
  progress = types.SimpleNamespace(
    update=lambda *args, stays: None, say=lambda text: None
  )
  steps = durations.Durations(4, 16)
  log = RunLog(file, board)
  reporter = Reporter(log, progress, steps, 8, [], 10, lambda: None)
  for step in (4, 8, 12):
    theta = 0.4 if step <= min(drop, 8) else 0.0
    reporter.chunk(step - 4, step, TrainMetrics(0.5, 0.5, 0.5, theta, 0.1))
    reporter.flush()
    found = dict.fromkeys(('delta', 'theta_star', 'mse_ratio', 'cosine'), 1.0)
    found |= {'delta_error': 0.0, 'dropped': float(step >= drop)}
    probed = types.SimpleNamespace(compute=lambda found=found: found)
    reporter.probe(step, None, lambda state, probed=probed: (state, probed))
  written = list(map(json.loads, file.getvalue().splitlines()))
  switches = [row['step'] for row in written if row['kind'] == 'switch']
  stages = [row['stage'] for row in written if row['kind'] == 'train']
  assert switches == [switch]
  assert stages == [1 if step <= switch else 2 for step in (4, 8, 12)]


def test_rule_optimal_smooths_again_after_a_theta_of_0(wholes, tmp_path):
  """Logged is the best theta, used the nearest one that the method allows."""
  config = changed(
    wholes('max_suppression')[0],
    smoothing__schedule='auto',
    smoothing__rule='optimal',
    smoothing__drop_epochs=-1.0,
    seed=3,
  )
  for stop in (6, None):
    resume_worker.train(config, tmp_path, stop_after=stop)
  probes, train = rows(tmp_path, 'probe'), rows(tmp_path, 'train')
  best = [row['theta_star'] for row in probes[:4]]
  assert max(best[:2]) < 0 < min(best[2:])
  np.testing.assert_allclose(
    [row['theta'] for row in train],
    np.repeat(np.maximum(best, 0), 2),
    rtol=1e-6,
  )
  assert {row['stage'] for row in train} == {1}
  assert not rows(tmp_path, 'switch')


def test_a_teacher_may_come_out_of_a_run_whose_target_learnt(wholes, replayed):
  config, workdir = wholes('online')
  student = changed(config, teacher__run=str(workdir))
  dataset = datasets.load_dataset(config.data)
  variables = load_teacher(student.teacher, dataset, view_of(config)).variables
  digests = manifest.digests(manifest.named(variables))
  saved = faults.arrays(workdir, 16)
  assert set(digests) == {n for n in saved if n.startswith(('pa', 'ba'))}
  assert {name: saved[name] for name in digests} == digests


def test_a_state_that_was_saved_without_a_target_is_read(replayed, tmp_path):
  """By a version that knew of none; and it is no state of a method with one."""
  _, run, states, _ = replayed('online')
  names = [f.name for f in dataclasses.fields(run.state) if f.name != 'target']
  older = {name: jax.device_put(getattr(states[8], name)) for name in names}
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(8, older)
    like = run.state.replace(target=())
    read = checkpoints.restore(like, 8)
    assert read.target == ()
    for name in names:
      assert_close(getattr(read, name), getattr(states[8], name))
    with pytest.raises(InputError, match=r': target/.* is missing there'):
      checkpoints.restore(run.state, 8)


@pytest.mark.slow
@pytest.mark.parametrize('method', ['label_smoothing', *METHODS[:6]])
def test_a_residual_network_resumes_and_forks_to_the_same_bits(
  tmp_path, method
):
  """In a process of its own, with the probe of the last layer."""
  (tmp_path / 'OWN.py').write_text(OWN)
  method = method.replace('OWN', f'{tmp_path}/OWN')
  result = run_worker('resume_worker.py', tmp_path, 'brief', method)
  right = {'differed_before': True, 'equal': True, 'same_rows': True}
  names = 'stopped 10', 'killed after 8', 'forked at 2'
  assert result == dict.fromkeys(names, right)


SWITCHES = ('constant', 'two_stage', 'linear', 'auto')


@pytest.fixture(scope='module')
def digits(folder):
  """The config of a method on the digits, 40 updates an epoch."""
  base = bases.probed(bases.digits())
  base.epochs, base.log_every_steps = 4, 10
  base.checkpoint_keep_epochs = (1, 2)
  base.variance.num_batches = 4

  def of(method, schedule):
    config = base.copy_and_resolve_references()
    if method == 'class_similarity':
      config.teacher.run = str(folder / 'teacher')
      if not (folder / 'teacher').exists():
        plain = adapted(base.copy_and_resolve_references(), folder)
        loop.train_and_evaluate(plain, folder / 'teacher')
    config.smoothing.theta = bases.THETAS[method]
    config.smoothing.method, config.smoothing.schedule = method, schedule
    match schedule:
      case 'two_stage' | 'linear':
        config.smoothing.drop_epochs = 2.0
      case 'auto':
        config.smoothing.rule, config.smoothing.patience = 'mse', 1
        config.smoothing.min_epochs, config.smoothing.max_epochs = 1.0, 3.0
    return adapted(config, folder)

  return of


@pytest.mark.slow
@pytest.mark.parametrize('schedule', SWITCHES)
@pytest.mark.parametrize('method', bases.THETAS)
def test_each_method_under_each_schedule_on_the_digits(
  digits, programs, tmp_path, method, schedule
):
  """It learns, is compiled once, resumes and forks to the same bits."""
  config = digits(method, schedule)
  whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
  programs.clear()  # those of the small set
  assert loop.train_and_evaluate(config, whole)['top1'] > 0.5
  last = faults.rows(whole)[-1]['step']
  switches = [row['step'] for row in rows(whole, 'switch')]
  if schedule == 'auto':
    (switch,) = switches
    assert switch in (last // 4, last // 2, 3 * last // 4)
  else:
    assert switches == ([] if schedule == 'constant' else [last // 2])
  end = switches[0] if switches else last
  for row in rows(whole, 'train'):
    plain = row['loss'] == row['hard_loss']
    assert plain if row['step'] > end else not plain or method == 'margin'
  resume_worker.train(config, stopped, stop_after=last * 3 // 8)
  resume_worker.train(config, stopped)
  branches = [stopped]
  if schedule != 'auto':  # a rule's decisions are its own run's
    trunk = whole
    if schedule == 'two_stage':
      trunk = tmp_path / 'trunk'
      loop.train_and_evaluate(digits(method, 'constant'), trunk)
    branches.append(tmp_path / 'branch')
    fork = changed(config, init__fork_from=f'{trunk}@2')
    loop.train_and_evaluate(fork, branches[-1])
  for branch in branches:
    assert faults.arrays(branch, last) == faults.arrays(whole, last)
    assert rows(branch) == rows(whole)
  sizes = {name: f._cache_size() for (_, name), f in programs.items()}
  # Validation and test set are of two sizes.
  assert sizes == {'chunk': 1, 'evaluate': 2, 'probe': 1}
