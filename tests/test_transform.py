"""The contract of label_smoothing: who owns θ, and what moves it on."""

import functools
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tsla

THETA, DROP = 0.3, 3
SCHEDULE = tsla.two_stage(THETA, DROP)
EXPECTED = np.array([THETA] * DROP + [0.0] * 3, np.float32)  # per update
PARAMS = {'w': jnp.ones((2, 3)), 'b': jnp.zeros(3, jnp.bfloat16)}


def random_like(tree, seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), tree
  )


def assert_trees_close(found, expected, **tolerance):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for f, e in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(
      np.asarray(f, np.float64), np.asarray(e, np.float64), **tolerance
    )


def thetas_read(tx, steps):
  """θ that a training step would read before each update, under jit."""
  update = jax.jit(tx.update)
  grads = random_like(PARAMS, 0)
  state, thetas = tx.init(PARAMS), []
  for _ in range(steps):
    thetas.append(float(tsla.current_theta(state)))
    _, state = update(grads, state, PARAMS)
  return np.array(thetas, np.float32), state


def test_theta_is_for_the_next_gradient_and_zero_from_the_drop_step_on():
  tx = tsla.label_smoothing(SCHEDULE)
  g, h = random_like(PARAMS, 1), random_like(PARAMS, 2)
  state = tx.init(PARAMS)
  for step, theta in enumerate(EXPECTED):
    assert isinstance(state, tsla.LabelSmoothingState)
    assert (int(state.count), float(state.theta)) == (step, theta)
    updates, state = tx.update(g, state, PARAMS, smoothing_updates=h)
    w = (1 - theta) * np.float64(g['w']) + theta * np.float64(h['w'])
    np.testing.assert_allclose(updates['w'], w, rtol=1e-6, atol=1e-7)
    if theta == 0:
      np.testing.assert_array_equal(updates['w'], g['w'])
      np.testing.assert_array_equal(updates['b'], g['b'])


def test_shapes_and_dtypes_are_kept():
  tx = tsla.label_smoothing(SCHEDULE)
  g, h = random_like(PARAMS, 1), random_like(PARAMS, 2)
  state = tx.init(PARAMS)
  updates, new_state = tx.update(g, state, smoothing_updates=h)
  assert updates['b'].dtype == jnp.bfloat16
  # One rounding to bf16 at the end, not one per operation.
  exact = (1 - np.float32(THETA)) * np.float32(g['b'])
  exact += np.float32(THETA) * np.float32(h['b'])
  np.testing.assert_array_equal(updates['b'], exact.astype(jnp.bfloat16))
  for s in (state, new_state):
    assert (s.count.shape, s.count.dtype) == ((), jnp.int32)
    assert (s.theta.shape, s.theta.dtype) == ((), jnp.float32)
    assert not (s.count.weak_type or s.theta.weak_type)


def test_without_smoothing_updates_the_updates_pass_untouched():
  tx = tsla.label_smoothing(SCHEDULE)
  g = random_like(PARAMS, 1)
  updates, state = tx.update(g, tx.init(PARAMS), value=1.0, unknown='x')
  assert updates is g
  assert int(state.count) == 1


def test_the_counter_stops_at_its_largest_value():
  tx = tsla.label_smoothing(SCHEDULE)
  last = tsla.LabelSmoothingState(jnp.int32(2**31 - 1), jnp.float32(0))
  _, state = tx.update(PARAMS, last)
  assert (int(state.count), float(state.theta)) == (2**31 - 1, 0)


@pytest.mark.parametrize(
  'schedule',
  [SCHEDULE, tsla.linear_decay(0.3, 3), optax.constant_schedule(0.3)],
)
def test_one_compilation_serves_both_stages(schedule):
  tx = optax.chain(tsla.label_smoothing(schedule), optax.sgd(0.1, momentum=0.9))

  @jax.jit
  def step(params, state):
    theta = tsla.current_theta(state)
    grads = jax.tree.map(lambda p: p * (1 - theta).astype(p.dtype), params)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  params, state = PARAMS, tx.init(PARAMS)
  for _ in range(2 * DROP):
    params, state = step(params, state)
  assert step._cache_size() == 1


def network(params, x):
  return jnp.tanh(x @ params['w1'] + params['b1']) @ params['w2']


def network_problem():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(32, 5)), jnp.float32)
  labels = jnp.asarray(rng.integers(4, size=32))
  shapes = {'w1': (5, 8), 'b1': (8,), 'w2': (8, 4)}
  params = {
    k: jnp.asarray(0.5 * rng.normal(size=s), jnp.float32)
    for k, s in shapes.items()
  }
  y_hat = jnp.asarray(rng.dirichlet(np.ones(4), size=32), jnp.float32)
  return x, labels, params, y_hat


def test_mixing_gradients_equals_smoothing_the_loss():
  x, labels, params, y_hat = network_problem()
  tx = optax.chain(tsla.label_smoothing(SCHEDULE), optax.sgd(0.1, momentum=0.9))

  @jax.jit
  def by_loss(params, state):
    theta = tsla.current_theta(state)
    grads = jax.grad(
      lambda p: tsla.smoothed_cross_entropy(
        network(p, x), labels, theta, y_hat
      ).mean()
    )(params)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  @jax.jit
  def by_mixing(params, state):
    gradient = jax.grad(
      lambda p, y: optax.softmax_cross_entropy(network(p, x), y).mean()
    )
    g, h = gradient(params, jax.nn.one_hot(labels, 4)), gradient(params, y_hat)
    updates, state = tx.update(g, state, params, smoothing_updates=h)
    return optax.apply_updates(params, updates), state

  a, b = (params, tx.init(params)), (params, tx.init(params))
  for theta in EXPECTED:
    assert float(tsla.current_theta(a[1])) == theta
    a, b = by_loss(*a), by_mixing(*b)
    assert_trees_close(a, b, atol=1e-6)
  moved = np.abs(np.asarray(a[0]['w2'] - params['w2'])).max()
  assert moved > 1e-2


def test_smoothing_updates_of_another_shape_are_refused():
  tx = tsla.label_smoothing(SCHEDULE)
  state = tx.init(jnp.zeros((2, 3)))
  with pytest.raises(ValueError, match=r'shape \(3,\) for updates of \(2, 3\)'):
    tx.update(jnp.zeros((2, 3)), state, smoothing_updates=jnp.zeros(3))


@pytest.mark.parametrize(
  'name', ['smoothing_update', 'smoothing_grads', 'smothing_updates']
)
def test_a_misspelt_argument_is_refused_and_others_pass(name):
  tx = optax.chain(tsla.label_smoothing(SCHEDULE), optax.sgd(1.0))
  g = jnp.ones(3)
  with pytest.raises(TypeError, match=f'{name} is not .* smoothing_updates is'):
    tx.update(g, tx.init(g), g, **{name: g})
  others = {'value': 1.0, 'grad': g, 'value_fn': len, 'momentum_updates': g}
  updates, _ = tx.update(g, tx.init(g), g, **others)
  np.testing.assert_array_equal(updates, -g)


@pytest.mark.parametrize(
  ('theta', 'message'),
  [(np.ones(1), r'\(1,\)'), (np.ones((2, 3)), r'\(2, 3\)'), (1j, 'complex')],
)
def test_a_schedule_gives_one_real_number(theta, message):
  message = f'schedule\\(count\\) .*{message}'
  with pytest.raises(ValueError, match=message):
    tsla.label_smoothing(lambda count: theta).init(PARAMS)
  late = tsla.label_smoothing(lambda count: theta)
  state = tsla.label_smoothing(SCHEDULE).init(PARAMS)
  with pytest.raises(ValueError, match=message):
    jax.jit(late.update)(PARAMS, state)
  with pytest.raises(ValueError, match=message):
    tsla.with_schedule(state, lambda count: theta)


def test_under_masked_only_the_chosen_leaves_are_mixed():
  params = {'a': jnp.zeros(2), 'rest': {'b': jnp.zeros(3), 'c': jnp.zeros(1)}}
  g, h = random_like(params, 1), random_like(params, 2)
  for mask in (
    {'a': True, 'rest': {'b': False, 'c': False}},
    {'a': True, 'rest': False},
  ):
    tx = optax.chain(
      optax.masked(tsla.label_smoothing(SCHEDULE), mask), optax.scale(-1.0)
    )
    updates, state = tx.update(g, tx.init(params), params, smoothing_updates=h)
    expected = {
      'a': -((1 - THETA) * g['a'] + THETA * h['a']),
      'rest': jax.tree.map(lambda x: -x, g['rest']),
    }
    assert_trees_close(updates, expected, rtol=1e-6)
    assert int(tsla.smoothing_state(state).count) == 1


def test_inside_multi_steps_theta_is_constant_while_gradients_accumulate():
  inner = optax.chain(tsla.label_smoothing(SCHEDULE), optax.sgd(0.1))
  tx = optax.MultiSteps(inner, every_k_schedule=2)
  thetas, state = thetas_read(tx, 2 * len(EXPECTED))
  np.testing.assert_array_equal(thetas, np.repeat(EXPECTED, 2))
  assert int(tsla.smoothing_state(state).count) == len(EXPECTED)


def test_outside_multi_steps_every_mini_step_is_mixed():
  tx = optax.chain(
    tsla.label_smoothing(tsla.two_stage(THETA, 2)),
    optax.MultiSteps(optax.sgd(1.0), 2).gradient_transformation(),
  )
  params = jnp.zeros(3)
  state, applied = tx.init(params), []
  g = [random_like(params, seed) for seed in range(4)]
  h = [random_like(params, seed) for seed in range(4, 8)]
  for step in range(4):
    updates, state = tx.update(
      g[step], state, params, smoothing_updates=h[step]
    )
    applied.append(updates)
  mixed = [
    (1 - THETA) * np.asarray(g[i]) + THETA * np.asarray(h[i]) for i in (0, 1)
  ]
  np.testing.assert_array_equal(applied[0], 0)
  np.testing.assert_allclose(applied[1], -np.mean(mixed, 0), rtol=1e-5)
  np.testing.assert_allclose(applied[3], -np.mean(g[2:], 0), rtol=1e-5)


def test_inject_hyperparams_keeps_theta_inside_a_factory():
  @optax.inject_hyperparams
  def optimizer(learning_rate):
    return optax.chain(tsla.label_smoothing(SCHEDULE), optax.sgd(learning_rate))

  tx = optimizer(optax.constant_schedule(0.5))
  thetas, state = thetas_read(tx, len(EXPECTED))
  np.testing.assert_array_equal(thetas, EXPECTED)
  assert float(state.hyperparams['learning_rate']) == 0.5


def test_inject_hyperparams_needs_the_schedule_static():
  inject = optax.inject_hyperparams
  with pytest.raises(TypeError, match=r"static_args=\('schedule',\)"):
    inject(tsla.label_smoothing)(schedule=SCHEDULE).init(PARAMS)
  tx = inject(tsla.label_smoothing, static_args=('schedule',))(
    schedule=SCHEDULE
  )
  thetas, _ = thetas_read(tx, len(EXPECTED))
  np.testing.assert_array_equal(thetas, EXPECTED)


@pytest.mark.parametrize('schedule', [0.1, None, np.float32(0.1)])
def test_a_number_is_not_a_schedule(schedule):
  with pytest.raises(TypeError, match=r'constant\(0\.1\)'):
    tsla.label_smoothing(schedule)


def test_theta_is_skipped_together_with_the_update_it_belongs_to():
  tx = optax.apply_if_finite(
    optax.chain(tsla.label_smoothing(SCHEDULE), optax.sgd(0.1)), 100
  )
  update = jax.jit(tx.update)
  good = random_like(PARAMS, 0)
  bad = jax.tree.map(lambda x: x * jnp.nan, good)
  state = tx.init(PARAMS)
  for grads, count, theta in [
    (good, 1, THETA),
    (good, 2, THETA),
    (bad, 2, THETA),
    (bad, 2, THETA),
    (good, 3, 0.0),
    (bad, 3, 0.0),
  ]:
    _, state = update(grads, state, PARAMS)
    found = tsla.smoothing_state(state)
    assert (int(found.count), found.theta) == (count, np.float32(theta))


def scanned(theta, drop_step, params):
  """Three-weight descent with mixed updates, all of it in one scan."""
  tx = optax.chain(
    tsla.label_smoothing(tsla.two_stage(theta, drop_step)), optax.sgd(0.1)
  )

  def step(carry, _):
    params, state = carry
    used = tsla.current_theta(state)
    updates, state = tx.update(
      params, state, params, smoothing_updates=params - 1
    )
    return (optax.apply_updates(params, updates), state), used

  (params, _), used = jax.lax.scan(
    step, (params, tx.init(params)), length=len(EXPECTED)
  )
  return params, used


def test_a_scan_can_be_mapped_over_theta_drop_step_and_seed():
  thetas, drops = np.array([0.0, 0.1, 0.4], np.float32), np.array([2, 0, 5])
  seeds = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
  params, used = jax.jit(jax.vmap(scanned))(thetas, drops, seeds)
  for i in range(3):
    w = np.float64(seeds[i])
    for step in range(len(EXPECTED)):
      theta = thetas[i] if step < drops[i] else 0
      assert used[i, step] == theta
      w = w - 0.1 * ((1 - theta) * w + theta * (w - 1))
    np.testing.assert_allclose(params[i], w, rtol=1e-5)


def test_pmap_takes_and_returns_an_unreplicated_state():
  tx = optax.chain(tsla.label_smoothing(SCHEDULE), optax.sgd(0.1))

  @functools.partial(
    jax.pmap, axis_name='batch', in_axes=(None, 0), out_axes=None
  )
  def step(state, grads):
    return tx.update(jax.lax.pmean(grads, 'batch'), state)[1]

  grads = jnp.ones((jax.local_device_count(), 3))
  state, thetas = tx.init(jnp.zeros(3)), []
  for _ in EXPECTED:
    thetas.append(tsla.current_theta(state))
    state = step(state, grads)
  np.testing.assert_array_equal(np.array(thetas), EXPECTED)


@pytest.mark.parametrize(
  'wrap',
  [
    lambda tx: tx,
    lambda tx: optax.chain(optax.chain(tx), optax.adam(1e-3)),
    lambda tx: optax.named_chain(('smooth', tx), ('sgd', optax.sgd(0.1))),
    lambda tx: optax.masked(tx, {'w': True, 'b': False}),
    lambda tx: optax.partition(
      {'a': tx, 'b': optax.sgd(0.1)}, {'w': 'a', 'b': 'b'}
    ),
    lambda tx: optax.MultiSteps(optax.chain(tx, optax.adam(1e-3)), 4),
    lambda tx: optax.apply_if_finite(tx, 3),
  ],
)
def test_the_state_is_found_wherever_it_is_nested(wrap):
  state = wrap(tsla.label_smoothing(tsla.constant(0.25))).init(PARAMS)
  assert float(tsla.current_theta(state)) == 0.25
  assert int(tsla.smoothing_state(state).count) == 0


def test_no_state_or_several_are_errors_that_say_what_to_do():
  with pytest.raises(ValueError, match=r'^0 LabelSm.*chain.* in front of'):
    tsla.current_theta(optax.adam(1e-3).init(PARAMS))
  smooth = functools.partial(tsla.label_smoothing, SCHEDULE)
  per_group = optax.partition(
    {'a': smooth(), 'b': smooth()}, {'w': 'a', 'b': 'b'}
  )
  for tx in (optax.chain(smooth(), smooth()), per_group):
    with pytest.raises(ValueError, match=r'2 LabelSm.* put one'):
      tsla.current_theta(tx.init(PARAMS))


def run_python(code, **environment):
  root = pathlib.Path(tsla.__file__).parents[1]
  return subprocess.run(
    [sys.executable, '-c', textwrap.dedent(code)],
    cwd=root,
    env=os.environ | environment,
    capture_output=True,
    text=True,
    timeout=120,
  )


def test_the_sharding_of_the_updates_is_kept():
  done = run_python(
    """
    import jax, jax.numpy as jnp, numpy as np, tsla
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    mesh = Mesh(np.array(jax.devices()), ('x',))
    assert mesh.size == 2
    split = NamedSharding(mesh, PartitionSpec('x'))
    g = jax.device_put(jnp.ones((4, 3), jnp.bfloat16), split)
    tx = tsla.label_smoothing(tsla.constant(0.5))
    for update in (tx.update, jax.jit(tx.update)):
      u, _ = update(g, tx.init(g), smoothing_updates=g)
      assert u.sharding.is_equivalent_to(split, u.ndim), u.sharding
      assert u.dtype == jnp.bfloat16
    """,
    XLA_FLAGS='--xla_force_host_platform_device_count=2',
  )
  assert done.returncode == 0, done.stderr


def test_import_tsla_loads_jax_and_optax_only():
  done = run_python(
    """
    import sys, jax, optax
    before = set(sys.modules)
    import tsla
    assert 'tsla.smoothing' not in sys.modules
    tsla.two_stage
    new = {name.split('.')[0] for name in set(sys.modules) - before}
    allowed = {'tsla', 'jax', 'jaxlib', 'optax', 'numpy'}
    print(sorted(new - allowed - sys.stdlib_module_names))
    """
  )
  assert done.stdout.strip() == '[]', done.stdout + done.stderr
