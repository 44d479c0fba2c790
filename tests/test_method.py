"""The methods against their formulas in NumPy, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata

import tsla
from tsla.smoothing.method import logit_gradients
from tsla.smoothing.methods import METHODS, class_means

THETAS = (-0.4, 0.0, 0.1, 0.7, 1.0)
LOSSES = {name: make().loss for name, make in METHODS.items()}


def problem(k, batch=6, scale=3.0):
  rng = np.random.default_rng(k)
  z = (scale * rng.normal(size=(batch, k))).astype(np.float32)
  labels = rng.integers(k, size=batch)
  labels[:2] = z[:2].argmax(-1)  # two are right, whatever the draw
  return z, labels, rng.dirichlet(np.ones(k), batch).astype(np.float32)


@functools.partial(jax.jit, static_argnames='of')
def measured(z, labels, theta, y_hat=None, where=None, *, of):
  """Value and gradient; one compilation for all θ of a shape."""

  def total(z):
    value = LOSSES[of](z, labels, theta, y_hat, where)
    return value.sum(), value

  gradient, value = jax.grad(total, has_aux=True)(z)
  return value, gradient


def cross_entropy(z, labels):
  """Its value and gradient, f64."""
  z, rows = z.astype(np.float64), np.arange(len(z))
  gradient = softmax(z, -1)
  gradient[rows, labels] -= 1
  return -log_softmax(z, -1)[rows, labels], gradient


def label_smoothing(z, labels, y_hat):
  """R = CE(z, ŷ) − CE(z, y) = z_y − Σ ŷ_k z_k, with its gradient y − ŷ."""
  z, k = z.astype(np.float64), z.shape[-1]
  y_hat = np.full(k, 1 / k) if y_hat is None else y_hat.astype(np.float64)
  gradient = np.eye(k)[labels] - y_hat
  return (gradient * z).sum(-1), gradient


def max_suppression(z, labels, y_hat):
  """R = max z − mean z; those that are the highest share the gradient."""
  z = z.astype(np.float64)
  highest = z == z.max(-1, keepdims=True)
  gradient = highest / highest.sum(-1, keepdims=True) - 1 / z.shape[-1]
  return z.max(-1) - z.mean(-1), gradient


def margin(z, labels, y_hat, m=10.0):
  """R = mean_k max(0, max z − z_k − m)."""
  z, k = z.astype(np.float64), z.shape[-1]
  highest = z == z.max(-1, keepdims=True)
  excess = z.max(-1, keepdims=True) - z - m
  beyond = excess > 0
  share = highest / highest.sum(-1, keepdims=True)
  gradient = (beyond.sum(-1, keepdims=True) * share - beyond) / k
  return np.where(beyond, excess, 0).sum(-1) / k, gradient


def confidence_penalty(z, labels, y_hat):
  """R = Σ p log p, whose gradient is p_k (log p_k − R)."""
  log_p = log_softmax(z.astype(np.float64), -1)
  p = np.exp(log_p)
  value = (p * log_p).sum(-1)
  return value, p * (log_p - value[:, None])


def zipf(z, labels, y_hat):
  """R = KL(q ‖ p) over the classes that are not the label's."""
  z = z.astype(np.float64)
  values, gradients = np.zeros(len(z)), np.zeros_like(z)
  for row, label in enumerate(labels):
    others = np.arange(z.shape[-1]) != label
    if others.any():
      p = softmax(z[row, others])
      q = 1 / rankdata(-z[row, others], method='min')
      q /= q.sum()
      values[row] = (q * np.log(q / p)).sum()
      gradients[row, others] = p - q
  return values, gradients


PENALTIES = {
  'label_smoothing': label_smoothing,
  'negative': label_smoothing,
  'max_suppression': max_suppression,
  'margin': margin,
  'confidence_penalty': confidence_penalty,
  'zipf': zipf,
  'online': label_smoothing,
}

# Those of another loss.
APART = [n for n in PENALTIES if n not in ('negative', 'online')]


def expected_of(name, z, labels, theta, y_hat=None):
  hard, penalty = cross_entropy(z, labels), PENALTIES[name](z, labels, y_hat)
  return [h + theta * r for h, r in zip(hard, penalty, strict=True)]


def assert_close(found, expected, relative=4e-7):
  for f, e in zip(found, expected, strict=True):
    assert f.shape == e.shape
    np.testing.assert_allclose(f, e, rtol=0, atol=relative * np.abs(e).max())


def test_each_method_of_the_table_has_its_formula_here():
  assert METHODS.keys() == PENALTIES.keys()


@pytest.mark.parametrize('k', [2, 10, 1000])
@pytest.mark.parametrize('name', PENALTIES)
def test_the_loss_is_cross_entropy_and_theta_times_the_penalty(name, k):
  z, labels, drawn = problem(k)
  for y_hat in (None, drawn, drawn[0]):
    for theta in THETAS:
      found = measured(z, labels, theta, y_hat, of=name)
      assert {a.dtype for a in found} == {np.dtype(np.float32)}
      assert_close(found, expected_of(name, z, labels, theta, y_hat))


@pytest.mark.parametrize('name', PENALTIES)
def test_the_two_gradients_of_the_logits_are_at_theta_0_and_1(name):
  z, labels, y_hat = problem(10)
  for dtype in (jnp.float32, jnp.bfloat16):
    found = logit_gradients(LOSSES[name], jnp.asarray(z, dtype), labels, y_hat)
    exact = np.asarray(jnp.asarray(z, dtype).astype(jnp.float32))
    ends = (expected_of(name, exact, labels, t, y_hat)[1] for t in (0, 1))
    assert_close(found, ends)


def test_uniform_label_smoothing_takes_the_mean_logit_from_the_labels():
  # The form in which MaxSup's paper writes it: CE + θ·(z_y − mean z).
  z, labels, _ = problem(10)
  found, _ = measured(z, labels, 0.3, of='label_smoothing')
  hard, _ = cross_entropy(z, labels)
  gap = z[np.arange(6), labels] - z.mean(-1, dtype=np.float64)
  np.testing.assert_allclose(found, hard + 0.3 * gap, rtol=4e-7)


def test_max_suppression_is_label_smoothing_where_the_prediction_is_right():
  z, labels, _ = problem(10)
  suppressed, smoothed = (
    measured(z, labels, 0.3, of=name)
    for name in ('max_suppression', 'label_smoothing')
  )
  right = z.argmax(-1) == labels
  assert right.any()
  assert not right.all()
  assert_close([a[right] for a in suppressed], [a[right] for a in smoothed])
  assert (suppressed[0] > smoothed[0])[~right].all()


def test_the_highest_logits_share_the_gradient_of_max_suppression():
  z = np.array([[1, 1, 0, -1], [0, 0, 0, 0], [2, 1, 2, 2]], np.float32)
  labels = np.array([2, 0, 1])
  found = measured(z, labels, 0.5, of='max_suppression')
  assert_close(found, expected_of('max_suppression', z, labels, 0.5))


@pytest.mark.parametrize('name', APART)
def test_masked_classes_and_examples_count_for_nothing(name):
  z, labels, _ = problem(6)
  labels = np.maximum(labels, 2)
  value, gradient = expected_of(name, z[:, 2:], labels - 2, 0.4)
  gradient = np.pad(gradient, ((0, 0), (2, 0)))
  value[4] = gradient[4] = 0
  theta, where = np.full(6, 0.4), np.arange(6) != 4
  z[:, :2], z[4], labels[4], theta[4] = -np.inf, np.nan, -1, np.nan
  found = measured(z, labels, theta, None, where, of=name)
  assert_close(found, (value, gradient))
  assert not found[1][:, :2].any()
  assert not found[1][4].any()


@pytest.mark.parametrize('name', APART)
def test_the_gradient_of_half_precision_is_rounded_once(name):
  z, labels, _ = problem(1000)
  z = jnp.asarray(z, jnp.bfloat16)
  value, gradient = measured(z, labels, 0.4, of=name)
  exact = np.asarray(z.astype(jnp.float32))
  expected, slope = expected_of(name, exact, labels, 0.4)
  np.testing.assert_allclose(value, expected, rtol=4e-7, atol=4e-7)
  assert gradient.dtype == jnp.bfloat16
  # Of 8 bits the last is half a unit off, and float32 adds its own error.
  gradient = np.asarray(gradient.astype(jnp.float32))
  np.testing.assert_allclose(gradient, slope, rtol=2**-8, atol=1e-7)


def added(method, z, labels):
  """R and its gradient: what θ = 1 adds to cross-entropy."""

  def total(z, theta):
    value = method.loss(z, jnp.asarray(labels), theta)
    return value.sum(), value

  of = jax.grad(total, has_aux=True)
  z = jnp.asarray(z, jnp.float32)
  with_it, without = (of(z, theta)[::-1] for theta in (1.0, 0.0))
  return [np.subtract(*pair) for pair in zip(with_it, without, strict=True)]


def test_a_margin_of_0_is_max_suppression():
  z, labels, _ = problem(10)
  z[:, 3] = z.max(-1)  # two share the highest place
  found = added(METHODS['margin'](m=0.0), z, labels)
  assert_close(found, max_suppression(z, labels, None), relative=2e-6)


def test_within_the_margin_nothing_is_added_to_the_bit():
  z, labels, _ = problem(10)
  z = np.clip(z, -4, 5)
  of = METHODS['margin']
  for value in added(of(), z, labels):
    np.testing.assert_array_equal(value, 0)
  found = added(of(m=2.0), z, labels)
  assert_close(found, margin(z, labels, None, m=2.0), relative=2e-6)
  assert found[0].any()


@pytest.mark.parametrize('k', [4, 400])
def test_one_class_beyond_the_margin_weighs_a_kth(k):
  z = np.zeros((1, k), np.float32)
  z[0, :2] = 2, -10
  value, gradient = added(METHODS['margin'](), z, [0])
  np.testing.assert_allclose(value, [2 / k], atol=1e-6)
  np.testing.assert_allclose(gradient[0, :2], [1 / k, -1 / k], atol=1e-7)
  with pytest.raises(ValueError, match=r'm = -0\.5 must be at least 0'):
    METHODS['margin'](m=-0.5)


@pytest.mark.parametrize('k', [10, 1000])
def test_the_confidence_penalty_sums_over_the_classes(k):
  value, gradient = added(METHODS['confidence_penalty'](), np.ones((1, k)), [0])
  np.testing.assert_allclose(value, [-np.log(k)], rtol=1e-6)  # no mean
  np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_zipf_ranks_equal_logits_alike_and_its_own_label_not():
  z = np.array([[9.0, 2.0, 0.0, 2.0, 1.0]])
  q = np.array([1, 1 / 4, 1, 1 / 3])
  q /= q.sum()
  p = softmax(z[0, 1:])
  for own in (9.0, 1.5, -9.0):
    z[0, 0] = own
    value, gradient = added(METHODS['zipf'](), z, [0])
    np.testing.assert_allclose(value, [(q * np.log(q / p)).sum()], atol=2e-6)
    np.testing.assert_allclose(gradient[0, 1:], p - q, atol=1e-6)
    np.testing.assert_allclose(gradient[0, 0], 0, atol=1e-7)


def test_zipf_is_0_where_the_others_have_its_law_or_are_none():
  law = np.log(1 / np.arange(1, 10, dtype=np.float64))
  z = np.stack([np.append(law, 4.0), np.full(10, -np.inf)])
  z[1, 9] = 4.0
  value, gradient = added(METHODS['zipf'](), z, [9, 9])
  np.testing.assert_allclose(value, 0, atol=1e-6)
  np.testing.assert_allclose(gradient, 0, atol=1e-6)
  with pytest.raises(ValueError, match='class indices, no soft labels'):
    METHODS['zipf']().loss(jnp.zeros((2, 3)), jnp.full((2, 3), 1 / 3), 0.1)


def test_negative_smoothing_has_no_lower_bound_nor_a_gradient_that_ends():
  for high in (1e2, 1e4):
    z = np.array([[high, 0, 0, 0]], np.float32)
    value, gradient = measured(z, np.array([0]), -0.4, of='negative')
    np.testing.assert_allclose(value, [-0.4 * 3 / 4 * high], rtol=1e-6)
    expected = -0.4 * np.array([[3 / 4, -1 / 4, -1 / 4, -1 / 4]])
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_each_method_states_the_bounds_of_its_theta():
  infinite = float('inf')
  bounds = {
    name: (method.lowest, method.highest, method.mixture)
    for name, method in ((n, make()) for n, make in METHODS.items())
  }
  assert bounds == {
    'label_smoothing': (-infinite, 1, True),
    'negative': (-infinite, 0, True),
    'online': (0, 1, True),
    **dict.fromkeys(
      ('max_suppression', 'margin', 'confidence_penalty', 'zipf'),
      (0, infinite, False),
    ),
  }


def measured_batches(penalty, theta):
  """The gradient's error of CE + θ·penalty, of 40 batches of 8 logits."""
  rng = np.random.default_rng(0)
  z = jnp.asarray(3 * rng.normal(size=(40, 8, 5)), jnp.float32)
  labels = jnp.asarray(rng.integers(5, size=(40, 8)))

  def pair(batch):
    ends = logit_gradients(tsla.penalised(penalty), *batch)
    return tuple(g.mean(0) for g in ends)

  return tsla.gradient_statistics(pair, (z, labels), theta, batch_size=8)


@pytest.mark.parametrize('scale', [0.1, 10.0])
def test_another_scale_of_r_is_another_delta_and_the_same_training(scale):
  """R → cR with θ → θ/c: m(θ)/σ² and its least value stay, θ* moves."""

  def penalty(z, labels, y_hat, kept):
    return z.max(-1) - z.mean(-1)

  one = measured_batches(penalty, 0.3)
  other = measured_batches(lambda *a: scale * penalty(*a), 0.3 / scale)
  assert float(other.mse_ratio.value) == pytest.approx(
    float(one.mse_ratio.value), rel=1e-5
  )
  assert float(other.theta_star.value) * scale == pytest.approx(
    float(one.theta_star.value), rel=1e-4
  )
  assert float(other.delta.value) != pytest.approx(
    float(one.delta.value), rel=0.2
  )


def test_a_margin_that_nothing_violates_has_a_delta_of_1_and_says_nothing():
  found = measured_batches(lambda z, *a: 0 * z.max(-1), 0.3)
  assert float(found.delta.value) == float(found.mse_ratio.value) == 1


def test_what_a_penalty_is_given():
  seen = []

  def penalty(z, labels, y_hat, kept):
    seen.append((z, labels, y_hat, kept))
    return z.sum(-1)

  z = np.array([[1, -np.inf, 3], [-np.inf, 2, -np.inf]], np.float16)
  y_hat = np.array([0.5, 0.25, 0.25])
  tsla.penalised(penalty)(z, np.array([0, 1]), 0.1, y_hat)
  ((z, labels, y_hat, kept),) = seen
  assert z.dtype == jnp.float32
  np.testing.assert_array_equal(z, [[1, 3 - 1e4, 3], [2 - 1e4, 2, 2 - 1e4]])
  np.testing.assert_array_equal(kept, [[1, 0, 1], [0, 1, 0]])
  np.testing.assert_array_equal(labels, [0, 1])
  np.testing.assert_allclose(y_hat, [[2 / 3, 0, 1 / 3], [0, 1, 0]], rtol=1e-6)


def epochs(k, batches=5, batch=16):
  """Logits and labels: class 0 has no example, the last no right one."""
  rng = np.random.default_rng(1)
  for _ in range(3):
    z = rng.normal(size=(batches, batch, k)) - 9 * (np.arange(k) == k - 1)
    labels = 1 + rng.integers(k - 1, size=(batches, batch))
    z[:, ::2] += 2 * np.eye(k)[labels[:, ::2]]
    yield list(zip(z.astype(np.float32), labels, strict=True))


def test_online_is_the_mean_prediction_of_the_right_examples_of_a_class():
  k = 6
  target = METHODS['online']().target(tsla.Task(k, 80, None))
  state, means = target.state, np.full((k, k), 1 / k)
  update, end_epoch = jax.jit(target.update), jax.jit(target.end_epoch)
  for epoch in epochs(k):
    right = [[] for _ in range(k)]
    for z, labels in epoch:
      # It is of the last epoch, whatever this one has seen so far.
      y_hat = target.y_hat((), state, tsla.Seen(labels, labels))
      np.testing.assert_allclose(y_hat, means[labels], rtol=0, atol=1e-6)
      state = update(state, tsla.Seen(labels, labels, logits=z))
      for row, label in zip(z.astype(np.float64), labels, strict=True):
        if row.argmax() == label:
          right[label].append(softmax(row))
    counts = np.array([len(rows) for rows in right])
    np.testing.assert_array_equal(state.counts, counts)
    np.testing.assert_array_equal(counts > 0, [0, 1, 1, 1, 1, 0])
    uniform = [np.full(k, 1 / k)]
    means = np.stack([np.mean(rows or uniform, axis=0) for rows in right])
    state = end_epoch(state)
    np.testing.assert_allclose(state.y_hat, means, rtol=0, atol=1e-6)
    assert not state.sums.any()
    assert not state.counts.any()


def test_too_many_classes_for_their_means_are_refused():
  assert class_means(tsla.Task(2, 8, None)).state.y_hat.shape == (2, 2)
  with pytest.raises(ValueError, match=r'21,843 classes.* 3\.8 GB'):
    METHODS['online']().target(tsla.Task(21_843, 8, None))


def test_a_penalty_of_another_shape_is_named():
  loss = tsla.penalised(lambda z, labels, y_hat, kept: z.mean())
  with pytest.raises(ValueError, match=r'shape \(\) for logits of shape'):
    loss(jnp.zeros((2, 3)), jnp.array([0, 1]), 0.1)
