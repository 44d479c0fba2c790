"""The gradient's statistics against exact expectations in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from digits_mlp import CLASSES, exact, per_example, trained

import tsla
from tsla.smoothing import variance

UNBIASED = (
  'sigma2',
  'smoothing_variance',
  'bias2',
  'rho',
  'grad_norm2',
  'smoothed_grad_norm2',
)
THETA = 0.4


def gradients(seed, epochs, **kwargs):
  """f64[N, P] each: of all examples of the digits, against y and uniform ŷ."""
  params, x, y = trained(seed, epochs, **kwargs)
  uniform = np.full_like(y, 1 / CLASSES)
  return per_example(params, x, y), per_example(params, x, uniform)


@functools.partial(jax.jit, static_argnames=('size', 'of', 'at'))
def measured(g, h, picked, size, of=None, at=None):
  """From per-example gradients and each mini-batch's examples i32[m, B]."""

  def pair(batch):
    return g[batch].mean(0), h[batch].mean(0)

  return tsla.gradient_statistics(
    pair, picked, THETA, batch_size=size, num_examples=of, at_batch_size=at
  )


def many(g, h, draws, size, of=None, at=None):
  """Values and errors f64[draws] by name, of draws i32[draws, m, B]."""
  g, h = jnp.asarray(g, jnp.float32), jnp.asarray(h, jnp.float32)
  found = jax.lax.map(
    lambda picked: measured(g, h, picked, size, of, at),
    jnp.asarray(draws),
    batch_size=100,
  )
  found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)
  return found._asdict()


@jax.jit
def of_pairs(g, h):
  """From the gradients of mini-batches, [m, P] each."""
  return tsla.gradient_statistics(
    lambda pair: pair, (g, h), THETA, batch_size=1
  )


of_many_pairs = jax.jit(jax.vmap(of_pairs))


def test_the_reference_gradients_are_those_of_the_loss():
  (w1, b1, w2, b2), x, y = trained(0, 1)

  def loss(params, theta):
    w1, b1, w2, b2 = params
    logits = jnp.tanh(x[:8] @ w1 + b1) @ w2 + b2
    return tsla.smoothed_cross_entropy(logits, y[:8].argmax(1), theta).mean()

  for theta, expected in zip((0.0, 1.0), gradients(0, 1), strict=True):
    found = jax.jit(jax.grad(loss))([w1, b1, w2, b2], theta)
    found = np.concatenate([leaf.ravel() for leaf in found])
    np.testing.assert_allclose(found, expected[:8].mean(0), atol=1e-6)


def all_ordered_draws(count, number, size):
  """Every way to draw mini-batches from `count` examples, all as likely."""
  draws = itertools.product(range(count), repeat=number * size)
  return np.array(list(draws)).reshape(-1, number, size)


def all_partitions(count, number, size):
  draws = itertools.permutations(range(count), number * size)
  return np.array(list(draws)).reshape(-1, number, size)


@pytest.mark.parametrize(
  ('draws', 'distinct', 'at'),
  [
    (all_ordered_draws(4, 3, 1), False, None),
    (all_ordered_draws(4, 3, 2), False, 1),
    (all_partitions(5, 3, 1), True, None),
    (all_partitions(6, 3, 2), True, None),
    (all_partitions(7, 3, 2), True, 4),
  ],
)
def test_the_mean_over_all_possible_draws_is_the_truth(draws, distinct, at):
  count, size = draws.max() + 1, draws.shape[-1]
  rng = np.random.default_rng(0)
  g = rng.normal(np.array([1, 0, -1]), size=(count, 3))
  h = 0.5 * g + rng.normal(size=(count, 3))
  truth = exact(g, h, THETA, batch_size=at or size, distinct=distinct)
  found = many(g, h, draws, size, of=count if distinct else None, at=at)
  for name in UNBIASED:
    np.testing.assert_allclose(
      found[name].value.mean(), truth[name], rtol=2e-5, err_msg=name
    )


@pytest.mark.parametrize('seed', range(10))
def test_estimates_lie_within_three_standard_errors(seed):
  # Of 13 numbers each in ten states; one in some 200 would lie outside.
  g, h = gradients(seed, epochs=seed % 4, noise=0.4 * (seed % 2))
  draws = np.random.default_rng(seed).integers(0, len(g), (1, 100, 32))
  found = many(g, h, draws, size=32)
  truth = exact(g, h, THETA, batch_size=32)
  for name, (value, error) in found.items():
    assert 0 < error[0] < np.inf, name
    assert abs(value[0] - truth[name]) < 3 * error[0], (name, truth[name])


@pytest.fixture(scope='module')
def thousand():
  """1,000 times 64 mini-batches of 32 digits: what was found, and the truth."""
  g, h = gradients(0, epochs=2)
  draws = np.random.default_rng(1).integers(0, len(g), (1000, 64, 32))
  return many(g, h, draws, size=32), exact(g, h, THETA, batch_size=32)


@pytest.mark.ci
@pytest.mark.parametrize('name', UNBIASED)
def test_the_bias_over_a_thousand_draws_is_below_one_percent(thousand, name):
  found, truth = thousand
  assert abs(found[name].value.mean() / truth[name] - 1) < 0.01


@pytest.mark.ci
def test_ratios_are_biased_by_less_than_two_percent_of_64_batches(thousand):
  found, truth = thousand
  for name in ('delta', 'mse_ratio', 'theta_star', 'theta_paper'):
    assert abs(found[name].value.mean() / truth[name] - 1) < 0.02, name


@pytest.mark.ci
def test_the_standard_error_is_the_spread(thousand):
  found, _ = thousand
  for name, (values, errors) in found.items():
    rms = (errors**2).mean() ** 0.5
    assert 0.9 < rms / values.std() < 1.15, name


def test_the_bias_of_delta_is_halved_at_least():
  # σ̂² of 8 Gaussians in 5 dimensions is χ² of 35: E 1/σ̂² = 35/33 of 1/σ².
  pairs = np.random.default_rng(0).normal(size=(2, 8000, 8, 5))
  found = of_many_pairs(*pairs.astype(np.float32))
  plain = found.smoothing_variance.value + found.bias2.value
  plain = np.mean(plain / found.sigma2.value)
  assert 1.05 < plain < 1.07
  assert abs(np.mean(found.delta.value) - 1) < 0.6 * (plain - 1)


def plain_statistics(g, h):
  """The estimators' definitions on mini-batch gradients f64[m, P]."""
  m = len(g)
  e, q = g - g.mean(0), h - h.mean(0)
  sigma2, variance_, rho = (
    (a * b).sum() / (m - 1) for a, b in [(e, e), (q, q), (e, q)]
  )
  bias2 = ((h - g).mean(0) ** 2).sum() - (sigma2 + variance_ - 2 * rho) / m
  square = variance_ + bias2
  mixed = (1 - THETA) * g + THETA * h
  s = mixed - mixed.mean(0)
  norm2 = (g.mean(0) ** 2).sum() - sigma2 / m
  smoothed2 = (mixed.mean(0) ** 2).sum() - (s * s).sum() / (m - 1) / m
  along = g.mean(0) @ mixed.mean(0) - (e * s).sum() / (m - 1) / m
  mse = (1 - THETA) ** 2 * sigma2 + 2 * THETA * (1 - THETA) * rho
  mse += THETA**2 * square
  return {
    'sigma2': sigma2,
    'smoothing_variance': variance_,
    'bias2': bias2,
    'rho': rho,
    'delta': square / sigma2,
    'mse_ratio': mse / sigma2,
    'theta_star': (sigma2 - rho) / (sigma2 + square - 2 * rho),
    'theta_paper': 1 / (1 + square / sigma2),
    'grad_norm2': norm2,
    'smoothed_grad_norm2': smoothed2,
    'grad_norm': norm2**0.5,
    'smoothed_grad_norm': smoothed2**0.5,
    'cosine': along / (norm2 * smoothed2) ** 0.5,
  }


def test_value_and_error_are_the_definitions_with_each_batch_left_out():
  g, h = random_pairs(1, 1, 1, count=9)
  h -= 0.5 * g
  found = of_pairs(g, h)
  g, h = g.astype(np.float64), h.astype(np.float64)
  keep = ~np.eye(9, dtype=bool)
  without = [plain_statistics(g[rows], h[rows]) for rows in keep]
  for name, whole in plain_statistics(g, h).items():
    replicates = np.array([row[name] for row in without])
    error = np.sqrt(8 / 9 * ((replicates - replicates.mean()) ** 2).sum())
    if name in ('delta', 'mse_ratio'):
      # Beale's ratio, from what numerator and denominator are without each.
      below = np.array([row['sigma2'] for row in without])
      pair = np.cov(replicates * below, below, ddof=0) * 8
      sigma2 = plain_statistics(g, h)['sigma2']
      whole = (whole * sigma2**2 + pair[0, 1]) / (sigma2**2 + pair[1, 1])
      residual = np.array([1, -whole])
      error = np.sqrt(residual @ pair @ residual) / sigma2
      error /= 1 - 4 * pair[1, 1] / sigma2**2
    estimate = getattr(found, name)
    np.testing.assert_allclose(estimate.value, whole, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(estimate.error, error, rtol=1e-3, err_msg=name)


def test_a_finite_set_used_up_leaves_no_error_in_the_means():
  g, h = gradients(0, epochs=2)
  draws = np.random.default_rng(0).permutation(len(g)).reshape(1, 599, 3)
  found = many(g, h, draws, size=3, of=len(g))
  truth = exact(g, h, THETA, batch_size=3, distinct=True)
  for name in ('bias2', 'grad_norm', 'smoothed_grad_norm', 'cosine'):
    value, error = found[name]
    np.testing.assert_allclose(value, truth[name], rtol=1e-3, err_msg=name)
    assert error < 0.01 * abs(truth[name]), name


@pytest.mark.ci
def test_errors_of_a_finite_set_shrink_with_what_is_left_of_it():
  g, h = gradients(0, epochs=2)
  rng = np.random.default_rng(0)
  draws = [rng.permutation(len(g))[:1344].reshape(42, 32) for _ in range(300)]
  found = many(g, h, np.array(draws), size=32, of=len(g))
  truth = exact(g, h, THETA, batch_size=32, distinct=True)
  for name in (
    *('bias2', 'smoothed_grad_norm2', 'grad_norm2'),
    *('delta', 'mse_ratio'),
  ):
    values, errors = found[name]
    rms = (errors**2).mean() ** 0.5
    assert 0.85 < rms / values.std() < 1.2, name
    assert abs(values.mean() - truth[name]) < 3 * values.std() / 300**0.5


def drawn_without_replacement(heavy, dims, count, draws=600):
  """δ of mini-batches of 32 of 1,437 examples, its errors, and the truth.

  The part `heavy` of the examples carries σ²; if 0, all are alike.
  """
  rng = np.random.default_rng(0)
  g, h = rng.normal(size=(2, 1437, dims))
  if heavy:
    g[round(heavy * len(g)) :] *= 0.02
    h *= 0.07
  h[:, 0] += 0.2 if not heavy else 1.3 * heavy**0.5 * (dims / 32) ** 0.5
  draws = [rng.permutation(len(g))[: count * 32] for _ in range(draws)]
  draws = np.reshape(draws, (-1, count, 32))
  found = many(g, h, draws, size=32, of=len(g))
  truth = exact(g, h, THETA, batch_size=32, distinct=True)
  return *found['delta'], truth['delta']


@pytest.mark.parametrize(
  ('heavy', 'dims', 'count'),
  [
    (0.004, 20, 32),  # jackknifed as of an infinite set, δ is a third low
    (0.01, 20, 32),
    (0, 3, 32),
    (0, 3, 44),  # nearly all used: what is left to chance are the mini-batches
  ],
)
def test_delta_without_replacement_is_unbiased_with_an_honest_error(
  heavy, dims, count
):
  values, errors, truth = drawn_without_replacement(heavy, dims, count)
  assert abs(values.mean() / truth - 1) < 0.05
  covered = np.mean(abs(values - truth) < 2 * errors)
  assert 0.9 < covered < 0.99
  low, high = np.percentile(values, [16, 84])  # it has a tail
  assert 0.85 < np.median(errors) / ((high - low) / 2) < 1.5


def test_the_error_of_delta_is_infinite_where_sigma2_is_not_told_from_0():
  values, errors, truth = drawn_without_replacement(0.004, 20, 12)
  unknown = np.isinf(errors)
  assert unknown.mean() > 0.5
  assert np.isfinite(values).all()
  # Where no heavy example is drawn, in 0.73^6 of the draws, nothing tells.
  assert np.mean(abs(values - truth) < 2 * errors) > 0.98 - 0.73**6


def test_a_loop_needs_the_mini_batch_before_of_a_finite_set():
  g, h = (np.asarray(x) for x in random_pairs(1, 1, 1, count=6))
  scan = tsla.gradient_statistics(
    lambda pair: pair, (g, h), 0.1, batch_size=3, num_examples=24
  )
  means = variance.init_means(g[0])
  for pair in zip(g, h, strict=True):
    means = variance.update_means(means, *pair)

  def found(*before):
    rows = [
      variance.products(means, *pair, *(b[i] for b in before))
      for i, pair in enumerate(zip(g, h, strict=True))
    ]
    rows = jax.tree.map(lambda *row: jnp.stack(row), *rows)
    return variance.statistics(means, rows, 0.1, batch_size=3, num_examples=24)

  # The scan knows none before the first.
  first = [(g.mean(0), h.mean(0)), *zip(g, h, strict=True)]
  for one, other in zip(
    jax.tree.leaves(scan), jax.tree.leaves(found(first)), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-4)
  assert found([(g[-1], h[-1]), *first[1:]]).delta.error > 0
  with pytest.raises(ValueError, match='num_examples needs `before`'):
    found()


@pytest.mark.parametrize(('distinct', 'size'), [(False, 4), (True, 4)])
def test_delta_at_another_batch_size(distinct, size):
  g, h = gradients(0, epochs=2)
  of = len(g) if distinct else None
  rng = np.random.default_rng(0)
  if distinct:
    draws = rng.permutation(len(g))[:1796].reshape(1, -1, size)
  else:
    draws = rng.integers(0, len(g), (1, 2000, size))
  found = many(g, h, draws, size, of=of, at=128)
  truth = exact(g, h, THETA, batch_size=128, distinct=distinct)
  one = exact(g, h, THETA, batch_size=1)
  if not distinct:  # Linear in the batch size.
    linear = one['delta'] + 127 * one['bias2'] / one['sigma2']
    np.testing.assert_allclose(truth['delta'], linear)
  assert truth['delta'] > 7 * one['delta']
  for name in ('delta', 'theta_star', 'mse_ratio', 'sigma2', 'bias2'):
    value, error = found[name]
    assert abs(value[0] - truth[name]) < 3 * error[0], name
    assert error[0] < 0.15 * truth[name], name


def random_pairs(mean, noise, gap, count=40, dim=50):
  rng = np.random.default_rng(0)
  g = mean + noise * rng.normal(size=(count, dim))
  h = g + gap * rng.normal(size=(count, dim))
  return g.astype(np.float32), h.astype(np.float32)


@pytest.mark.parametrize(
  ('mean', 'noise', 'gap'),
  [(1000, 1, 1), (1, 1, 1e-4), (0, 1e-12, 1e-12), (0, 1e12, 1e12)],
)
def test_float32_keeps_small_differences_of_large_gradients(mean, noise, gap):
  g, h = random_pairs(mean, noise, gap)
  found = of_pairs(g, h)
  g, c = g.astype(np.float64), h.astype(np.float64) - g
  e, q = g - g.mean(0), c - c.mean(0)
  sigma2, cross, square = (
    (a * b).sum() / 39 for a, b in [(e, e), (e, q), (q, q)]
  )
  best = -cross / (square + (c.mean(0) ** 2).sum() - square / 40)
  np.testing.assert_allclose(found.sigma2.value, sigma2, rtol=1e-5)
  np.testing.assert_allclose(found.theta_star.value, best, 1e-3)
  np.testing.assert_allclose(found.rho.value, sigma2 + cross, rtol=1e-4)
  rows = (e * e).sum(1)  # Leaving row i out changes σ̂² by 40/39/38 of it.
  error = 39 / 40**0.5 * rows.std(ddof=1) * 40 / 39 / 38
  np.testing.assert_allclose(found.sigma2.error, error, rtol=1e-3)


def test_what_cannot_be_told_from_zero_is_negative_and_has_no_root():
  rng = np.random.default_rng(0)
  g, e = rng.normal(size=(2, 500, 10, 4)).astype(np.float32)
  found = of_many_pairs(g, g + 0.1 * e)
  for square in (found.bias2.value, found.grad_norm2.value):
    assert 0.3 < np.mean(square < 0) < 0.8
    assert abs(np.mean(square)) < 3 * np.std(square) / 500**0.5
  np.testing.assert_array_equal(
    np.isnan(found.grad_norm.value), found.grad_norm2.value < 0
  )
  assert not np.isnan(found.delta.value).any()


def test_a_loop_a_scan_and_shared_mini_batches_find_the_same():
  g, h = random_pairs(1, 1, 1, count=6, dim=8 * 5)
  shards = jax.tree.map(lambda leaf: leaf.reshape(6, 8, 5), (g, h))
  averaged = jax.tree.map(lambda leaf: leaf.mean(1), shards)

  update_means = jax.jit(variance.update_means)
  products = jax.jit(variance.products)
  means = variance.init_means(averaged[0][0])
  for pair in zip(*averaged, strict=True):
    means = update_means(means, *pair)
  rows = [products(means, *pair) for pair in zip(*averaged, strict=True)]
  rows = jax.tree.map(lambda *row: jnp.stack(row), *rows)
  loop = variance.statistics(means, rows, 0.1, batch_size=8)

  @jax.jit
  @functools.partial(jax.vmap, in_axes=1, axis_name='devices')
  def on_each_device(pairs):
    return tsla.gradient_statistics(
      lambda pair: jax.lax.pmean(pair, 'devices'), pairs, 0.1, batch_size=8
    )

  shared = on_each_device(shards)
  for one, many in zip(
    jax.tree.leaves(loop), jax.tree.leaves(shared), strict=True
  ):
    np.testing.assert_allclose(np.asarray(many), np.full(8, one), rtol=2e-3)


def test_half_precision_gradients_are_summed_in_float32():
  g, h = (jnp.asarray(x, jnp.bfloat16) for x in random_pairs(1, 1, 1, 300))
  wide = (np.asarray(g, np.float32), np.asarray(h, np.float32))
  found, expected = of_pairs(g, h), of_pairs(*wide)
  for name in UNBIASED:
    estimate = getattr(found, name)
    assert estimate.value.dtype == estimate.error.dtype == jnp.float32
    np.testing.assert_allclose(estimate, getattr(expected, name), rtol=1e-5)


def test_memory_does_not_grow_with_the_number_of_mini_batches():
  size = 100_000

  def measure(frequencies):
    def pair(frequency):
      g = jnp.sin(frequency * jnp.arange(size))
      return {'w': g}, {'w': 2 * g}

    return tsla.gradient_statistics(pair, frequencies, 0.1, batch_size=1)

  def peak(number):
    compiled = jax.jit(measure).lower(jnp.arange(1.0, number + 1)).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert peak(200) < peak(10) + 4 * size


def test_theta_is_traced():
  pairs = random_pairs(1, 1, 1)
  measure = jax.jit(
    lambda theta: tsla.gradient_statistics(
      lambda pair: pair, pairs, theta, batch_size=1
    )
  )
  assert measure(0.0).mse_ratio.value == 1
  assert measure(0.3).mse_ratio.value != 1
  assert measure._cache_size() == 1


@pytest.mark.parametrize(
  ('count', 'sizes', 'message'),
  [
    (2, {'batch_size': 1}, '2 mini-batches'),
    (9, {'batch_size': 0}, 'batch_size = 0'),
    (9, {'batch_size': 2.5}, 'batch_size = 2.5 must be an integer'),
    (9, {'batch_size': 1, 'at_batch_size': 2.5}, 'at_batch_size = 2.5 must'),
    (9, {'batch_size': 1, 'at_batch_size': 0}, 'at_batch_size = 0'),
    (9, {'batch_size': 2, 'num_examples': 17}, 'num_examples = 17'),
    (
      9,
      {'batch_size': 2, 'num_examples': 20, 'at_batch_size': 20},
      'one of 20',
    ),
  ],
)
def test_sizes_that_do_not_fit_are_refused(count, sizes, message):
  pairs = random_pairs(1, 1, 1, count)
  with pytest.raises(ValueError, match=message):
    tsla.gradient_statistics(lambda pair: pair, pairs, 0.1, **sizes)


def test_a_complex_parameter_is_two_real_ones():
  g, h = np.random.default_rng(0).normal(size=(2, 12, 6)).astype(np.float32)
  expected = of_pairs(g, h)
  found = of_pairs(*(each[:, :3] + 1j * each[:, 3:] for each in (g, h)))
  for name in found._fields:
    np.testing.assert_allclose(
      getattr(found, name), getattr(expected, name), rtol=1e-4, err_msg=name
    )


@pytest.mark.parametrize('shape', [(), (1,)])
def test_gradients_of_two_shapes_are_refused(shape):
  with pytest.raises(TypeError, match='reshape'):
    of_pairs(np.ones((12, 5), np.float32), np.ones((12, *shape), np.float32))
