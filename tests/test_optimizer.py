"""The classical updates, against PyTorch's own numbers."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tsla
from tsla.config import tables
from tsla.config.durations import Durations
from tsla.config.forms import default_config
from tsla.training import optimizer

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'torch_training.json'


def durations(**changes):
  total = changes.pop('total_steps', 10)
  steps = {name.replace('__', '.'): step for name, step in changes.items()}
  return Durations(steps_per_epoch=1, total_steps=total, steps=steps)


def create(config, steps):
  schedules = optimizer.Schedules(
    tables.theta_schedule(config.smoothing, steps),
    tables.learning_rate(config.optimizer, steps),
  )
  reset = config.smoothing.reset_momentum
  tx = optimizer.create(config.optimizer, schedules, reset_momentum=reset)
  return tx, schedules.learning_rate


@pytest.mark.parametrize('form', ['momentum', 'nesterov'])
def test_sgd_step_schedule_and_smoothed_loss_are_pytorch_s_in_float64(form):
  golden = json.loads(GOLDEN.read_text())
  config = default_config()
  config.smoothing.schedule = 'constant'
  config.smoothing.theta = 0.1
  config.optimizer.weight_decay = 5e-4
  config.optimizer.nesterov = form == 'nesterov'
  config.optimizer.schedule = 'step'
  config.optimizer.decay_factor = 0.2
  with jax.enable_x64(True):
    tx, rate = create(config, durations(optimizer__milestone=(3, 6)))
    params = jax.tree.map(jnp.asarray, dict(golden['start']), is_leaf=is_list)
    state = tx.init(params)
    for step, expected in enumerate(golden['runs'][form]):
      x, y = (jnp.asarray(golden[name][step]) for name in 'xy')

      def loss_fn(params, x=x, y=y):
        logits = x @ params['weight'].T + params['bias']
        # theta is stored as float32; the nearest float64 of 0.1 is meant.
        return tsla.smoothed_cross_entropy(logits, y, 0.1).mean()

      loss, grads = jax.value_and_grad(loss_fn)(params)
      updates, state = tx.update(grads, state, params)
      params = optax.apply_updates(params, updates)
      np.testing.assert_allclose(loss, expected['loss'], rtol=1e-12)
      np.testing.assert_allclose(rate(step), expected['learning_rate'], 1e-12)
      for name in ('weight', 'bias'):
        np.testing.assert_allclose(params[name], expected[name], rtol=1e-10)


def is_list(value):
  return isinstance(value, list)


def test_cosine_ends_at_zero_and_warmup_rises_to_it_linearly():
  config = default_config()
  config.optimizer.schedule = 'cosine'
  config.optimizer.learning_rate = 0.5
  rate = tables.learning_rate(
    config.optimizer, durations(total_steps=100, optimizer__warmup=(4,))
  )
  steps = np.arange(101)
  expected = 0.25 * (1 + np.cos(np.pi * steps / 100))
  expected *= np.minimum(1, (steps + 1) / 4)
  np.testing.assert_allclose(jax.vmap(rate)(steps), expected, atol=1e-7)


@pytest.mark.parametrize('name', ['sgd', 'adamw', 'lamb'])
def test_every_base_optimiser_carries_theta_and_descends(name):
  config = default_config()
  config.optimizer.name = name
  config.optimizer.learning_rate = 0.01
  config.smoothing.schedule = 'two_stage'
  config.smoothing.theta = 0.4
  tx, _ = create(config, durations(smoothing__drop=(2,)))
  params, thetas = {'w': jnp.ones(3)}, []
  state = tx.init(params)
  for _ in range(4):
    thetas.append(float(tsla.current_theta(state)))
    updates, state = tx.update({'w': params['w']}, state, params)
    params = optax.apply_updates(params, updates)
  np.testing.assert_allclose(thetas, [0.4, 0.4, 0, 0], rtol=1e-7)
  assert float(jnp.abs(params['w']).max()) < 1


@pytest.mark.parametrize('name', ['adamw', 'lamb'])
def test_the_first_update_of_adamw_and_lamb_decays_as_configured(name):
  """By hand: both moments are unbiased then, m = g and v = g²."""
  config = default_config()
  config.optimizer.name, config.optimizer.learning_rate = name, 0.1
  config.optimizer.weight_decay = 0.5
  w, g = np.array([3.0, -1.0, 2.0]), np.array([0.2, 0.01, -4.0])
  direction = g / (abs(g) + (1e-8 if name == 'adamw' else 1e-6)) + 0.5 * w
  if name == 'lamb':  # of as many parameters, as one layer
    direction *= np.linalg.norm(w) / np.linalg.norm(direction)
  with jax.enable_x64(True):
    tx, _ = create(config, durations())
    update, _ = jax.jit(lambda g, w: tx.update(g, tx.init(w), w))(g, w)
    np.testing.assert_allclose(update, -0.1 * direction, rtol=1e-7)


@pytest.mark.parametrize(
  ('schedule', 'expected'),
  [
    ('none', [0, 0, 0, 0, 0]),
    ('constant', [0.4, 0.4, 0.4, 0.4, 0.4]),
    ('two_stage', [0.4, 0.4, 0.4, 0.4, 0]),
    ('linear', [0.4, 0.3, 0.2, 0.1, 0]),
    ('cosine', list(0.2 * (1 + np.cos(np.pi * np.arange(5) / 4)))),
    ('reversed', [0, 0, 0, 0, 0.4]),
    ('rising', [0, 0.04, 0.08, 0.12, 0.16]),  # of 10 updates
    ('ramp', [0.4, 0.38, 0.36, 0.34, 0.32]),  # to 0.2
    ('auto', [0.4, 0.4, 0.4, 0, 0]),  # until a rule decides, at the longest
  ],
)
def test_config_names_the_smoothing_schedule(schedule, expected):
  config = default_config()
  config.smoothing.schedule = schedule
  config.smoothing.theta = 0.4
  theta = tables.theta_schedule(
    config.smoothing, durations(smoothing__drop=(4,), smoothing__max=(3,))
  )
  np.testing.assert_allclose([theta(i) for i in range(5)], expected, atol=1e-7)


def test_the_momentum_of_a_run_is_reset_where_its_config_says_so():
  """SGD with momentum 0.5 on a constant gradient of 1, in NumPy."""
  config = default_config()
  config.optimizer.learning_rate, config.optimizer.momentum = 1.0, 0.5
  config.smoothing.schedule, config.smoothing.theta = 'two_stage', 0.4
  for reset, expected in ((False, [1, 1.5, 1.75]), (True, [1, 1.5, 1])):
    config.smoothing.reset_momentum = reset
    tx, _ = create(config, durations(smoothing__drop=(2,)))
    params, moved = jnp.zeros(()), []
    state = tx.init(params)
    for _ in range(3):
      update, state = tx.update(jnp.ones(()), state, params)
      moved.append(-float(update))
    np.testing.assert_allclose(moved, expected, rtol=1e-6)
