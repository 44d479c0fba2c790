"""ŷ: distributions, in float32, without gradient, from sane labels only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import tsla


@pytest.mark.parametrize('num_classes', [1, 2, 1000])
def test_uniform_gives_every_class_the_same_mass(num_classes):
  y_hat = tsla.uniform(num_classes)
  assert y_hat.dtype == jnp.float32
  expected = np.full(num_classes, 1 / num_classes)
  np.testing.assert_allclose(y_hat, expected, rtol=1e-7)


@pytest.mark.parametrize('dtype', [np.uint8, np.int64])
def test_class_prior_is_the_frequency_of_each_class(dtype):
  labels = np.array([[0, 3], [3, 3], [1, 0]], dtype)
  y_hat = tsla.class_prior(labels, 5)
  assert y_hat.dtype == jnp.float32
  expected = np.array([2, 1, 0, 3, 0]) / 6
  np.testing.assert_allclose(y_hat, expected, rtol=1e-7)
  np.testing.assert_array_equal(tsla.class_prior(jnp.array(labels), 5), y_hat)


@pytest.mark.parametrize(
  ('labels', 'message'),
  [
    ([0, -1, 2], 'labels holds -1'),
    ([0, 5], 'labels holds 5'),
    ([0.0, 1.0], 'float64'),
    (np.zeros(0, int), '0 of them'),
  ],
)
def test_class_prior_refuses_labels_it_cannot_count(labels, message):
  with pytest.raises(ValueError, match=message):
    tsla.class_prior(labels, 5)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
def test_teacher_is_a_float32_softmax_of_the_logits(dtype, temperature):
  logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 7)), dtype)
  y_hat = tsla.teacher(logits, temperature)
  assert y_hat.dtype == jnp.float32
  exact = np.asarray(logits.astype(jnp.float32), np.float64)
  expected = scipy.special.softmax(exact / temperature, axis=-1)
  np.testing.assert_allclose(y_hat, expected, rtol=1e-6)


def test_teacher_passes_no_gradient_and_keeps_masked_classes_empty():
  logits = jnp.array([1.0, -jnp.inf, 2.0])
  assert tsla.teacher(logits)[1] == 0

  def concentration(logits, temperature):
    return (tsla.teacher(logits, temperature) ** 2).sum()

  gradients = jax.grad(concentration, argnums=(0, 1))(logits, 2.0)
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, 0)


def test_a_target_of_no_class_or_no_temperature_is_refused():
  with pytest.raises(ValueError, match='num_classes = 0'):
    tsla.uniform(0)
  for temperature in (0.0, -1.0, np.nan):
    with pytest.raises(ValueError, match=f'temperature = {temperature}'):
      tsla.teacher(jnp.zeros(3), temperature)


def test_class_similarity_is_the_cosine_of_the_classes_without_the_negative():
  vectors = np.random.default_rng(0).normal(size=(7, 4))
  vectors[5] = 0  # a class that no example has
  y_hat = np.asarray(tsla.class_similarity(vectors))
  assert y_hat.dtype == np.float32
  for row, v in zip(y_hat, vectors, strict=True):
    cosines = [
      v @ w / (np.linalg.norm(v) * np.linalg.norm(w)) if v @ w > 0 else 0
      for w in vectors
    ]
    expected = np.array(cosines) / sum(cosines) if any(cosines) else None
    if expected is None:
      expected = np.eye(7)[5]
    np.testing.assert_allclose(row, expected, atol=1e-7)
  assert (y_hat == 0).sum() > 7  # some classes point away from each other
  np.testing.assert_allclose(y_hat.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize('vectors', [np.ones(3), [[1.0, np.nan]]])
def test_class_similarity_refuses_what_stands_for_no_class(vectors):
  with pytest.raises(ValueError, match=r'must be finite, \[K, D\]'):
    tsla.class_similarity(vectors)
