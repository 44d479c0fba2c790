"""The training step: theta in the applied update, one compilation."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import small_config, write_digits_npz

import tsla
from tsla.config import durations, tables
from tsla.config.forms import default_config
from tsla.data import augment, batches, datasets
from tsla.models import resnet
from tsla.smoothing.method import UNIFORM
from tsla.training import optimizer, parallel
from tsla.training.build import tables_of, view_of
from tsla.training.step import (
  Batch,
  Examples,
  Fed,
  Inputs,
  TrainState,
  create_state,
  make_batch,
  make_train_chunk,
  train_step,
)

DROP = 3
GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'batches.json'
MODEL = resnet.create('resnet8', num_classes=10, stem='cifar', width=4)


@pytest.fixture(scope='module')
def setting(tmp_path_factory):
  path = tmp_path_factory.mktemp('data') / 'digits.npz'
  config = small_config(write_digits_npz(path))
  config.smoothing.drop_epochs = -1.0
  config.smoothing.drop_steps = DROP
  steps = durations.resolve(config, steps_per_epoch=4)
  state = create_state(
    MODEL, make_optimizer(config, steps)[0], seed=0, image_shape=(8, 8, 1)
  )
  return config, datasets.load_dataset(config.data), state


def make_optimizer(config, steps):
  """The transformation, and the learning rate."""
  schedules = optimizer.Schedules(
    tables.theta_schedule(config.smoothing, steps),
    tables.learning_rate(config.optimizer, steps),
  )
  tx = optimizer.create(config.optimizer, schedules)
  return tx, schedules.learning_rate


def update_of(config, model):
  tx, rate = make_optimizer(config, durations.resolve(config, 4))
  return jax.jit(
    lambda state, batch: train_step(state, batch, model.apply, tx, rate)
  )


def chunk_of(config, axis_name=None):
  return make_train_chunk(
    MODEL.clone(axis_name=axis_name).apply,
    functools.partial(optimizer.create, config.optimizer),
    view_of(config),
    *(tsla.smoothed_cross_entropy, UNIFORM),
    batch_size=config.batch_size,
    axis_name=axis_name,
  )


def run_inputs(config, dataset):
  return Inputs(
    Examples(dataset.train.images, dataset.train.labels),
    np.uint32(config.seed),
    tables_of(config, durations.resolve(config, steps_per_epoch=4)),
  )


def float_batch(dataset):
  images = (dataset.train.images[:16] / 255 - 0.5) / 0.5
  return Batch(
    jnp.asarray(images, jnp.float32), jnp.asarray(dataset.train.labels[:16])
  )


def reference_run(config, state, batch, thetas):
  """The same updates from optax's own pieces, theta a Python number."""
  tx = optax.chain(
    optax.add_decayed_weights(config.optimizer.weight_decay),
    optax.trace(config.optimizer.momentum),
    optax.scale(-config.optimizer.learning_rate),
  )
  params, stats = state.params, state.batch_stats
  opt_state, path = tx.init(params), []

  @jax.jit
  def gradient(params, stats, theta):
    def loss_fn(params):
      logits, new = MODEL.apply(
        {'params': params, 'batch_stats': stats},
        batch.images,
        train=True,
        mutable=['batch_stats'],
      )
      target = optax.smooth_labels(jax.nn.one_hot(batch.labels, 10), theta)
      loss = optax.softmax_cross_entropy(logits, target).mean()
      return loss, new['batch_stats']

    return jax.grad(loss_fn, has_aux=True)(params)

  for theta in thetas:
    grads, stats = gradient(params, stats, theta)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    path.append(params)
  return path


def distance(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return max(float(jnp.abs(x - y).max()) for x, y in pairs)


def test_the_applied_update_uses_theta_until_drop_step_exactly(setting):
  config, dataset, state = setting
  batch = float_batch(dataset)
  right = reference_run(config, state, batch, [0.4] * DROP + [0.0] * 2)
  early = reference_run(config, state, batch, [0.4] * (DROP - 1) + [0.0] * 3)
  late = reference_run(config, state, batch, [0.4] * (DROP + 1) + [0.0])
  step = update_of(config, MODEL)
  path, thetas = [], []
  for _ in range(DROP + 2):
    state, row = step(state, batch)
    path.append(state.params)
    thetas.append(float(row.compute()['theta']))
  np.testing.assert_allclose(thetas, [0.4] * DROP + [0.0] * 2, rtol=1e-6)
  for i, params in enumerate(path):
    assert distance(params, right[i]) < 1e-5, i
  # The check can tell: one update earlier or later is far outside.
  assert distance(path[DROP - 1], early[DROP - 1]) > 1e-3
  assert distance(path[DROP], late[DROP]) > 1e-3


@pytest.mark.parametrize('mode', ['pmap', 'jit'])
def test_one_compilation_across_the_switch(setting, mode):
  config, dataset, state = setting
  devices = parallel.Devices(
    mode, jax.sharding.Mesh(np.asarray(jax.devices()[:1]), 'batch')
  )
  chunk = devices.map(chunk_of(config, devices.axis_name), donate_state=True)
  inputs = devices.replicate(run_inputs(config, dataset))
  state = devices.replicate(jax.tree.map(np.asarray, state))
  slots = devices.slots(config.batch_size)
  compilations, rows = [], []

  def count(event, seconds, **kwargs):
    del seconds, kwargs
    if event == '/jax/core/compile/backend_compile_duration':
      compilations[-1] += 1

  jax.monitoring.register_event_duration_secs_listener(count)
  for _ in range(3):
    compilations.append(0)
    state, row = chunk(state, inputs, slots, 2)
    rows.append(jax.block_until_ready(row))
  jax.monitoring.clear_event_listeners()
  stages = [float(row.compute()['theta']) > 0 for row in rows]
  assert stages == [True, False, False]  # the switch is inside chunk two
  assert compilations == [1, 0, 0]


def test_a_chunk_is_its_updates_one_by_one(setting):
  config, dataset, state = setting
  devices = parallel.choose('jit', config.batch_size)
  chunk = devices.map(chunk_of(config))
  inputs = devices.replicate(run_inputs(config, dataset))
  slots = devices.slots(config.batch_size)
  state = devices.replicate(state)
  at_once, row = chunk(state, inputs, slots, 4)
  rows, one_by_one = [], state
  for _ in range(4):
    one_by_one, single = chunk(one_by_one, inputs, slots, 1)
    rows.append(single.compute())
  assert distance(at_once.params, one_by_one.params) < 1e-5
  found = row.compute()
  means = ('loss', 'hard_loss', 'accuracy')
  expected = {name: np.mean([row[name] for row in rows]) for name in means}
  expected |= {'theta': 0}
  expected['learning_rate'] = 0.1
  assert found == pytest.approx(expected, rel=1e-5)


def test_bfloat16_keeps_parameters_statistics_and_loss_in_float32(setting):
  config, dataset, state = setting
  model = resnet.create(
    'resnet8', num_classes=10, stem='cifar', width=4, dtype=jnp.bfloat16
  )
  state, row = update_of(config, model)(state, float_batch(dataset))
  leaves = jax.tree.leaves((state.params, state.batch_stats))
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype('float32')}
  assert row.loss.dtype == jnp.float32


@pytest.mark.parametrize('fed', [True, False])
def test_a_batch_has_windows_of_random_area_by_its_images_own_aspects(fed):
  """Each is the image of its index alone, under that one's aspect."""
  config = default_config()
  config.augment.crop, config.augment.crop_area = 5, 0.08
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (9, 7, 7, 3), np.uint8)
  aspects = rng.uniform(0.3, 3, 9).astype(np.float32)
  labels, picked = jnp.arange(9), jnp.array([7, 2, 8, 2])
  examples = Examples(None if fed else images, labels, aspects)
  examples = jax.tree.map(jnp.asarray, examples)
  given = Fed(picked, jnp.asarray(images[picked]) if fed else None)
  inputs = Inputs(examples, jnp.uint32(5), ())
  state = TrainState(jnp.int32(0), {}, {}, ())
  batch = make_batch(view_of(config), UNIFORM, state, inputs, given, 3)
  for place, index in enumerate(picked.tolist()):
    key = augment.example_keys(5, 3, jnp.array([index]))[0]
    window = augment.area_window(
      jax.random.split(key)[0], jnp.float32(aspects[index]), 0.08
    )
    seen = augment.resized_window(jnp.asarray(images[index]), *window, (5, 5))
    np.testing.assert_allclose(
      batch.images[place], (np.asarray(seen) / 255 - 0.5) / 0.5, atol=1e-2
    )
  assert batch.labels.tolist() == picked.tolist()


def test_a_run_sees_the_examples_on_record_in_its_updates_and_rows():
  """Two epochs of two seeds; the network remembers its images.

  Its logits are its ten weights whatever it sees, so the rows are of the labels
  alone; the label of an example is its index, and its ŷ the next class.
  """
  config = default_config()
  config.epochs, config.batch_size = 2, 4
  config.augment.pad, config.augment.flip = 1, True
  config.smoothing.schedule, config.smoothing.theta = 'two_stage', 0.4
  config.smoothing.drop_epochs = 1.0
  steps = durations.resolve(config, steps_per_epoch=2)

  def remember(variables, images, train, mutable):
    logits = jnp.broadcast_to(variables['params'], (4, 10))
    return logits, {'batch_stats': {'images': images}}

  def next_class(arrays, state, seen):
    taught = jax.nn.one_hot((seen.indices + 1) % 10, 10)
    # Labels and indices are of the same examples, in the same order.
    return jnp.where((seen.indices == seen.labels)[:, None], taught, jnp.nan)

  chunk = jax.jit(
    make_train_chunk(
      remember,
      functools.partial(optimizer.create, config.optimizer),
      *(view_of(config), tsla.smoothed_cross_entropy, tsla.Target(next_class)),
      batch_size=4,
    ),
    static_argnums=3,
  )

  images = np.arange(1, 61, dtype=np.uint8).reshape(10, 2, 3, 1)
  examples = Examples(jnp.asarray(images), jnp.arange(10))
  tables = tables_of(config, steps)
  weights = jnp.linspace(-2, 2, 10)
  start = TrainState(
    *(jnp.int32(0), weights, {'images': jnp.zeros((4, 2, 3, 1))}),
    make_optimizer(config, steps)[0].init(weights),
  )
  for golden in json.loads(GOLDEN.read_text()):
    if golden['step'] == 0:
      state = start
    w = np.asarray(state.params, np.float64)
    inputs = Inputs(examples, jnp.uint32(golden['seed']), tables)
    state, row = chunk(state, inputs, jnp.arange(4), 1)
    seen = np.asarray(state.batch_stats['images'])[..., 0] * 127.5 + 127.5
    np.testing.assert_allclose(seen, golden['images'], atol=1e-3)
    labels = np.array(golden['indices'])
    log_p = w - np.log(np.exp(w).sum())
    hard, taught = -log_p[labels].mean(), -log_p[(labels + 1) % 10].mean()
    theta = 0.4 if golden['step'] < 2 else 0.0
    expected = {
      'loss': (1 - theta) * hard + theta * taught,
      'hard_loss': hard,
      'accuracy': (labels == w.argmax()).mean(),
      'theta': theta,
    }
    row = row.compute()
    for name, value in expected.items():
      np.testing.assert_allclose(row[name], value, rtol=1e-5, err_msg=name)


def test_online_s_state_is_numpys_over_two_epochs():
  """The network's logits are its weights, a row an example's index modulo 4."""
  rng = np.random.default_rng(0)
  weights = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
  labels = np.array([0, 1, 0, 1, 0, 1, 1, 1], np.int32)  # none of class 2
  images = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)

  def apply(variables, images, train, mutable):
    places = jnp.round(images[:, 0, 0, 0] * 255).astype(jnp.int32) % 4
    return variables['params'][places], {}

  config = default_config()
  config.epochs, config.batch_size = 3, 2
  config.data.mean, config.data.std = (0.0,), (1.0,)
  config.smoothing.schedule, config.smoothing.theta = 'constant', 0.5
  steps = durations.resolve(config, steps_per_epoch=4)
  target = tsla.METHODS['online']().target(tsla.Task(3, 8, labels))
  chunk = jax.jit(
    make_train_chunk(
      apply,
      functools.partial(optimizer.create, config.optimizer),
      *(view_of(config), tsla.smoothed_cross_entropy, target),
      batch_size=2,
    ),
    static_argnums=3,
  )
  inputs = Inputs(
    Examples(jnp.asarray(images), jnp.asarray(labels)),
    np.uint32(3),
    tables_of(config, steps),
  )
  tx, _ = make_optimizer(config, steps)
  start = TrainState(jnp.int32(0), weights, {}, tx.init(weights), target.state)
  state, y_hat = start, np.full((3, 3), 1 / 3)
  for epoch in range(3):
    order = np.asarray(batches.epoch_order(3, epoch, 8))
    sums, counts = np.zeros((3, 3)), np.zeros(3)
    for step in range(4):
      z = np.asarray(state.params, np.float64)
      for place in order[2 * step : 2 * step + 2]:
        p = np.exp(z[place % 4]) / np.exp(z[place % 4]).sum()
        if p.argmax() == labels[place]:
          sums[labels[place]] += p
          counts[labels[place]] += 1
      state, row = chunk(state, inputs, jnp.arange(2), 1)
      p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
      losses = [
        -(0.5 * np.eye(3)[y] + 0.5 * y_hat[y]) @ np.log(p[place % 4])
        for place in order[2 * step : 2 * step + 2]
        for y in [labels[place]]
      ]
      assert float(row.loss[0]) == pytest.approx(np.mean(losses), rel=1e-5)
      if step < 3:
        np.testing.assert_allclose(state.target.sums, sums, atol=1e-6)
        np.testing.assert_array_equal(state.target.counts, counts)
    met = counts[:, None] > 0
    assert met.any() and not met.all()
    y_hat = np.where(met, sums / np.maximum(counts[:, None], 1), 1 / 3)
    np.testing.assert_allclose(state.target.y_hat, y_hat, atol=1e-6)
    assert not np.asarray(state.target.sums).any()
  # However the updates are cut into calls.
  at_once = start
  for _ in range(3):
    at_once, _ = chunk(at_once, inputs, jnp.arange(2), 4)
  for one, other in zip(
    jax.tree.leaves(at_once), jax.tree.leaves(state), strict=True
  ):
    np.testing.assert_array_equal(one, other)
