"""What owns θ, in every way of running a loop: against NumPy in float64."""

import contextlib
import doctest
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from support import ROOT
from test_transform import run_python

import tsla
from tsla.smoothing.estimates import Estimate, GradientStatistics

THETA, DROP, STEPS, RATE = 0.25, 2, 5, 0.125
pytestmark = pytest.mark.ci

SCHEDULE = tsla.two_stage(THETA, DROP)
SWITCH = tsla.auto_two_stage(THETA, 'delta', min_step=DROP, patience=1)
OWNERS = {
  'label_smoothing': tsla.label_smoothing(SCHEDULE),
  'auto_two_stage': SWITCH.transformation,
}
START = {'w': np.array([[1.0, -2.0, 0.5]]), 'b': np.array([0.25])}


def transformation(owner, reset):
  tx = optax.chain(OWNERS[owner], optax.sgd(RATE, momentum=0.5))
  return tsla.reset_momentum(tx) if reset else tx


def params(dtype=jnp.float32):
  return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), START)


def fires(dtype=jnp.float32):
  """An observation that δ is 2."""
  two = Estimate(jnp.array(2, dtype), jnp.array(0, dtype))
  statistics = [two] * len(GradientStatistics._fields)
  return tsla.Observation(GradientStatistics(*statistics), jnp.array(2, dtype))


def expected(reset):
  """θ of each update, and the parameters after all, of g = w and h = −1."""
  w, buffer = START, jax.tree.map(np.zeros_like, START)
  thetas = [THETA if step < DROP else 0 for step in range(STEPS)]
  for step, theta in enumerate(thetas):
    kept = 0 if reset and step == DROP else 0.5
    mixed = jax.tree.map(lambda w, t=theta: (1 - t) * w - t, w)
    buffer = jax.tree.map(lambda b, m, k=kept: k * b + m, buffer, mixed)
    w = jax.tree.map(lambda w, b: w - RATE * b, w, buffer)
  return thetas, w


def make_step(tx, dtype=jnp.float32):
  """One update, before it an observation where the state can be shown one."""
  switched = any('AutoState' in str(type(s)) for s in nodes(tx.init(params())))

  def step(carry, _=None):
    w, state = carry
    if switched:
      state = SWITCH.observe(state, fires(dtype))
    theta = tsla.current_theta(state)
    h = jax.tree.map(lambda leaf: -jnp.ones_like(leaf), w)
    updates, state = tx.update(w, state, w, smoothing_updates=h)
    return (optax.apply_updates(w, updates), state), theta

  return step


def nodes(tree):
  yield tree
  if isinstance(tree, tuple):
    for each in tree:
      yield from nodes(each)


def in_turn(step, carry):
  thetas = []
  for _ in range(STEPS):
    carry, theta = step(carry)
    thetas.append(float(theta))  # before the next step takes its buffers
  return carry[0], thetas


def donated(step, carry):
  """Eagerly; between the updates every buffer of the state is given away."""
  give = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), donate_argnums=0)
  return in_turn(lambda carry: step(give(carry)), give(carry))


def jitted_and_donated(step, carry):
  return in_turn(jax.jit(step, donate_argnums=0), carry)


def scanned(step, carry):
  (w, _), thetas = jax.jit(lambda c: jax.lax.scan(step, c, length=STEPS))(carry)
  return w, thetas


def mapped(step, carry):
  """Two loops at once, of which the first is looked at."""
  pair = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1]), carry[0])
  run = jax.vmap(lambda w: scanned(step, (w, carry[1])))
  return jax.tree.map(lambda leaf: leaf[0], run(pair))


def pmapped(step, carry):
  mapped = jax.pmap(
    lambda carry, _: step(carry), in_axes=(None, 0), out_axes=None
  )
  return in_turn(lambda carry: mapped(carry, np.zeros(1)), carry)


RUNS = {
  'eager': in_turn,
  'donated': donated,
  'jit, donated': jitted_and_donated,
  'scan': scanned,
  'vmap': mapped,
  'pmap': pmapped,
}


def strict():
  stack = contextlib.ExitStack()
  stack.enter_context(jax.numpy_dtype_promotion('strict'))
  stack.enter_context(jax.numpy_rank_promotion('raise'))
  return stack


# Where it runs, the parameters' type, that of what is observed, a tolerance.
SETTINGS = {
  'float32': (contextlib.nullcontext, jnp.float32, jnp.float32, 1e-6),
  'x64': (functools.partial(jax.enable_x64, True), *[jnp.float64] * 2, 1e-7),
  'x64, float32': (
    *(functools.partial(jax.enable_x64, True), jnp.float32, jnp.float64),
    1e-6,
  ),
  'strict, bfloat16': (strict, jnp.bfloat16, jnp.float32, 5e-2),
}


@pytest.mark.parametrize('setting', SETTINGS)
@pytest.mark.parametrize('run', RUNS)
@pytest.mark.parametrize('reset', [False, True])
@pytest.mark.parametrize('owner', OWNERS)
def test_every_way_to_run_a_loop_is_numpys(owner, reset, run, setting):
  context, dtype, observed, tolerance = SETTINGS[setting]
  with context():
    tx = transformation(owner, reset)
    carry = params(dtype), tx.init(params(dtype))
    types = jax.tree.map(lambda leaf: leaf.dtype, carry)
    step = make_step(tx, observed)
    after, _ = jax.eval_shape(step, carry)
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == types
    w, thetas = RUNS[run](step, carry)
  expected_thetas, expected_w = expected(reset)
  np.testing.assert_array_equal(np.float32(thetas), np.float32(expected_thetas))
  for name, leaf in w.items():
    assert leaf.dtype == dtype
    np.testing.assert_allclose(
      np.float64(leaf), expected_w[name], rtol=tolerance, atol=tolerance
    )


def buffers(tree):
  return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize('reset', [False, True])
@pytest.mark.parametrize('owner', OWNERS)
def test_no_two_leaves_of_a_state_share_a_buffer(owner, reset, compiled):
  tx = transformation(owner, reset)
  maybe = jax.jit if compiled else lambda function: function
  states = {'init': maybe(tx.init)(params())}
  if owner == 'auto_two_stage':
    states['observe'] = maybe(SWITCH.observe)(states['init'], fires())
  states['with_schedule'] = maybe(
    lambda state: tsla.with_schedule(state, SCHEDULE)
  )(states['init'])
  for name, state in [*states.items()]:
    states[name, 'update'] = maybe(tx.update)(params(), state, params())[1]
  for name, state in states.items():
    assert len(set(buffers(state))) == len(buffers(state)), name


def test_an_array_that_a_schedule_returns_stays_the_users():
  theta = jnp.float32(0.25)
  tx = tsla.label_smoothing(lambda count: theta)
  step = jax.jit(lambda state: tx.update({}, state)[1], donate_argnums=0)
  step(tx.init({}))
  step(tsla.with_schedule(tx.init({}), lambda count: theta))
  assert float(theta) == 0.25


class Weights(nnx.Module):
  def __init__(self):
    self.w = nnx.Param(jnp.asarray(START['w'], jnp.float32))


@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize('owner', OWNERS)
def test_an_nnx_loop_is_numpys(owner, compiled):
  model = Weights()
  optimizer = nnx.Optimizer(model, transformation(owner, False), wrt=nnx.Param)

  def step(model, optimizer):
    if owner == 'auto_two_stage':
      optimizer.opt_state = SWITCH.observe(optimizer.opt_state, fires())
    theta = tsla.current_theta(optimizer.opt_state)
    g = nnx.grad(lambda model: (model.w[...] ** 2).sum() / 2)(model)
    h = nnx.grad(lambda model: -model.w[...].sum())(model)
    optimizer.update(model, g, smoothing_updates=h)
    return theta

  step = nnx.jit(step) if compiled else step
  thetas = [step(model, optimizer) for _ in range(STEPS)]
  assert all(isinstance(theta, jax.Array) for theta in thetas)
  expected_thetas, expected_w = expected(reset=False)
  np.testing.assert_array_equal(np.float32(thetas), np.float32(expected_thetas))
  np.testing.assert_allclose(model.w[...], expected_w['w'], rtol=1e-6)


def test_the_state_of_an_nnx_optimizer_is_shown_and_moved():
  model = Weights()
  chain = optax.chain(SWITCH.transformation, optax.sgd(RATE))
  optimizer = nnx.Optimizer(model, chain, wrt=nnx.Param)
  g = nnx.state(model, nnx.Param)
  theta = tsla.current_theta(optimizer.opt_state)
  optimizer.opt_state = tsla.with_schedule(
    optimizer.opt_state, tsla.constant(0.5)
  )
  assert float(tsla.current_theta(optimizer.opt_state)) == 0.5
  for _ in range(DROP):
    optimizer.update(model, g)
  assert int(tsla.smoothing_state(optimizer.opt_state).count) == DROP
  before = jax.tree.structure(optimizer.opt_state)
  optimizer.opt_state = SWITCH.observe(optimizer.opt_state, fires())
  assert jax.tree.structure(optimizer.opt_state) == before
  optimizer.update(model, g)
  assert float(tsla.current_theta(optimizer.opt_state)) == 0
  assert float(theta) == THETA  # as it was read


def test_gradient_statistics_under_strict_promotion_and_x64():
  rng = np.random.default_rng(0)
  g, h = rng.normal(size=(2, 12, 5))
  expected = tsla.gradient_statistics(
    lambda pair: pair, (g, h), 0.25, batch_size=2, num_examples=30
  )
  with strict(), jax.enable_x64(True):
    for dtype, tolerance in ((jnp.bfloat16, 0.2), (jnp.float64, 1e-3)):
      pair = jnp.asarray(g, dtype), jnp.asarray(h, dtype)
      found = tsla.gradient_statistics(
        *(lambda pair: pair, pair, jnp.float32(0.25)),
        batch_size=2,
        num_examples=30,
      )
      for name in ('delta', 'mse_ratio', 'sigma2'):
        one, other = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(one, other, rtol=tolerance, err_msg=name)


def test_four_devices_and_a_mesh_find_what_one_does():
  done = run_python(
    """
    import functools, sys
    sys.path.insert(0, 'tests')
    import jax, jax.numpy as jnp, numpy as np, optax, tsla
    from jax.sharding import PartitionSpec as P
    import test_contracts_transform as table
    assert jax.device_count() == 4
    mesh = jax.make_mesh(
      (4,), ('x',), axis_types=(jax.sharding.AxisType.Auto,))
    g, h = np.random.default_rng(0).normal(size=(2, 12, 8, 5)).astype('f')
    alone = tsla.gradient_statistics(
      lambda pair: pair, (g.mean(1), h.mean(1)), .25, batch_size=8,
      num_examples=200)

    def measure(g, h):
      return tsla.gradient_statistics(
        lambda pair: jax.lax.pmean(
          jax.tree.map(lambda leaf: leaf.mean(0), pair), 'x'),
        (g, h), .25, batch_size=8, num_examples=200)

    split = [leaf.reshape(12, 4, 2, 5) for leaf in (g, h)]
    for found in (
      jax.jit(jax.shard_map(
        measure, mesh=mesh, in_specs=P(None, 'x'), out_specs=P()))(g, h),
      jax.pmap(measure, 'x', in_axes=1, out_axes=None)(*split),
    ):
      for one, other in zip(found, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3)

    for owner in table.OWNERS:
      for reset in (False, True):
        tx = table.transformation(owner, reset)
        step = table.make_step(tx)
        carry = table.params(), tx.init(table.params())
        maps = {
          'pmap': jax.pmap(
            lambda carry, _: step(carry), in_axes=(None, 0), out_axes=None),
          'shard_map': jax.jit(jax.shard_map(
            lambda carry, _: step(carry), mesh=mesh, in_specs=(P(), P('x')),
            out_specs=P())),
        }
        thetas, w = table.expected(reset)
        for name, mapped in maps.items():
          found, seen = table.in_turn(lambda c: mapped(c, np.zeros(4)), carry)
          np.testing.assert_array_equal(np.float32(seen), np.float32(thetas))
          np.testing.assert_allclose(found['w'], w['w'], rtol=1e-6)
    """,
    XLA_FLAGS='--xla_force_host_platform_device_count=4',
  )
  assert done.returncode == 0, done.stderr


def test_the_documented_loops_run():
  found = doctest.testfile(str(ROOT / 'docs/library.md'), module_relative=False)
  assert found.failed == 0
  assert found.attempted > 20


def test_what_a_user_needs_is_at_hand_and_reads_well():
  names = {'AutoTwoStage', 'RULES', 'RULE_NAMES', 'Rule', 'adaptive_smoothing'}
  assert names < {*tsla.__all__}
  assert tsla.RULE_NAMES == ('delta', 'mse', 'floor', 'plateau', 'optimal')
  assert tsla.metrics.batch_sums is not None
  for function in (tsla.two_stage, tsla.observe, tsla.gradient_statistics):
    assert 'Union' not in str(inspect.signature(function))
