"""ŷ, the smoothing label: the distribution that label smoothing mixes in.

The smoothed label is `(1−θ)·y + θ·ŷ`. Every function returns ŷ as float32
probabilities for the `y_hat` argument of `tsla.smoothed_cross_entropy`; for the
uniform ŷ, leave that argument out and no target is built.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def uniform(num_classes: int) -> jax.Array:
  """The uniform distribution, ŷ_k = 1/K, f32[K].

  Args:
    num_classes: K >= 1.

  Raises:
    ValueError: num_classes is below 1.

  Example:
    >>> uniform(4)
    Array([0.25, 0.25, 0.25, 0.25], dtype=float32)
  """
  if num_classes < 1:
    raise ValueError(f'num_classes = {num_classes!r} must be at least 1.')
  return jnp.full((num_classes,), 1 / num_classes, jnp.float32)


def class_prior(labels: ArrayLike, num_classes: int) -> jax.Array:
  """The classes' frequencies in a training set, ŷ_k = n_k / Σ n, f32[K].

  Args:
    labels: integer class indices of any shape, in [0, num_classes); concrete,
      not traced, for they are checked and counted on the host.
    num_classes: K >= 1.

  Raises:
    ValueError: there are no labels, or they are not integers in
      [0, num_classes).

  Example:
    >>> class_prior([0, 2, 2, 0, 1, 0, 0, 2], num_classes=4)
    Array([0.5  , 0.125, 0.375, 0.   ], dtype=float32)
  """
  values = np.asarray(labels).ravel()
  if values.size == 0 or not np.issubdtype(values.dtype, np.integer):
    raise ValueError(
      f'labels of dtype {values.dtype}, {values.size} of them: class_prior '
      'needs at least one integer.'
    )
  outside = values[(values < 0) | (values >= num_classes)]
  if outside.size:
    raise ValueError(
      f'labels holds {outside[0]}, outside [0, {num_classes}): leave ignored '
      'examples out first.'
    )
  counts = np.bincount(values, minlength=num_classes)
  return jnp.asarray(counts / values.size, jnp.float32)


def class_similarity(vectors: ArrayLike) -> jax.Array:
  """ŷ of each class by how alike the classes are, f32[K, K], a row a class.

  ŷ_yk ∝ max(0, cos(v_y, v_k)): the class itself has the largest part, one that
  points away none.

  Args:
    vectors: what stands for the classes, as their mean features, f[K, D];
      concrete, not traced. One of length 0 is like itself only.

  Raises:
    ValueError: vectors are not finite, or no f[K, D].

  Example:
    >>> class_similarity([[1.0, 0.0], [3.0, 4.0], [0.0, -2.0]])
    Array([[0.625, 0.375, 0.   ],
           [0.375, 0.625, 0.   ],
           [0.   , 0.   , 1.   ]], dtype=float32)

  Reference:
    Liu, JaJa, Class-Similarity Based Label Smoothing for Confidence
    Calibration, arXiv:2006.14028, whose similarities are others.
  """
  v = np.asarray(vectors, np.float64)
  if v.ndim != 2 or not np.isfinite(v).all():
    raise ValueError(f'vectors of shape {v.shape} must be finite, [K, D].')
  length = np.linalg.norm(v, axis=1, keepdims=True)
  v = v / np.where(length == 0, 1, length)
  cosines = np.maximum(v @ v.T, 0)
  np.fill_diagonal(cosines, 1)
  return jnp.asarray(cosines / cosines.sum(1, keepdims=True), jnp.float32)


def teacher(logits: ArrayLike, temperature: ArrayLike = 1.0) -> jax.Array:
  """A trained model's prediction, ŷ = softmax(logits / T), without gradient.

  f32[..., K]. With T = 1 the smoothing label of LSR-pre and TSLA-pre.

  Args:
    logits: [..., K] of any float dtype; −inf marks a class with no mass.
    temperature: T > 0; above 1 flattens ŷ. May be traced.

  Raises:
    ValueError: temperature is not above 0.

  Example:
    >>> y_hat = teacher([[0.0, 2.0]], temperature=2.0)
    >>> [round(float(p), 4) for p in y_hat[0]]
    [0.2689, 0.7311]

  Reference:
    arXiv:2006.11653, LSR-pre and TSLA-pre.
  """
  traced = isinstance(temperature, jax.core.Tracer)
  if not (traced or np.asarray(temperature) > 0):
    raise ValueError(f'temperature = {temperature!r} must be above 0.')
  logits = jnp.asarray(logits, jnp.float32)
  return jax.lax.stop_gradient(jax.nn.softmax(logits / temperature))
