"""The gradient's error in the last linear layer, without a backward pass.

With logits `z = Wᵀa + β` from features `a`, and `ã = (a, 1)`, the gradient of
an example's loss ℓ with respect to `(W, β)` is the outer product `ã rᵀ` of its
features and its residual `r = ∂ℓ/∂z`, for a cross-entropy `softmax(z) − label`.
Two of them have the scalar product `(ã·ã′)(r·r′)`, so features and residuals
alone make of every example a mini-batch of one, and the result holds for
mini-batches of any size. An example that is a sequence has the mean of its
places' outer products as gradient, and the scalar products are sums over pairs
of places.

It speaks of that layer only. On the digits (one hidden layer of 10 or 32 units,
batch 32, uniform ŷ, five seeds) its δ was 0.7 to 1.2 times that of all layers
at initialisation, 1.8 to 2.7 times after one epoch and 2.7 to 6 times from the
tenth on; with 40 % of the labels drawn anew 1.0 to 2.1 times from the first on.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from tsla.smoothing import variance
from tsla.smoothing.estimates import GradientStatistics, Products
from tsla.smoothing.losses import smoothed_cross_entropy, wide
from tsla.smoothing.method import Loss, logit_gradients


def last_layer_statistics(
  forward: Callable[[Any], tuple[jax.Array, ...]],
  batches: Any,
  theta: ArrayLike,
  *,
  loss: Loss = smoothed_cross_entropy,
  at_batch_size: int,
  num_examples: int | None = None,
  axis_name: str | None = None,
) -> GradientStatistics:
  """`gradient_statistics` of the last linear layer and its bias alone.

  Two forward passes over the mini-batches, n examples in all, and no backward
  pass. The errors are jackknifed over examples, so they are shorter than those
  over as many examples in mini-batches.

  Args:
    forward: from a mini-batch to `(features, logits, labels, y_hat)`, or with
      `where` as a fifth: f32[B, D], f32[B, K] and the others as for
      `smoothed_cross_entropy`. The examples must not see each other: BatchNorm
      with running statistics. Of sequences f32[B, T, D] and f32[B, T, K]; their
      loss is the mean over T, to which what `where` masks adds 0. (Per token
      kept is a constant factor more, which δ and θ do not see.)
    batches: a pytree of arrays [m, ...], mini-batches or what makes them.
    theta: θ for the quantities that depend on it; may be traced.
    loss: of a `Method`, or label smoothing's.
    at_batch_size: the mini-batch size to speak of.
    num_examples: N, if the n examples are distinct ones out of N; None if they
      are independent.
    axis_name: mapped axis whose devices each hold a part of every mini-batch;
      all of them find the same.

  Raises:
    ValueError: as `variance.statistics`; features that do not fit the logits.

  Example:
    >>> import tsla
    >>> features = jax.random.normal(jax.random.key(0), (20, 16, 4))
    >>> labels = (features[..., 0] > 0).astype(int)
    >>> def forward(batch):  # of a layer with W = 0 and β = 0
    ...   features, labels = batch
    ...   return features, jnp.zeros((16, 2)), labels, None
    >>> found = tsla.last_layer_statistics(
    ...   forward, (features, labels), theta=0.1, at_batch_size=16
    ... )
    >>> float(found.smoothing_variance.value)  # h = 0: a uniform prediction
    0.0

  Reference:
    arXiv:2006.11653: δ and θ = 1/(1+δ).
  """

  def outer_products(batch: Any) -> tuple[jax.Array, ...]:
    features, logits, labels, y_hat, *where = forward(batch)
    shapes = features.shape, logits.shape
    if len(shapes[0]) < 2 or shapes[0][:-1] != shapes[1][:-1]:
      raise ValueError(
        f'features of shape {shapes[0]} for logits of shape {shapes[1]}: for '
        '[B, K] [B, D], features.reshape(len(features), -1), or [B, T, D].'
      )
    both = logit_gradients(loss, logits, labels, y_hat, *where)
    three = _with_one(features), *both
    # [B, T, ...]; T = 1 of no sequence
    return tuple(x.reshape(len(x), -1, x.shape[-1]) for x in three)

  def first_pass(means: Any, batch: Any) -> tuple[Any, None]:
    rows, *columns = (x.reshape(-1, x.shape[-1]) for x in outer_products(batch))
    pair = tuple(_matmul(rows.T, x) / len(rows) for x in columns)
    if axis_name is not None:
      pair = jax.lax.pmean(pair, axis_name)
    return variance.update_means(means, *pair), None

  def second_pass(_: None, batch: Any) -> tuple[None, Products]:
    return None, _products(means, *outer_products(batch))

  one = jax.tree.map(lambda leaf: leaf[0], batches)
  features, r, _ = jax.eval_shape(outer_products, one)
  shape = jax.ShapeDtypeStruct((features.shape[-1], r.shape[-1]), r.dtype)
  means, _ = jax.lax.scan(first_pass, variance.init_means(shape), batches)
  _, rows = jax.lax.scan(second_pass, None, batches)
  if axis_name is not None:
    # An all-gather whose result `shard_map` knows to be the same on all.
    place, size = jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name)

    def own(x: jax.Array) -> jax.Array:
      return jnp.zeros((size, *x.shape), x.dtype).at[place].set(x)

    rows = jax.lax.psum(jax.tree.map(own, rows), axis_name)
  rows = jax.tree.map(jnp.ravel, rows)
  sizes = {'num_examples': num_examples, 'at_batch_size': at_batch_size}
  return variance.statistics(means, rows, theta, batch_size=1, **sizes)


def _products(
  means: variance.GradientMeans,
  features: jax.Array,
  r: jax.Array,
  r_hat: jax.Array,
) -> Products:
  """f32[B]: of each example's `ã rᵀ` and `ã uᵀ` with the means taken off.

  Here the squares come first, and are small: one example's ‖ã rᵀ‖² is seldom
  far below ‖ḡ‖².
  """
  u = r_hat - r  # of c = h − g
  size, places = _pairs(features, features), features.shape[1]

  def along(mean: jax.Array, x: jax.Array) -> jax.Array:
    return (_matmul(features, mean) * x).sum((1, 2)) / places

  def inner(a: jax.Array, b: jax.Array) -> jax.Array:
    return (size * _pairs(a, b)).sum((1, 2)) / places**2

  g_along_g, g_along_c = along(means.g, r), along(means.g, u)
  c_along_g, c_along_c = along(means.c, r), along(means.c, u)
  gg, gc = jnp.sum(means.g * means.g), jnp.sum(means.g * means.c)
  cc = jnp.sum(means.c * means.c)
  return Products(
    gg=inner(r, r) - 2 * g_along_g + gg,
    gc=inner(r, u) - g_along_c - c_along_g + gc,
    cc=inner(u, u) - 2 * c_along_c + cc,
    mean_g_g=g_along_g - gg,
    mean_g_c=g_along_c - gc,
    mean_c_g=c_along_g - gc,
    mean_c_c=c_along_c - cc,
  )


def _with_one(features: jax.Array) -> jax.Array:
  """ã: the bias is the weight of a feature that is 1."""
  features = features.astype(wide(features))
  edges = (*[(0, 0)] * (features.ndim - 1), (0, 1))
  return jnp.pad(features, edges, constant_values=1)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _pairs(a: jax.Array, b: jax.Array) -> jax.Array:
  """f32[B, T, T]: scalar products of all pairs of an example's places."""
  return _matmul(a, jnp.swapaxes(b, 1, 2))
