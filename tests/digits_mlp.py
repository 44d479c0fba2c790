"""Per-example gradients of a small network on the digits, NumPy in float64."""

import functools

import numpy as np
from sklearn.datasets import load_digits

CLASSES = 10


@functools.cache
def digits():
  """x f64[1797, 64] in [0, 1], y one-hot f64[1797, 10]."""
  data = load_digits()
  return data.data / 16, np.eye(CLASSES)[data.target]


def probabilities(params, x):
  w1, b1, w2, b2 = params
  hidden = np.tanh(x @ w1 + b1)
  logits = hidden @ w2 + b2
  p = np.exp(logits - logits.max(1, keepdims=True))
  return hidden, logits, p / p.sum(1, keepdims=True)


def per_example(params, x, target):
  """Each example's gradient, f64[N, P]; the last layer comes last."""
  hidden, _, p = probabilities(params, x)
  residual = p - target
  back = (residual @ params[2].T) * (1 - hidden**2)
  parts = [outer(x, back), back, outer(hidden, residual), residual]
  return np.concatenate(parts, axis=1)


def outer(a, b):
  return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)


@functools.cache
def trained(seed, epochs, *, hidden=6, noise=0.0):
  """Weights after plain SGD on labels of which a part was drawn anew."""
  rng = np.random.default_rng(seed)
  x, y = digits()
  drawn = np.eye(CLASSES)[rng.integers(0, CLASSES, len(y))]
  y = np.where(rng.random((len(y), 1)) < noise, drawn, y)
  params = [
    rng.normal(size=(64, hidden)) / 8,
    np.zeros(hidden),
    rng.normal(size=(hidden, CLASSES)) / hidden**0.5,
    np.zeros(CLASSES),
  ]
  cuts = np.cumsum([leaf.size for leaf in params])[:-1]
  for _ in range(epochs):
    for picked in np.split(rng.permutation(len(x))[:1792], 56):
      gradient = per_example(params, x[picked], y[picked]).mean(0)
      params = [
        leaf - 0.3 * part.reshape(leaf.shape)
        for leaf, part in zip(params, np.split(gradient, cuts), strict=True)
      ]
  return params, x, y


def exact(g, h, theta, *, batch_size, distinct=False):
  """Every expectation over all mini-batches, from per-example gradients.

  distinct: a mini-batch holds an example once, instead of any number of times.
  """
  count = len(g)
  factor = 1 / batch_size
  if distinct:
    factor *= (count - batch_size) / (count - 1)
  full_g, full_h = g.mean(0), h.mean(0)
  e, q = g - full_g, h - full_h
  sigma2 = factor * (e * e).sum(1).mean()
  variance = factor * (q * q).sum(1).mean()
  rho = factor * (e * q).sum(1).mean()
  bias2 = ((full_h - full_g) ** 2).sum()
  delta = (variance + bias2) / sigma2
  mse = (
    (1 - theta) ** 2 * sigma2
    + 2 * theta * (1 - theta) * rho
    + theta**2 * (variance + bias2)
  )
  grid = np.linspace(-1, 2, 300_001)
  curve = (
    (1 - grid) ** 2 * sigma2
    + 2 * grid * (1 - grid) * rho
    + grid**2 * (variance + bias2)
  )
  smoothed = (1 - theta) * full_g + theta * full_h
  norm, smoothed_norm = np.linalg.norm(full_g), np.linalg.norm(smoothed)
  return {
    'sigma2': sigma2,
    'smoothing_variance': variance,
    'bias2': bias2,
    'rho': rho,
    'delta': delta,
    'mse_ratio': mse / sigma2,
    'theta_star': grid[curve.argmin()],
    'theta_paper': 1 / (1 + delta),
    'grad_norm2': norm**2,
    'smoothed_grad_norm2': smoothed_norm**2,
    'grad_norm': norm,
    'smoothed_grad_norm': smoothed_norm,
    'cosine': full_g @ smoothed / (norm * smoothed_norm),
  }
