"""θ(count): values at the switch, dtype under jit, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsla


def traced_values(schedule, counts):
  theta = jax.jit(schedule)
  return np.array([theta(jnp.int32(count)) for count in counts])


@pytest.mark.parametrize(
  ('schedule', 'counts', 'expected'),
  [
    (tsla.none(), [0, 1, 10**9], [0, 0, 0]),
    (tsla.constant(0.4), [0, 1, 10**9], [0.4, 0.4, 0.4]),
    (tsla.two_stage(0.4, 7), [0, 6, 7, 8, 10**9], [0.4, 0.4, 0, 0, 0]),
    (tsla.two_stage(0.4, 0), [0, 1], [0, 0]),
    (tsla.two_stage(0.4, 2**31 - 1), [0, 2**31 - 2], [0.4, 0.4]),
    (
      tsla.piecewise((0, 0.4, 0.1, 0.2), (3, 5, 9)),
      [0, 2, 3, 4, 5, 8, 9, 100],
      [0, 0, 0.4, 0.4, 0.1, 0.1, 0.2, 0.2],
    ),
    (tsla.piecewise((0.3,), ()), [0, 5], [0.3, 0.3]),
  ],
)
def test_stages_switch_exactly_at_their_boundaries(schedule, counts, expected):
  expected = np.array(expected, np.float32)
  np.testing.assert_array_equal(traced_values(schedule, counts), expected)
  eager = [float(schedule(count)) for count in counts]
  np.testing.assert_array_equal(np.array(eager, np.float32), expected)


# At 41, 47, 49 and others, count·(1/steps) is not 1 at the end.
@pytest.mark.parametrize('steps', [1, 2, 41, 47, 49, 55, 61, 100])
@pytest.mark.parametrize(
  ('decay', 'curve'),
  [
    (tsla.linear_decay, lambda t: 1 - t),
    (tsla.cosine_decay, lambda t: (1 + np.cos(np.pi * t)) / 2),
  ],
)
def test_a_decay_follows_its_curve_and_ends_at_exactly_zero(
  decay, curve, steps
):
  counts = np.arange(0, steps, max(1, steps // 5))
  schedule = decay(0.4, steps)
  np.testing.assert_allclose(
    traced_values(schedule, counts), 0.4 * curve(counts / steps), atol=1e-7
  )
  ended = traced_values(schedule, [steps, steps + 1, 10**9])
  np.testing.assert_array_equal(ended, 0)


@pytest.mark.parametrize('steps', [1, 2, 41, 47, 49, 55, 61, 100])
@pytest.mark.parametrize(
  ('start', 'end'), [(0.0, 0.4), (0.1, 0.2), (0.5, 0.1), (-0.4, 0.4)]
)
def test_a_ramp_is_a_straight_line_that_ends_at_exactly_its_end(
  start, end, steps
):
  counts = np.unique([0, steps // 2, steps - 1])
  schedule = tsla.linear_ramp(start, end, steps)
  expected = start + (end - start) * counts / steps
  values = traced_values(schedule, counts)
  np.testing.assert_allclose(values, expected, atol=1e-7)
  ended = traced_values(schedule, [steps, steps + 1, 10**9])
  np.testing.assert_array_equal(ended, np.float32(end))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((np.nan, 0.1, 3), 'start = '),
    ((0.1, np.inf, 3), 'end = '),
    ((0.1, 0.2, 0), 'ramp_steps = 0'),
  ],
)
def test_a_ramp_refuses_what_is_none(arguments, message):
  with pytest.raises(ValueError, match=message):
    tsla.linear_ramp(*arguments)


@pytest.mark.parametrize(
  'schedule',
  [
    tsla.none(),
    tsla.constant(1),
    tsla.two_stage(np.float64(0.1), np.int64(3)),
    tsla.linear_decay(0.1, 3),
    tsla.cosine_decay(0.1, 3),
    tsla.linear_ramp(0.1, 1, 3),
    tsla.piecewise((1, 0), (3,)),
  ],
)
def test_a_schedule_gives_a_strong_float32_scalar(schedule):
  for theta in (schedule(0), jax.eval_shape(schedule, jnp.int32(0))):
    assert (theta.shape, theta.dtype) == ((), jnp.float32)
    assert not theta.weak_type


def test_theta_and_drop_step_can_be_mapped():
  thetas, drops = jnp.array([0.1, 0.2, 0.4]), jnp.array([0, 2, 3])

  def values(theta, drop):
    schedules = (
      tsla.two_stage(theta, drop),
      tsla.constant(theta),
      tsla.linear_decay(theta, 4),
      tsla.cosine_decay(theta, 4),
      tsla.piecewise((0.0, theta), (drop,)),
    )
    return jnp.array([schedule(2) for schedule in schedules])

  found = jax.jit(jax.vmap(values))(thetas, drops)
  expected = [
    [0, 0.1, 0.05, 0.05, 0.1],
    [0, 0.2, 0.1, 0.1, 0.2],
    [0.4, 0.4, 0.2, 0.2, 0],
  ]
  np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_concrete_theta_is_checked_inside_jit_too():
  theta, drop = jnp.float32(0.25), jnp.int32(2)
  f = jax.jit(lambda count: tsla.two_stage(theta, drop)(count))
  assert [float(f(count)) for count in (1, 2)] == [0.25, 0]
  infinite = jnp.float32(jnp.inf)
  with pytest.raises(ValueError, match=r'theta = .*inf'):
    jax.jit(lambda count: tsla.constant(infinite)(count))(0)


@pytest.mark.parametrize('theta', [np.nan, -np.inf, '0.1', None, [0.1]])
def test_a_theta_that_is_no_finite_number_is_refused(theta):
  for make in (
    tsla.constant,
    lambda theta: tsla.two_stage(theta, 3),
    lambda theta: tsla.linear_decay(theta, 3),
    lambda theta: tsla.cosine_decay(theta, 3),
  ):
    with pytest.raises(ValueError) as error:
      make(theta)
    assert str(error.value).startswith(f'theta = {theta!r} ')
  with pytest.raises(ValueError, match=r'thetas\[1\] = '):
    tsla.piecewise((0.1, theta), (3,))


@pytest.mark.parametrize(
  'step', [-1, 2.0, np.nan, 2**31, '3', None, True, np.True_]
)
def test_a_step_that_is_no_count_is_refused(step):
  with pytest.raises(ValueError) as error:
    tsla.two_stage(0.1, step)
  assert str(error.value).startswith(f'drop_step = {step!r} ')
  for decay in (tsla.linear_decay, tsla.cosine_decay):
    for bad in (step, 0):
      with pytest.raises(ValueError, match='decay_steps = '):
        decay(0.1, bad)
  with pytest.raises(ValueError, match=r'boundaries\[0\] = '):
    tsla.piecewise((0.1, 0.2), (step,))


@pytest.mark.parametrize(
  ('thetas', 'boundaries', 'message'),
  [
    ((0.1, 0.2, 0.3), (4, 4), r'boundaries\[1\] = 4 .*\[5, '),
    ((0.1, 0.2, 0.3), (4, 3), r'boundaries\[1\] = 3 '),
    ((0.1, 0.2), (), r'2 stages and boundaries = \(\) has 0'),
    ((), (), r'thetas = \(\) has 0 stages'),
  ],
)
def test_stages_out_of_order_are_refused(thetas, boundaries, message):
  with pytest.raises(ValueError, match=message):
    tsla.piecewise(thetas, boundaries)
