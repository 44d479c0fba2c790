"""The last layer's closed form against its gradients, and all layers'."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from digits_mlp import CLASSES, exact, per_example, probabilities, trained

import tsla
from tsla.smoothing.method import logit_gradients

THETA = 0.4


def network(seed, epochs, **kwargs):
  """Features, logits, labels of the digits; gradients f64[N, P] of g and h."""
  params, x, y = trained(seed, epochs, **kwargs)
  hidden, logits, _ = probabilities(params, x)
  g = per_example(params, x, y)
  h = per_example(params, x, np.full_like(y, 1 / CLASSES))
  arrays = (hidden.astype(np.float32), logits.astype(np.float32), y.argmax(1))
  return arrays, g, h


def last(gradients, hidden=6):
  return gradients[:, -(hidden + 1) * CLASSES :]


@functools.partial(jax.jit, static_argnames=('of', 'at', 'axis_name'))
def closed_form(arrays, picked, of=None, at=32, axis_name=None):
  def forward(batch):
    return *(leaf[batch] for leaf in arrays), None

  return tsla.last_layer_statistics(
    forward,
    picked,
    THETA,
    at_batch_size=at,
    num_examples=of,
    axis_name=axis_name,
  )


@pytest.mark.parametrize(('epochs', 'noise'), [(0, 0.0), (2, 0.0), (3, 0.4)])
def test_all_examples_give_the_last_layers_exact_statistics(epochs, noise):
  arrays, g, h = network(0, epochs, noise=noise)
  count = len(g)
  picked = np.random.default_rng(0).permutation(count).reshape(3, 599)
  found = closed_form(arrays, picked, of=count)
  truth = exact(last(g), last(h), THETA, batch_size=32, distinct=True)
  for name, expected in truth.items():
    value = getattr(found, name).value
    np.testing.assert_allclose(value, expected, rtol=3e-3, err_msg=name)


@pytest.mark.parametrize('seed', range(5))
def test_estimates_lie_within_three_standard_errors(seed):
  arrays, g, h = network(seed, 2)
  picked = np.random.default_rng(seed).integers(0, len(g), (60, 64))
  found = closed_form(arrays, picked)
  truth = exact(last(g), last(h), THETA, batch_size=32)
  for name, (value, error) in found._asdict().items():
    assert 0 < error < np.inf, name
    assert abs(value - truth[name]) < 3 * error, name


def test_products_are_those_of_the_outer_products():
  rng = np.random.default_rng(0)
  features, labels = rng.normal(size=(3, 20, 4)), rng.integers(0, 3, (3, 20))
  logits = rng.normal(size=(3, 20, 3))
  y_hat = scipy.special.softmax(rng.normal(size=(3, 20, 3)), axis=-1)
  found = tsla.last_layer_statistics(
    lambda batch: batch,
    (features, logits, labels, y_hat),
    THETA,
    at_batch_size=1,
  )
  one = np.concatenate([features, np.ones((3, 20, 1))], -1)
  p = scipy.special.softmax(logits, -1)
  g, h = (
    jnp.asarray(one[..., :, None] * (p - target)[..., None, :], jnp.float32)
    for target in (np.eye(3)[labels], y_hat)
  )
  expected = tsla.gradient_statistics(
    lambda pair: pair,
    (g.reshape(60, 15), h.reshape(60, 15)),
    THETA,
    batch_size=1,
  )
  for name in found._fields:
    np.testing.assert_allclose(
      getattr(found, name), getattr(expected, name), rtol=2e-3, err_msg=name
    )


@pytest.mark.parametrize(
  ('features', 'logits'),
  [((6,), (6, 3)), ((6, 4, 4, 2), (6, 3)), ((6, 2), (6, 5, 3)), ((6, 2), (6,))],
)
def test_features_that_do_not_fit_the_logits_are_refused(features, logits):
  batch = np.zeros((3, *features)), np.zeros((3, *logits))
  with pytest.raises(ValueError, match=r'features of shape .*reshape\(len'):
    tsla.last_layer_statistics(
      lambda batch: (*batch, jnp.zeros(batch[1].shape[:-1], int), None),
      batch,
      THETA,
      at_batch_size=1,
    )


def test_devices_that_share_mini_batches_find_the_same():
  arrays, g, _ = network(0, 2)
  picked = np.random.default_rng(0).integers(0, len(g), (5, 8, 10))
  alone = closed_form(arrays, picked.reshape(5, 80))
  shared = jax.vmap(
    lambda picked: closed_form(arrays, picked, axis_name='devices'),
    in_axes=1,
    axis_name='devices',
  )(picked)
  for one, many in zip(
    jax.tree.leaves(alone), jax.tree.leaves(shared), strict=True
  ):
    np.testing.assert_allclose(np.asarray(many), np.full(8, one), rtol=1e-3)


def test_residuals_leave_masked_classes_alone():
  logits = jnp.array([[0.0, 0.0, -jnp.inf]], jnp.bfloat16)
  loss = tsla.smoothed_cross_entropy
  r, r_hat = logit_gradients(loss, logits, jnp.array([1]))
  assert r.dtype == jnp.float32
  np.testing.assert_allclose(r, [[0.5, -0.5, 0]], atol=1e-6)
  np.testing.assert_allclose(r_hat, 0, atol=1e-6)


def test_a_sequence_has_the_mean_of_its_places_outer_products():
  rng = np.random.default_rng(0)
  shape = (3, 20, 6)
  features, logits = rng.normal(size=(*shape, 4)), rng.normal(size=(*shape, 3))
  labels, where = rng.integers(0, 3, shape), rng.random(shape) > 0.3
  labels[~where] = -1
  found = tsla.last_layer_statistics(
    lambda batch: (*batch[:3], None, batch[3]),
    (features, logits, labels, where),
    THETA,
    at_batch_size=1,
  )
  one = np.concatenate([features, np.ones((*shape, 1))], -1)
  p = scipy.special.softmax(logits, -1)
  g, h = (
    jnp.asarray(
      np.einsum('mbtd,mbtk->mbdk', one, (p - target) * where[..., None]) / 6,
      jnp.float32,
    )
    for target in (np.eye(3)[labels], 1 / 3)
  )
  expected = tsla.gradient_statistics(
    lambda pair: pair,
    (g.reshape(60, 15), h.reshape(60, 15)),
    THETA,
    batch_size=1,
  )
  for name in found._fields:
    np.testing.assert_allclose(
      getattr(found, name), getattr(expected, name), rtol=2e-3, err_msg=name
    )


def test_a_sigmoids_gradients_are_those_of_its_questions():
  rng = np.random.default_rng(0)
  logits, labels = rng.normal(size=(5, 3)), rng.random((5, 3)).round()
  found = logit_gradients(tsla.smoothed_sigmoid_cross_entropy, logits, labels)
  p = scipy.special.expit(logits)
  np.testing.assert_allclose(found, [p - labels, p - 0.5], atol=1e-6)


def test_a_label_outside_the_classes_shows():
  arrays, _, _ = network(0, 0)
  picked = np.arange(60).reshape(3, 20)
  assert np.isfinite(closed_form(arrays, picked).delta.value)
  arrays[2][5] = -1
  for value, _ in closed_form(arrays, picked):
    assert np.isnan(value)


@pytest.mark.parametrize(
  ('epochs', 'noise', 'low', 'high'),
  [(0, 0, 0.6, 1.2), (1, 0, 1.7, 2.8), (10, 0, 2.7, 6), (10, 0.4, 1, 2.1)],
)
def test_how_far_the_last_layer_is_from_all_layers(epochs, noise, low, high):
  # The docstring of `tsla.smoothing.last_layer` quotes these.
  for hidden, seed in ((10, 0), (10, 1), (32, 0)):
    _, g, h = network(seed, epochs, hidden=hidden, noise=noise)
    full, part = (
      exact(*pair, THETA, batch_size=32, distinct=True)['delta']
      for pair in ((g, h), (last(g, hidden), last(h, hidden)))
    )
    assert low < part / full < high
