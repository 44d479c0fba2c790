"""The public losses, each with its definition in NumPy, for any loop.

`LOSSES` is the table: whoever adds a loss adds a row. `loss(z, y, theta)` and
`expected(z, y, theta)` give a value an example (sigmoid: a question), for
logits [..., K], labels [...] in 0 .. K − 1 and one θ.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

import tsla

THETA = 0.3


class Row(NamedTuple):
  loss: Callable
  expected: Callable


def ramp(z, least):
  """f32[K], from `least` up to 2: something of a value for each class."""
  return np.linspace(least, 2, z.shape[-1], dtype=np.float32)


def q_of(z):
  return ramp(z, 0.5) / ramp(z, 0.5).sum(dtype=np.float64)


def one_hot(y, z):
  return np.eye(z.shape[-1])[y]


def target(z, y, theta, q=None):
  q = 1 / z.shape[-1] if q is None else q
  return (1 - theta) * one_hot(y, z) + theta * q


def cross(z, t):
  return -(t * scipy.special.log_softmax(z, -1)).sum(-1)


def with_where_and_weights(z, y, theta):
  where = (y != 1).astype(jnp.float32) * 0.5
  return tsla.smoothed_cross_entropy(
    z, y, theta, where=where, weights=ramp(z, 0.5)
  )


def soft(z, y):
  """Between two classes, as MixUp's."""
  k = z.shape[-1]
  return 0.75 * jax.nn.one_hot(y, k) + 0.25 * jax.nn.one_hot((y + 1) % k, k)


def soft_expected(z, y, theta):
  y = 0.75 * one_hot(y, z) + 0.25 * one_hot((y + 1) % z.shape[-1], z)
  return cross(z, (1 - theta) * y + theta * q_of(z))


def sigmoid_expected(z, y, theta):
  t = (1 - theta) * one_hot(y, z) + theta / 2
  return -t * np.log(scipy.special.expit(z)) - (1 - t) * np.log(
    scipy.special.expit(-z)
  )


LOSSES = {
  'smoothed': Row(
    tsla.smoothed_cross_entropy,
    lambda z, y, theta: cross(z, target(z, y, theta)),
  ),
  'y_hat': Row(
    lambda z, y, theta: tsla.smoothed_cross_entropy(
      z, y, theta, np.float32(q_of(z))
    ),
    lambda z, y, theta: cross(z, target(z, y, theta, q_of(z))),
  ),
  'soft': Row(
    lambda z, y, theta: tsla.smoothed_cross_entropy(
      z, soft(z, y), theta, np.float32(q_of(z))
    ),
    soft_expected,
  ),
  'weighted': Row(
    with_where_and_weights,
    lambda z, y, theta: (
      0.5 * (y != 1) * cross(z, ramp(z, 0.5) * target(z, y, theta))
    ),
  ),
  'hard': Row(
    lambda z, y, theta: tsla.hard_cross_entropy(z, y),
    lambda z, y, theta: cross(z, one_hot(y, z)),
  ),
  'kl': Row(
    tsla.smoothed_kl,
    lambda z, y, theta: scipy.special.rel_entr(
      target(z, y, theta), scipy.special.softmax(z, -1)
    ).sum(-1),
  ),
  'sigmoid': Row(
    lambda z, y, theta: tsla.smoothed_sigmoid_cross_entropy(
      z, jax.nn.one_hot(y, z.shape[-1], dtype=jnp.int32), theta
    ),
    sigmoid_expected,
  ),
  'max_suppression': Row(
    tsla.METHODS['max_suppression']().loss,
    lambda z, y, theta: (
      cross(z, one_hot(y, z)) + theta * (z.max(-1) - z.mean(-1))
    ),
  ),
}


def problem(*shape):
  """Logits f32[shape] and labels."""
  rng = np.random.default_rng(0)
  z = 2 * rng.normal(size=shape).astype(np.float32)
  return z, rng.integers(0, shape[-1], shape[:-1]).astype(np.int32)


def slope(expected, z, y, along, step=1e-5):
  """The derivative of the definition along a direction, a value an example."""
  z, along = np.float64(z), np.float64(along)
  return (
    expected(z + step * along, y, THETA) - expected(z - step * along, y, THETA)
  ) / (2 * step)


def gradient(expected, z, y):
  """∂(Σ loss)/∂z of the definition, one class after the other."""
  columns = []
  for k in range(z.shape[-1]):
    change = slope(expected, z, y, np.eye(z.shape[-1])[k] + 0 * z)
    change = change.reshape(*y.shape, -1).sum(-1)
    columns.append(change)
  return np.stack(columns, -1)
