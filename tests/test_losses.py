"""The smoothed cross-entropy against NumPy float64, optax and PyTorch."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from support import ROOT

import tsla

THETAS = (0.0, 0.1, 0.4, 1.0, -0.2)


def float64(array):
  return np.asarray(jnp.asarray(array).astype(jnp.float32), np.float64)


def one_hot(labels, num_classes):
  return np.eye(num_classes)[np.asarray(labels)]


def smoothed(labels, num_classes, theta, y_hat=None):
  """The smoothed label f64[B, K], the definition written out."""
  if y_hat is None:
    y_hat = np.full(num_classes, 1 / num_classes)
  return (1 - theta) * one_hot(labels, num_classes) + theta * y_hat


def cross_entropy(logits, target):
  log_p = scipy.special.log_softmax(float64(logits), axis=-1)
  return -(target * log_p).sum(-1)


def problem(num_classes, batch=5, dtype=jnp.float32, scale=3.0):
  rng = np.random.default_rng(num_classes)
  logits = jnp.asarray(scale * rng.normal(size=(batch, num_classes)), dtype)
  labels = rng.integers(num_classes, size=batch)
  y_hat = rng.dirichlet(np.ones(num_classes), size=batch)
  return logits, labels, y_hat


@functools.partial(jax.jit, static_argnames='of')
def compiled(logits, labels, theta, y_hat=None, where=None, *, of):
  """Loss and ∂(Σ loss)/∂logits; one compilation for all θ of a shape."""

  def total(logits):
    loss = of(logits, labels, theta, y_hat, where)
    return loss.sum(), loss

  gradient, loss = jax.grad(total, has_aux=True)(logits)
  return loss, gradient


smoothed_loss = functools.partial(compiled, of=tsla.smoothed_cross_entropy)
divergence = functools.partial(compiled, of=tsla.smoothed_kl)
hard_loss = functools.partial(
  compiled, of=lambda z, y, t, q, where: tsla.hard_cross_entropy(z, y, where)
)


@pytest.mark.parametrize('theta', THETAS)
@pytest.mark.parametrize('num_classes', [2, 10, 1000])
def test_the_loss_is_its_definition_and_optax(num_classes, theta):
  logits, labels, y_hat = problem(num_classes)
  for y in (labels, one_hot(labels, num_classes)):
    for q in (None, y_hat[0], y_hat):
      loss, _ = smoothed_loss(logits, y, theta, q)
      assert (loss.shape, loss.dtype) == ((5,), jnp.float32)
      target = smoothed(labels, num_classes, theta, q)
      expected = cross_entropy(logits, target)
      np.testing.assert_allclose(loss, expected, rtol=2e-6, atol=2e-6)
  by_optax = optax.softmax_cross_entropy(
    logits, optax.smooth_labels(one_hot(labels, num_classes), theta)
  )
  loss, _ = smoothed_loss(logits, labels, theta)
  np.testing.assert_allclose(loss, by_optax, rtol=2e-6, atol=5e-6)


@pytest.mark.parametrize('scale', [1.0, 1e4])
@pytest.mark.parametrize('theta', THETAS)
@pytest.mark.parametrize('num_classes', [2, 10, 1000])
def test_the_gradient_is_softmax_minus_target(num_classes, theta, scale):
  logits, labels, y_hat = problem(num_classes, scale=scale)
  p = scipy.special.softmax(float64(logits), -1)
  for y in (labels, one_hot(labels, num_classes)):
    for q in (None, y_hat[0], y_hat):
      _, found = smoothed_loss(logits, y, theta, q)
      expected = p - smoothed(labels, num_classes, theta, q)
      np.testing.assert_allclose(found, expected, rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_logits_accumulate_in_float32(dtype, soft):
  # Against float64 of the same rounded logits; a sum in bf16 is 1e-2 off.
  logits, labels, y_hat = problem(4096, dtype=dtype)
  q = y_hat[0] if soft else None
  target = smoothed(labels, 4096, 0.1, q)
  y = one_hot(labels, 4096) if soft else labels
  loss, found = smoothed_loss(logits, y, 0.1, q)
  assert (loss.dtype, found.dtype) == (jnp.float32, dtype)
  np.testing.assert_allclose(loss, cross_entropy(logits, target), rtol=1e-6)
  expected = scipy.special.softmax(float64(logits), -1) - target
  np.testing.assert_allclose(
    float64(found), expected, rtol=jnp.finfo(dtype).eps, atol=1e-7
  )


def test_float64_stays_float64():
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 6)), rng.integers(6, size=4)
    loss, found = smoothed_loss(logits, labels, 0.1)
    assert (loss.dtype, found.dtype) == (np.float64, np.float64)
    log_p = scipy.special.log_softmax(logits, -1)
    expected = -(smoothed(labels, 6, 0.1) * log_p).sum(-1)
    np.testing.assert_allclose(loss, expected, rtol=1e-14)


def test_a_networks_gradient_is_linear_in_the_label():
  # ∇ℓ(y_LS) = (1−θ)·∇ℓ(y) + θ·∇ℓ(ŷ), the two on the right by optax.
  _, labels, y_hat = problem(7, batch=16)
  rng = np.random.default_rng(1)
  x = jnp.asarray(rng.normal(size=(16, 4)), jnp.float32)
  params = [
    jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4, 8), (8, 7))
  ]

  def apply(params):
    return jnp.tanh(x @ params[0]) @ params[1]

  by_optax = jax.jit(
    jax.grad(lambda p, t: optax.softmax_cross_entropy(apply(p), t).mean())
  )
  g = by_optax(params, one_hot(labels, 7))
  h = by_optax(params, y_hat)
  by_theta = jax.jit(
    jax.grad(
      lambda p, theta: tsla.smoothed_cross_entropy(
        apply(p), labels, theta, y_hat
      ).mean()
    )
  )
  for theta in THETAS:
    found = by_theta(params, theta)
    for f, a, b in zip(found, g, h, strict=True):
      np.testing.assert_allclose(f, (1 - theta) * a + theta * b, atol=1e-6)


def test_theta_may_differ_by_example_and_be_differentiated():
  logits, labels, _ = problem(10)
  theta = np.array(THETAS, np.float32)
  loss, _ = smoothed_loss(logits, labels, theta)
  expected = cross_entropy(logits, smoothed(labels, 10, theta[:, None]))
  np.testing.assert_allclose(loss, expected, rtol=2e-6)
  slope = jax.jit(
    jax.grad(lambda t: tsla.smoothed_cross_entropy(logits, labels, t).sum())
  )(0.3)
  expected = cross_entropy(logits, smoothed(labels, 10, 1.0))
  expected = (expected - cross_entropy(logits, one_hot(labels, 10))).sum()
  np.testing.assert_allclose(slope, expected, rtol=1e-5)


def test_leading_dimensions_are_free():
  logits, labels, y_hat = problem(10, batch=6)
  expected = cross_entropy(logits, smoothed(labels, 10, 0.1, y_hat))
  logits = np.asarray(logits)
  cube = logits.reshape(2, 3, 10), labels.reshape(2, 3)
  found, _ = smoothed_loss(*cube, 0.1, y_hat.reshape(2, 3, 10))
  np.testing.assert_allclose(found, expected.reshape(2, 3), rtol=2e-6)
  one, _ = smoothed_loss(logits[0], labels[0], 0.1, y_hat[0])
  np.testing.assert_allclose(one, expected[0], rtol=2e-6)


@pytest.mark.parametrize('dtype', [jnp.int8, jnp.uint8, jnp.int32])
def test_labels_of_any_integer_dtype_are_indices(dtype):
  logits, labels, _ = problem(100)
  expected = cross_entropy(logits, smoothed(labels, 100, 0.1))
  loss, _ = smoothed_loss(logits, jnp.asarray(labels, dtype), 0.1)
  np.testing.assert_allclose(loss, expected, rtol=2e-6)


@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('theta', THETAS)
def test_masked_classes_count_as_absent(theta, soft):
  # The expected values come from the logits with the masked columns cut out.
  rng = np.random.default_rng(2)
  full, _, y_hat = problem(8)
  kept = np.array([0, 2, 3, 7])
  labels = rng.integers(4, size=5)
  y = one_hot(labels, 4)
  if soft:
    y = 0.7 * y + 0.3 * y[:, ::-1]
  logits = full.at[:, [1, 4, 5, 6]].set(-jnp.inf)
  given = np.zeros((5, 8))
  given[:, kept] = y
  given = given if soft else kept[labels]
  p = scipy.special.softmax(float64(full[:, kept]), -1)
  rest = y_hat[:, kept] / y_hat[:, kept].sum(-1, keepdims=True)
  for q, expected_q in ((None, 0.25), (y_hat, rest)):
    target = (1 - theta) * y + theta * expected_q
    loss, found = smoothed_loss(logits, given, theta, q)
    expected = cross_entropy(full[:, kept], target)
    np.testing.assert_allclose(loss, expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(found[:, kept], p - target, atol=3e-7)
    np.testing.assert_array_equal(np.delete(found, kept, axis=1), 0)


@pytest.mark.parametrize('soft', [False, True])
def test_a_label_on_a_masked_class_costs_infinity_unless_theta_is_1(soft):
  logits = jnp.array([[0.0, 1.0, -jnp.inf], [-jnp.inf] * 3])
  labels = np.eye(3)[[2, 2]] if soft else np.array([2, 2])
  for theta in (0.0, 0.3):
    loss, found = smoothed_loss(logits, labels, theta)
    assert np.isposinf(loss).all()
    assert np.isfinite(found).all()
  loss, found = smoothed_loss(logits, labels, 1.0)
  expected = cross_entropy([[0.0, 1.0]], np.full(2, 0.5))
  np.testing.assert_allclose(loss[:1], expected, rtol=1e-6)
  assert np.isfinite(found).all()


@pytest.mark.parametrize('form', ['index', 'soft'])
def test_a_masked_label_of_weight_zero_costs_what_the_others_cost(form):
  logits, labels = np.array([[-np.inf, 1.0, 2.0]]), np.array([0])
  y = labels if form == 'index' else one_hot(labels, 3)
  weights = np.array([0.0, 1.0, 3.0])
  log_p = scipy.special.log_softmax(logits, -1)[0]
  for theta in (0.0, 0.2, 1.0):
    loss = tsla.smoothed_cross_entropy(logits, y, theta, weights=weights)
    expected = -theta * (log_p[1] + 3 * log_p[2]) / 2
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('form', ['index', 'soft', 'kl', 'max_suppression'])
def test_without_smoothing_huge_logits_are_plain_cross_entropy(form, dtype):
  # Many mask a class so, and the sum of two of them is −inf.
  logits, labels = jnp.array([[1, 2, 0, 0], [0, 3, 0, 0]], dtype), [1, 0]
  logits = logits.at[:, 2:].set(jnp.finfo(dtype).min)
  y = one_hot(labels, 4) if form == 'soft' else np.array(labels)
  function = {
    'kl': tsla.smoothed_kl,
    'max_suppression': tsla.METHODS['max_suppression']().loss,
  }.get(form, tsla.smoothed_cross_entropy)
  loss, gradient = compiled(logits, y, 0.0, of=function)
  expected = cross_entropy(logits, one_hot(labels, 4))
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  p = scipy.special.softmax(float64(logits), -1)
  expected, atol = (
    p - one_hot(labels, 4),
    2e-7 if dtype == jnp.float32 else 4e-3,
  )
  np.testing.assert_allclose(float64(gradient), expected, atol=atol)


def test_a_smoothing_label_on_masked_classes_only_adds_nothing():
  logits = jnp.array([[0.0, 1.0, -jnp.inf]])
  y_hat = np.array([0.0, 0.0, 1.0])
  loss, found = smoothed_loss(logits, np.array([0]), 0.4, y_hat)
  expected = 0.6 * cross_entropy([[0.0, 1.0]], np.eye(2)[:1])
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert np.isfinite(found).all()


@pytest.mark.parametrize('form', ['index', 'soft'])
@pytest.mark.parametrize('function', [smoothed_loss, divergence, hard_loss])
def test_masked_examples_weigh_nothing_whatever_they_hold(function, form):
  clean, labels, y_hat = problem(6, batch=7)
  theta = np.full(7, 0.3, np.float32)
  where = np.array([True, False, False, True, False, False, True])
  expected, unmasked = function(clean, labels, theta, y_hat)
  logits = clean.at[1].set(jnp.nan).at[2].set(jnp.inf).at[4].set(-jnp.inf)
  if form == 'index':
    y = labels.copy()
    y[~where] = [-1, -100, 10**6, 6]
  else:
    y = one_hot(labels, 6)
    y[~where] = np.nan
  y_hat[~where] = np.nan
  theta[~where] = np.nan
  loss, found = function(logits, y, theta, y_hat, where)
  np.testing.assert_allclose(loss[where], expected[where], rtol=1e-6)
  np.testing.assert_allclose(found[where], unmasked[where], atol=1e-7)
  np.testing.assert_array_equal(loss[~where], 0)
  np.testing.assert_array_equal(found[~where], 0)


def test_masked_examples_leave_every_other_gradient_clean_too():
  logits, labels, y_hat = problem(6)
  y, theta = one_hot(labels, 6), np.full(5, 0.3)
  where = np.array([True, False, True, False, True])
  arguments = []
  for argument in (logits, y, theta, y_hat):
    argument = np.array(argument, np.float32)
    argument[~where] = np.nan
    arguments.append(argument)
  gradients = jax.jit(
    jax.grad(
      lambda *a: tsla.smoothed_cross_entropy(*a, where=where).sum(),
      argnums=(0, 1, 2, 3),
    )
  )(*arguments)
  for gradient in gradients:
    np.testing.assert_array_equal(gradient[~where], 0)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[where]).max() > 0.1


def test_a_masked_theta_leaves_the_gradient_of_class_weights_clean():
  logits, labels, _ = problem(6)
  where, theta = np.array([True, False, True, False, True]), np.full(5, 0.3)
  log_p = scipy.special.log_softmax(float64(logits), -1)
  target = smoothed(labels, 6, 0.3)
  theta[~where] = np.nan
  found = jax.grad(
    lambda w: tsla.smoothed_cross_entropy(
      logits, labels, jnp.asarray(theta), where=where, weights=w
    ).sum()
  )(jnp.ones(6))
  np.testing.assert_allclose(found, -(target * log_p)[where].sum(0), 1e-5)


@pytest.mark.parametrize('label', [-1, -100, 6, 10**6])
def test_a_kept_label_out_of_range_is_nan_not_another_class(label):
  logits, labels, _ = problem(6)
  labels[2] = label
  for function in (smoothed_loss, divergence, hard_loss):
    loss, found = function(logits, labels, 0.1)
    np.testing.assert_array_equal(np.isnan(loss), [0, 0, 1, 0, 0])
    wrong = np.arange(5)[:, None] == 2
    np.testing.assert_array_equal(np.isnan(found), np.tile(wrong, 6))
    where = labels == np.clip(labels, 0, 5)
    loss, found = function(logits, labels, 0.1, None, where)
    assert np.isfinite(loss).all() and np.isfinite(found).all()


def test_a_wide_label_is_not_cut_to_a_class():
  logits, _, _ = problem(6)
  with jax.enable_x64(True):
    loss = tsla.hard_cross_entropy(logits, np.array([0, 1, 2**32, -(2**32), 5]))
  np.testing.assert_array_equal(np.isnan(loss), [0, 0, 1, 1, 0])
  labels = np.array([0, 1, 2, 3, 200], np.uint8)
  loss = tsla.hard_cross_entropy(jnp.zeros((5, 300)), labels)
  np.testing.assert_allclose(loss, np.log(300), rtol=1e-6)


def k_wide_targets(function, *args):
  """Primitives in the jaxpr that make a target as large as the logits."""
  size, found = args[0].size, []

  def walk(jaxpr):
    for eqn in jaxpr.eqns:
      for param in jax.tree.leaves(
        eqn.params, is_leaf=lambda x: hasattr(x, 'eqns')
      ):
        inner = getattr(param, 'jaxpr', param)
        if hasattr(inner, 'eqns'):
          walk(inner)
      if eqn.primitive.name in ('eq', 'iota', 'scatter', 'scatter-add') and any(
        v.aval.size >= size for v in eqn.outvars
      ):
        found.append(eqn.primitive.name)

  walk(jax.make_jaxpr(function)(*args).jaxpr)
  return found


def test_integer_labels_and_uniform_build_no_k_wide_target():
  logits, labels, _ = problem(64)
  assert not k_wide_targets(tsla.smoothed_cross_entropy, logits, labels, 0.1)
  assert not k_wide_targets(tsla.hard_cross_entropy, logits, labels)
  # The detector sees a target where there is one.
  assert k_wide_targets(tsla.smoothed_kl, logits, labels, 0.1)
  assert k_wide_targets(
    lambda z, y: optax.softmax_cross_entropy(z, jax.nn.one_hot(y, 64)),
    logits,
    labels,
  )


def test_many_classes_are_taken_in_parts_and_nothing_as_wide_is_kept():
  logits, labels, _ = problem(2**16, batch=9)
  logits = logits.at[4, :1000].set(-jnp.inf)
  labels[4] = 2000
  loss, found = smoothed_loss(logits, labels, 0.1)
  target = np.full(logits.shape, 0.1 / 2**16)
  target[np.arange(9), labels] += 0.9
  kept = 2**16 - 1000
  target[4] = np.where(np.arange(2**16) < 1000, 0, 0.1 / kept)
  target[4, 2000] += 0.9
  with np.errstate(invalid='ignore'):
    log_p = scipy.special.log_softmax(float64(logits), -1)
    expected = -np.where(target, target * log_p, 0).sum(-1)
  np.testing.assert_allclose(loss, expected, rtol=2e-6)
  expected = scipy.special.softmax(float64(logits), -1) - target
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)

  lowered = compiled.lower(logits, labels, 0.1, of=tsla.smoothed_cross_entropy)
  memory = lowered.compile().memory_analysis()
  assert memory.temp_size_in_bytes < logits.nbytes / 2


@pytest.mark.parametrize('soft', [False, True])
def test_higher_derivatives_in_either_mode(soft):
  # The Hessian of the loss is that of log Σ exp: diag(p) − p pᵀ.
  with jax.enable_x64(True):
    logits = np.array([0.5, -1.0, 2.0, 0.1])
    p = scipy.special.softmax(logits)
    labels = np.eye(4)[1] if soft else 1
    y_hat = np.array([0.4, 0.3, 0.2, 0.1]) if soft else None

    def loss(z):
      return tsla.smoothed_cross_entropy(z, labels, 0.3, y_hat)

    for second in (
      jax.jacfwd(jax.jacrev(loss)),
      jax.jacrev(jax.jacrev(loss)),
      jax.jacrev(jax.jacfwd(loss)),
    ):
      expected = np.diag(p) - np.outer(p, p)
      np.testing.assert_allclose(second(logits), expected, atol=1e-15)


@pytest.mark.parametrize('theta', [0.0, 0.1, 0.4, 1.0])
def test_the_divergence_is_scipys_and_has_the_losss_gradient(theta):
  logits, labels, y_hat = problem(10)
  p = scipy.special.softmax(float64(logits), -1)
  for y, q in (
    (labels, None),
    (labels, y_hat),
    (one_hot(labels, 10), y_hat[0]),
  ):
    kl, found = divergence(logits, y, theta, q)
    target = smoothed(labels, 10, theta, q)
    expected = scipy.special.rel_entr(target, p).sum(-1)
    np.testing.assert_allclose(kl, expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(found, p - target, atol=3e-7)
  at_target = jnp.log(smoothed(labels, 10, 0.4))
  kl, _ = divergence(at_target, labels, 0.4)
  np.testing.assert_allclose(kl, 0, atol=1e-6)


def test_the_divergences_slope_in_theta():
  # Towards θ = 0 the slope is ŷ·log θ and more: −inf there.
  logits, labels, y_hat = problem(6)
  y_hat[:, 3] = 0
  y_hat /= y_hat.sum(-1, keepdims=True)
  logits = logits.at[:, 5].set(-jnp.inf)  # no class of a label
  labels = labels % 5
  p = scipy.special.softmax(float64(logits), -1)
  rest = y_hat * (np.arange(6) < 5)
  rest /= rest.sum(-1, keepdims=True)
  slope = jax.jit(
    jax.grad(lambda t: tsla.smoothed_kl(logits, labels, t, y_hat).sum())
  )
  assert np.isneginf(slope(0.0))

  def definition(theta):
    target = smoothed(labels, 6, theta, rest)
    return scipy.special.rel_entr(target, p).sum()

  for theta in (0.1, 0.5):
    expected = (definition(theta + 1e-6) - definition(theta - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope(theta), expected, rtol=1e-4)


def test_the_divergence_leaves_masked_classes_out():
  logits = jnp.array([[0.5, -jnp.inf, 1.0, -jnp.inf]])
  p = scipy.special.softmax([0.5, 1.0])
  expected = scipy.special.rel_entr([0.8, 0.2], p).sum()
  kl, _ = divergence(logits, np.array([0]), 0.4)
  np.testing.assert_allclose(kl, [expected], rtol=1e-5)


def test_the_hard_loss_is_optaxs():
  logits, labels, y_hat = problem(10)
  np.testing.assert_allclose(
    hard_loss(logits, labels, None)[0],
    optax.softmax_cross_entropy_with_integer_labels(logits, labels),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    hard_loss(logits, y_hat, None)[0],
    optax.softmax_cross_entropy(logits, y_hat),
    rtol=1e-6,
  )


@pytest.mark.parametrize('num_classes', [2, 10, 1000])
def test_both_conventions_describe_the_same_target(num_classes):
  alpha, labels = 0.15, np.array([1])
  y = one_hot(labels, num_classes)
  by_others = (1 - alpha) * y + alpha * (1 - y) / (num_classes - 1)
  theta = tsla.convert_theta(alpha, num_classes, to='all')
  found = smoothed(labels, num_classes, theta)
  np.testing.assert_allclose(found, by_others, rtol=1e-12)
  back = tsla.convert_theta(theta, num_classes, to='others')
  assert back == pytest.approx(alpha, rel=1e-12)
  assert float(
    jax.jit(lambda a: tsla.convert_theta(a, num_classes, to='all'))(alpha)
  ) == pytest.approx(theta, rel=1e-6)


@pytest.mark.parametrize(
  ('num_classes', 'to', 'message'),
  [
    (1, 'all', 'num_classes = 1'),
    (2.5, 'all', 'num_classes = 2.5 must be an integer'),
    (10, 'optax', "to = 'optax'"),
  ],
)
def test_a_convention_that_does_not_exist_is_refused(num_classes, to, message):
  with pytest.raises(ValueError, match=message):
    tsla.convert_theta(0.1, num_classes, to=to)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'labels': np.zeros((4, 1), int)}, r'integer labels .*\(4, 1\).*\(4, 3\)'),
    ({'labels': np.zeros(3, int)}, r'integer labels .*\(3,\).*\(4, 3\)'),
    ({'labels': np.zeros(4)}, r'soft labels .*\(4,\).*\(4, 3\)'),
    ({'theta': np.zeros(3)}, r'theta .*\(3,\).*\(4, 3\)'),
    ({'theta': np.zeros((4, 1))}, r'theta .*\(4, 1\).*\(4, 3\)'),
    ({'y_hat': np.zeros(4)}, r'y_hat .*\(4,\).*\(4, 3\)'),
    ({'where': np.ones(3, bool)}, r'where .*\(3,\).*\(4, 3\)'),
    ({'y_hat': 0.5}, r'y_hat of shape \(\) .*\(4, 3\)'),
    ({'where': np.ones((4, 3), bool)}, r'where .*\(4, 3\).*\(4, 3\)'),
    ({'weights': np.ones(4)}, r'weights .*\(4,\).*\(4, 3\)'),
    ({'labels': np.zeros((4, 3), int)}, r'One-hot: labels.astype\(float\)'),
    ({'labels': np.zeros(4)}, r'Class indices: labels.astype\(int\)'),
    ({'logits': np.zeros((4, 3), int)}, r'logits .*\(4, 3\).*int32'),
    (
      {'logits': jnp.zeros((4, 3), jnp.float8_e4m3fn)},
      r'float8_e4m3fn must be .*16 bits.*bfloat16',
    ),
    ({'logits': np.float32(0)}, r'logits .*\(\)'),
    ({'y_hat': np.array([0, 1, 2])}, r'integers: jax.nn.one_hot\(y_hat, 3\)'),
    ({'labels': np.zeros((4, 3), complex)}, 'soft labels .*complex.* be real'),
    ({'y_hat': np.ones(3) * 1j}, 'y_hat of dtype complex'),
    ({'where': np.ones(4) * 1j}, 'where of dtype complex'),
    ({'weights': np.ones(3) * 1j}, 'weights of dtype complex'),
    ({'theta': 0.1 + 1j}, 'theta of dtype complex'),
  ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
  arguments = {
    'logits': np.zeros((4, 3), np.float32),
    'labels': np.zeros(4, int),
    'theta': 0.1,
  } | change
  with pytest.raises(ValueError, match=message):
    tsla.smoothed_cross_entropy(**arguments)


def torch_cases():
  saved = json.loads((ROOT / 'tests/golden/torch_losses.json').read_text())
  return saved, [
    pytest.param(c, id='-'.join(map(str, c.values()))[:24])
    for c in saved.pop('cases')
  ]


TORCH, CASES = torch_cases()


@pytest.mark.parametrize('case', CASES)
def test_class_weights_and_sigmoids_are_pytorchs(case):
  # `reduction` and `ignore_index` as the docstring says them.
  with jax.enable_x64(True):
    z, labels, soft, answers, weights = (
      np.array(TORCH[name])
      for name in ('logits', 'labels', 'soft', 'answers', 'weights')
    )
    keep = labels >= 0
    theta = case['theta']

    def loss(z):
      if case['target'] == 'answers':
        return tsla.smoothed_sigmoid_cross_entropy(z, answers, theta)
      if case['target'] == 'soft':
        return tsla.smoothed_cross_entropy(z, soft, theta, weights=weights)
      return tsla.smoothed_cross_entropy(
        z, labels, theta, where=keep, weights=weights
      )

    def reduced(z):
      if case['reduction'] == 'none':
        return loss(z)
      if case['reduction'] == 'sum':
        return loss(z).sum()
      if case['target'] == 'labels':
        return loss(z).sum() / jnp.asarray(weights)[labels].sum(where=keep)
      return loss(z).mean()

    np.testing.assert_allclose(reduced(z), case['loss'], rtol=1e-12)
    found = jax.grad(lambda z: reduced(z).sum())(z)
    np.testing.assert_allclose(found, case['gradient'], rtol=1e-10, atol=1e-14)


def test_numbers_in_where_weigh_examples():
  logits, labels, _ = problem(6)
  expected = cross_entropy(logits, smoothed(labels, 6, 0.1))
  weight = np.array([0.5, 0, 2, 1, 0])
  logits = logits.at[1].set(jnp.nan)
  labels[4] = -1
  for where in (weight, weight.astype(jnp.bfloat16), (2 * weight).astype(int)):
    loss, found = smoothed_loss(logits, labels, 0.1, None, where)
    wide = np.float64(where)
    np.testing.assert_allclose(loss, wide * expected, rtol=2e-6)
    p = scipy.special.softmax(float64(logits), -1)
    kept = wide > 0
    gradient = wide[:, None] * (p - smoothed(labels, 6, 0.1))
    np.testing.assert_allclose(found[kept], gradient[kept], atol=6e-7)
    np.testing.assert_array_equal(found[~kept], 0)
  slope = jax.grad(
    lambda w: tsla.smoothed_cross_entropy(logits, labels, 0.1, where=w).sum()
  )(weight.astype(np.float32))
  np.testing.assert_allclose(slope, (weight > 0) * expected, rtol=2e-6)


@pytest.mark.parametrize('theta_of', ['all', 'sequence', 'token'])
def test_sequences(theta_of):
  logits, labels, _ = problem(7, batch=12)
  y_hat = np.random.default_rng(3).dirichlet(np.ones(7), size=4)
  theta = {
    'all': np.float32(0.3),
    'sequence': np.array([0.1, 0.2, 0.5]),
    'token': np.linspace(0, 0.5, 12).reshape(3, 4),
  }[theta_of]
  logits, labels = np.asarray(logits).reshape(3, 4, 7), labels.reshape(3, 4)
  where = np.arange(4) < np.array([[2], [4], [1]])
  every = np.broadcast_to(
    theta.reshape(*theta.shape, *[1] * (2 - theta.ndim)), (3, 4)
  )
  target = (1 - every)[..., None] * one_hot(labels, 7) + every[
    ..., None
  ] * y_hat
  expected = cross_entropy(logits, target)
  p = scipy.special.softmax(float64(logits), -1)
  loss, found = smoothed_loss(logits, labels, theta, y_hat, where)
  np.testing.assert_allclose(loss, expected * where, rtol=2e-6)
  expected = (p - target) * where[..., None]
  np.testing.assert_allclose(found, expected, atol=4e-7)
  first = smoothed_loss(logits, labels, theta, y_hat, where[:, 1])[0]
  assert (np.asarray(first) > 0).tolist() == [[c] * 4 for c in where[:, 1]]


def test_a_mixed_example_is_smoothed_once():
  # MixUp and CutMix, as the docstring says: three ways, one value.
  logits, first, _ = problem(8)
  second, mix, theta = np.roll(first, 1), np.linspace(0.2, 1, 5), 0.3
  mixed = mix[:, None] * one_hot(first, 8) + (1 - mix)[:, None] * one_hot(
    second, 8
  )
  expected = cross_entropy(logits, (1 - theta) * mixed + theta / 8)
  by_loss = mix * smoothed_loss(logits, first, theta)[0]
  by_loss += (1 - mix) * smoothed_loss(logits, second, theta)[0]
  np.testing.assert_allclose(by_loss, expected, rtol=2e-6)
  by_label, _ = smoothed_loss(logits, mixed, theta)
  np.testing.assert_allclose(by_label, expected, rtol=2e-6)
  before, _ = smoothed_loss(logits, (1 - theta) * mixed + theta / 8, 0.0)
  np.testing.assert_allclose(before, expected, rtol=2e-6)
  twice, _ = smoothed_loss(logits, (1 - theta) * mixed + theta / 8, theta)
  assert np.abs(twice - expected).min() > 1e-3


def test_a_sigmoids_questions():
  z = np.array([[3.0, -80.0], [0.0, 80.0], [1.0, 2.0]])
  y = np.array([[1, 0], [1, 1], [0, 7]])
  theta, q = np.array([0.0, 0.2, 0.5]), np.array([0.5, 0.1])
  loss = tsla.smoothed_sigmoid_cross_entropy(z, y, theta, q)
  t = (1 - theta)[:, None] * y + theta[:, None] * q
  expected = -t * scipy.special.log_expit(z)
  expected -= (1 - t) * scipy.special.log_expit(-z)
  assert np.isnan(loss[2, 1])
  np.testing.assert_allclose(
    np.ravel(loss)[:5], expected.ravel()[:5], rtol=2e-6, atol=1e-30
  )
  where = np.array([[1, 0], [2, 1], [3, 0]])
  z[0, 1], t[2, 1] = np.nan, 0
  loss = tsla.smoothed_sigmoid_cross_entropy(z, y, theta, q, where)
  expected[[0, 2], 1] = 0
  np.testing.assert_allclose(loss, where * expected, rtol=2e-6)
  slopes = jax.grad(
    lambda z: tsla.smoothed_sigmoid_cross_entropy(z, y, theta, q, where).sum()
  )(z)
  kept = where > 0
  expected = where * (scipy.special.expit(z) - t)
  np.testing.assert_allclose(slopes[kept], expected[kept], atol=3e-7)
  np.testing.assert_array_equal(slopes[~kept], 0)
  binary = tsla.smoothed_sigmoid_cross_entropy(z[:, 0], y[:, 0] > 0, 0.2)
  t = 0.8 * y[:, 0] + 0.1
  expected = -t * scipy.special.log_expit(z[:, 0])
  expected -= (1 - t) * scipy.special.log_expit(-z[:, 0])
  np.testing.assert_allclose(binary, expected, rtol=2e-6)


def test_a_sigmoids_labels_are_between_0_and_1_and_real():
  loss = tsla.smoothed_sigmoid_cross_entropy
  z, y = np.float32([1, 1, 1, 1, 1]), np.float32([-0.1, 0, 0.25, 1, 1.1])
  found = np.asarray(loss(z, y, 0.2))
  t = 0.8 * y + 0.1
  expected = -t * scipy.special.log_expit(z)
  expected -= (1 - t) * scipy.special.log_expit(-z)
  np.testing.assert_array_equal(np.isnan(found), [True, *[False] * 3, True])
  np.testing.assert_allclose(found[1:4], expected[1:4], rtol=2e-6)
  for name, args in (
    ('labels', (y * 1j, 0.1)),
    ('theta', (y, 1j)),
    ('y_hat', (y, 0.1, 1j)),
    ('where', (y, 0.1, None, y * 1j)),
  ):
    with pytest.raises(ValueError, match=f'{name} of dtype complex'):
      loss(z, *args)


def test_what_the_docstring_says_of_weights_of_0_and_of_huge_logits():
  def total(where):
    return tsla.smoothed_cross_entropy(
      jnp.zeros((2, 4)), jnp.zeros(2, int), 0.1, where=where
    ).sum()

  slope = jax.grad(total)(jnp.array([0.0, 1e-6]))
  np.testing.assert_allclose(slope, [0, np.log(4)], rtol=1e-6)
  for low, expected in ((-np.inf, np.log(3)), (-3e30, 0.1 * 3e30 / 4)):
    z = np.float32([[0, 0, 0, low]])
    loss = tsla.smoothed_cross_entropy(z, np.array([0]), 0.1)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_any_number_of_rows_keeps_nothing_as_wide(dtype):
  if jax.config.read('jax_disable_most_optimizations'):
    pytest.skip('what a compiler without its passes keeps says nothing')
  logits, labels, _ = problem(1000, batch=509, dtype=dtype)
  lowered = compiled.lower(logits, labels, 0.1, of=tsla.smoothed_cross_entropy)
  memory = lowered.compile().memory_analysis()
  assert memory.temp_size_in_bytes < logits.nbytes / 4
