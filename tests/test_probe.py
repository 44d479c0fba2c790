"""The probe in training: its numbers, its rows, what it leaves alone."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from digits_mlp import exact
from support import small_config, write_digits_npz

import tsla
from tsla.config import durations
from tsla.config.checks import validate
from tsla.data import batches, datasets
from tsla.errors import InputError
from tsla.models import create_configured
from tsla.smoothing import auto, rules
from tsla.training import loop, parallel, probe
from tsla.training.build import build, check_fits

THETA, SIZE, COUNT = 0.4, 16, 64


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """LSR(0.4), probed each epoch on all of 64 digits: four mini-batches."""
  folder = tmp_path_factory.mktemp('data')
  config = small_config(write_digits_npz(folder / 'digits.npz'))
  config.smoothing.schedule = 'constant'
  config.smoothing.drop_epochs = -1.0
  config.optimizer.learning_rate = 0.05
  config.variance.every_epochs = 1
  config.variance.num_batches = 4
  config.variance.augment = False
  return config


def changed(config, **fields):
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in fields.items()}
  )
  return config


def built(config):
  validate(config)
  return build(
    config,
    datasets.load_dataset(config.data),
    durations.resolve(config, steps_per_epoch=4),
    parallel.choose('jit', config.batch_size),
  )


def probed(config):
  """Some state, before and after a probe; what it found; the run."""
  run = built(config)
  rng = np.random.default_rng(0)

  def nudge(leaf):
    return np.asarray(leaf + 0.2 * rng.random(leaf.shape), np.float32)

  before = run.state.replace(
    params=jax.tree.map(nudge, run.state.params),
    batch_stats=jax.tree.map(nudge, run.state.batch_stats),
  )
  before = jax.tree.map(np.array, before)
  placed = jax.tree.map(
    lambda leaf, like: jax.device_put(leaf, like.sharding), before, run.state
  )
  after, found = run.probe(placed)
  return before, jax.tree.map(np.array, after), found.compute(), run


@pytest.fixture(scope='module')
def gradients(config):
  """f64[N, P] of that state by target, by optax; the last layer comes last."""
  run, dataset = built(config), datasets.load_dataset(config.data)
  rng = np.random.default_rng(0)
  params, stats = (
    jax.tree.map(lambda x: np.asarray(x + 0.2 * rng.random(x.shape)), part)
    for part in (run.state.params, run.state.batch_stats)
  )
  images = (dataset.train.images / 255 - 0.5) / 0.5
  apply = create_configured(config.model, 10).apply

  def loss(params, image, target, strength):
    variables = {'params': params, 'batch_stats': stats}
    (logits,) = apply(variables, image[None], train=False)
    hard = optax.softmax_cross_entropy(logits, target)
    return hard + strength * (jnp.sort(logits)[-1] - logits.mean())

  gradient = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0, None)))

  def flat(targets, strength=0.0):
    targets = np.broadcast_to(targets, (COUNT, 10))
    images32, targets = jnp.float32(images), jnp.float32(targets)
    tree = gradient(params, images32, targets, strength)
    last = tree.pop('fc')
    leaves = [*jax.tree.leaves(tree), *jax.tree.leaves(last)]
    return np.concatenate(
      [np.reshape(x, (COUNT, -1)).astype(float) for x in leaves], 1
    )

  labels = dataset.train.labels
  return {
    'true': flat(np.eye(10)[labels]),
    'uniform': flat(np.full(10, 0.1)),
    'prior': flat(np.bincount(labels, minlength=10) / COUNT),
    'max_suppression': flat(np.eye(10)[labels], strength=1.0),
    'last': params['fc']['kernel'].size + 10,
  }


def of_batches(g, h, seed):
  """σ², V, ρ from the four mini-batches' means, by the plain formulas."""
  order = np.asarray(batches.epoch_order(seed, 2**31 - 1, COUNT))
  g, h = (x[order].reshape(4, SIZE, -1).mean(1) for x in (g, h))
  g, h = g - g.mean(0), h - h.mean(0)
  scale = (1 - SIZE / COUNT) / 3
  return {
    'sigma2': scale * (g * g).sum(),
    'smoothing_variance': scale * (h * h).sum(),
    'rho': scale * (g * h).sum(),
  }


@pytest.mark.parametrize(
  ('kind', 'theta'),
  [
    ('uniform', THETA),
    pytest.param('prior', 0.0, marks=pytest.mark.ci),
    pytest.param('max_suppression', 1.5, marks=pytest.mark.ci),
  ],
)
def test_a_row_is_what_per_example_gradients_say(
  config, gradients, kind, theta
):
  """Of a run without smoothing too: its target is measured all the same."""
  field = 'method' if kind in tsla.METHODS else 'target'
  config = changed(
    config,
    **{f'smoothing__{field}': kind},
    smoothing__theta=theta,
    smoothing__schedule='constant' if theta else 'none',
  )
  state, after, row, _ = probed(config)
  g, h = gradients['true'], gradients[kind]
  for name, expected in of_batches(g, h, seed=0).items():
    assert row[name] == pytest.approx(expected, rel=1e-3), name
  # All of the set is in the mini-batches, so the means are exact.
  truth = exact(g, h, theta, batch_size=SIZE, distinct=True)
  for name in ('bias2', 'grad_norm2', 'smoothed_grad_norm2', 'cosine'):
    assert row[name] == pytest.approx(truth[name], rel=1e-3), name
  for name in ('sigma2', 'rho', 'delta', 'theta_star', 'mse_ratio'):
    if name == 'delta' and field == 'method':  # at θ = 1 of another R: of no
      names = (name, 'theta_paper', f'{name}_error')  # meaning
      assert all(np.isnan(row[name]) for name in names)
      assert row['rule_delta'] == 0
      continue
    assert abs(row[name] - truth[name]) <= 4 * row[f'{name}_error'], name
  assert row['theta'] == np.float32(theta)
  if not theta:
    assert row['mse_ratio'] == 1
  # At fixed weights, BatchNorm's included.
  for part in ('params', 'batch_stats', 'step'):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(state, part), getattr(after, part)
    )


def test_the_last_layer_mode_is_the_last_layers_gradient(config, gradients):
  _, _, row, _ = probed(changed(config, variance__mode='last_layer'))
  last = gradients['last']
  g, h = gradients['true'][:, -last:], gradients['uniform'][:, -last:]
  # All of the population is there: every variance is exact as well.
  truth = exact(g, h, THETA, batch_size=SIZE, distinct=True)
  for name in ('sigma2', 'smoothing_variance', 'rho', 'bias2', 'grad_norm'):
    assert row[name] == pytest.approx(truth[name], rel=1e-3), name


@pytest.mark.ci
def test_augmentation_is_by_config_and_the_same_each_time(config, gradients):
  config = changed(config, variance__augment=True, variance__mode='last_layer')
  _, after, first, run = probed(config)
  after = jax.tree.map(
    lambda leaf, like: jax.device_put(leaf, like.sharding), after, run.state
  )
  _, again = run.probe(after)
  assert first['sigma2'] == again.compute()['sigma2']
  last = gradients['last']
  g, h = gradients['true'][:, -last:], gradients['uniform'][:, -last:]
  plain = exact(g, h, THETA, batch_size=SIZE, distinct=True)['sigma2']
  assert first['sigma2'] != pytest.approx(plain, rel=1e-2)


def test_off_there_is_no_probe_and_nothing_of_it_in_the_state(config):
  run = built(changed(config, variance__every_epochs=0))
  assert run.probe is None
  with pytest.raises(ValueError, match='0 AutoStates'):
    auto.auto_state(run.state.opt_state)


def rows(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture(scope='module')
def automatic(config, tmp_path_factory):
  """A run whose rule always fires: the held-out loss rises at such a rate."""
  config = changed(
    config,
    epochs=4,
    batch_size=8,
    data__validation=0.2,
    data__label_noise=0.5,
    optimizer__learning_rate=1e-6,
    smoothing__schedule='auto',
    smoothing__rule='plateau',
    smoothing__patience=1,
    smoothing__min_epochs=2.0,
    variance__mode='last_layer',
  )
  workdir = tmp_path_factory.mktemp('run')
  loop.train_and_evaluate(config, workdir)
  return config, rows(workdir)


@pytest.mark.ci
def test_a_run_logs_a_probe_an_epoch_and_what_every_rule_says(automatic):
  _, log = automatic
  probes = [row for row in log if row['kind'] == 'probe']
  assert [row['step'] for row in probes] == [0, 6, 12, 18, 24]
  for index, row in enumerate(probes):
    assert {f'rule_{name}' for name in rules.RULES} < set(row)
    assert row['delta_error'] > 0
    assert row['held_out_loss'] > 0
    assert (row['seconds'] is None) == (index == 0)


def test_the_rule_in_force_ends_smoothing_where_it_first_may(automatic):
  _, log = automatic
  losses = [row['held_out_loss'] for row in log if row['kind'] == 'probe']
  fires = [
    index > 0 and loss >= min(losses[:index])
    for index, loss in enumerate(losses)
  ]
  # Nothing is learnt, so the loss rises or falls by chance of BatchNorm.
  said = [row['rule_plateau'] > 0 for row in log if row['kind'] == 'probe']
  assert said == fires
  drop = next((6 * i for i, f in enumerate(fires) if f and i >= 2), None)
  assert drop is not None, losses
  assert [row['step'] for row in log if row['kind'] == 'switch'] == [drop]
  for row in log:
    if row['kind'] == 'train':
      assert (row['theta'] > 0) == (row['step'] <= drop)
      assert row['stage'] == (1 if row['step'] <= drop else 2)


def test_the_mapping_says_which_rule_and_when(config):
  steps = durations.resolve(
    changed(
      config,
      smoothing__schedule='auto',
      smoothing__rule='floor',
      smoothing__min_epochs=1.0,
      smoothing__max_epochs=3.0,
    ),
    steps_per_epoch=4,
  )
  assert (steps.at('smoothing.min'), steps.at('smoothing.max')) == (4, 12)
  method = tsla.METHODS['online']()
  named = functools.partial(
    probe.decision, rules=rules.RULES, method=method, min_step=4, patience=3
  )
  assert [*map(float, named('floor').values())] == [2, 4, 3, 0, 1]
  assert [int(named(rule)['rule']) for rule in ('', 'optimal')] == [-1, 4]


AUTO = {'smoothing.schedule': 'auto', 'smoothing.rule': 'delta'}


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'smoothing.schedule': 'auto'}, r"rule is not set, .* = 'auto' needs it"),
    (AUTO | {'variance.every_epochs': 0}, r'(?s)every_epochs is .*epochs=1'),
    (
      AUTO | {'smoothing.rule': 'plateau'},
      r'(?s)validation is .*validation=0.1',
    ),
    (
      AUTO | {'smoothing.method': 'max_suppression'},
      r"(?s)rule = 'delta' with max_suppression.*smoothing.rule=mse",
    ),
    (AUTO | {'smoothing.theta': -0.1}, r'(?s)theta = -0.1.*rule=mse'),
    (AUTO | {'init.fork_from': 'run@1'}, r'decisions are not'),
    (AUTO | {'smoothing.min_epochs': 3.0, 'smoothing.max_epochs': 3.0}, 'min_'),
    (AUTO | {'smoothing.max_epochs': 0.0}, 'nothing could be decided'),
    (AUTO | {'smoothing.max_epochs': 4.0}, 'at or after the end'),
    ({'variance.num_batches': 2}, 'num_batches = 2'),
    ({'variance.num_batches': 5}, '3 to 4'),
    ({'batch_size': 32, 'variance.num_batches': 3}, 'of a third'),
  ],
)
def test_what_cannot_be_probed_or_decided_is_explained(config, fields, message):
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(fields)
  with pytest.raises(InputError, match=message) as error:
    validate(config)
    check_fits(config, datasets.load_dataset(config.data), memory=None)
  assert len(str(error.value).splitlines()) <= 3
