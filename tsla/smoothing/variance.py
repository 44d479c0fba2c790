"""σ², δ, ρ, the bias and θ*: what smoothing does to the gradient's error.

Let `g` and `h` be the gradients of one mini-batch against the true label y and
against the smoothing label ŷ, at fixed weights, and `∇F = E g`. The smoothed
gradient is `(1−θ)·g + θ·h`, exactly, because the loss is linear in its label,
and its mean square error as an estimate of ∇F is

  m(θ) = (1−θ)²·σ² + 2θ(1−θ)·ρ + θ²·δσ²

with `σ² = E‖g−∇F‖²`, `δσ² = E‖h−∇F‖²` and `ρ = E⟨g−∇F, h−∇F⟩`. The paper's δ
holds the bias `b = E h − ∇F` of ŷ: `δσ² = V + ‖b‖²`, with `V = E‖h−E h‖²`.

Two passes over the same m mini-batches estimate all of it: `update_means`
averages the gradients, `products` reduces each mini-batch to a few scalar
products with the means taken off, and `statistics` makes of these every
quantity and, since each scalar belongs to one mini-batch, its jackknife error.
A single pass would have to keep the m gradients or to square before it
subtracts, which float32 cannot do where ‖∇F‖ ≫ σ; the second pass costs a
second evaluation of the gradients.

`gradient_statistics` runs both passes in `lax.scan`. In a Python loop:

  >>> import tsla
  >>> from tsla.smoothing import variance
  >>> x = jax.random.normal(jax.random.key(0), (20, 16, 4))  # 20 mini-batches
  >>> y = (x[..., 0] > 0).astype(int)
  >>> def loss_fn(w, x, y, theta):
  ...   return tsla.smoothed_cross_entropy(x @ w, y, theta).mean()
  >>> gradient, w = jax.jit(jax.grad(loss_fn)), jnp.zeros((4, 2))
  >>> def pairs():
  ...   for batch in zip(x, y):
  ...     yield gradient(w, *batch, 0.0), gradient(w, *batch, 1.0)
  >>> means = variance.init_means(w)
  >>> for g, h in pairs():
  ...   means = variance.update_means(means, g, h)
  >>> rows = [variance.products(means, g, h) for g, h in pairs()]
  >>> rows = jax.tree.map(lambda *row: jnp.stack(row), *rows)
  >>> found = variance.statistics(means, rows, theta=0.1, batch_size=16)
  >>> print(f'{found.sigma2.value:.2f} +- {found.sigma2.error:.2f}')
  0.11 +- 0.02

Where devices share a mini-batch, g and h are the gradients averaged over them
(`jax.lax.pmean`), and every device finds the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from tsla.smoothing.estimates import GradientStatistics, Products, estimate
from tsla.smoothing.losses import wide
from tsla.smoothing.schedules import check_step


class GradientMeans(NamedTuple):
  """Running means of the gradients, the state of the first pass."""

  count: jax.Array  # type: ignore[assignment]  # i32[], mini-batches so far
  g: Any  # ḡ, like the parameters, in float32 or wider
  c: Any  # c̄, the mean of c = h − g


def gradient_statistics(
  gradient_pair: Callable[[Any], tuple[Any, Any]],
  batches: Any,
  theta: ArrayLike,
  *,
  batch_size: int,
  num_examples: int | None = None,
  at_batch_size: int | None = None,
) -> GradientStatistics:
  """Measures the gradient's error over m mini-batches, at fixed weights.

  Both passes of this module in two scans; a few gradients are held at a time.

  Args:
    gradient_pair: from a mini-batch to `(g, h)`, two pytrees of one structure:
      the gradients of its mean loss against y and against ŷ. It is called twice
      on each mini-batch and must return the same both times.
    batches: a pytree of arrays [m, ...], m >= 3 mini-batches or what makes
      them, such as their indices.
    theta: as for `statistics`, like the three that follow.
    batch_size: B.
    num_examples: N, or None for independent mini-batches.
    at_batch_size: B′, None for B.

  Raises:
    ValueError: as `statistics`.

  Example:
    >>> import tsla
    >>> keys = jax.random.split(jax.random.key(0), 1000)
    >>> def gradient_pair(key):  # ∇F = (3, 4), σ² = 2, h = 0
    ...   g = jnp.array([3.0, 4.0]) + jax.random.normal(key, (2,))
    ...   return g, jnp.zeros(2)
    >>> found = tsla.gradient_statistics(gradient_pair, keys, 0.1, batch_size=1)
    >>> print(f'{found.delta.value:.1f} +- {found.delta.error:.1f}')
    13.3 +- 0.5

  Reference:
    arXiv:2006.11653: δ, here ‖∇F‖²/σ² = 12.5, and θ = 1/(1+δ).
  """

  def first_pass(means: Any, batch: Any) -> tuple[GradientMeans, None]:
    return update_means(means, *gradient_pair(batch)), None

  def second_pass(before: Any, batch: Any) -> tuple[Any, Products]:
    pair = _split(*gradient_pair(batch))
    return pair, _products(means, pair, before)

  one = jax.tree.map(lambda leaf: leaf[0], batches)
  shapes, _ = jax.eval_shape(gradient_pair, one)
  means, _ = jax.lax.scan(first_pass, init_means(shapes), batches)
  # Before the first comes the mean, with which all products are 0.
  _, rows = jax.lax.scan(second_pass, (means.g, means.c), batches)
  sizes = {'num_examples': num_examples, 'at_batch_size': at_batch_size}
  return statistics(means, rows, theta, batch_size=batch_size, **sizes)


def init_means(params: Any) -> GradientMeans:
  """The means of no mini-batch yet, for arrays or their shapes and dtypes."""

  def zeros(leaf: Any) -> jax.Array:
    return jnp.zeros(leaf.shape, wide(leaf))

  g, c = (jax.tree.map(zeros, params) for _ in range(2))  # each may be donated
  return GradientMeans(jnp.zeros((), jnp.int32), g, c)


def update_means(means: GradientMeans, g: Any, h: Any) -> GradientMeans:
  """First pass: takes a mini-batch's gradients against y and ŷ into means."""
  count = means.count + 1

  def move(mean: jax.Array, new: jax.Array) -> jax.Array:
    return mean + (new - mean) / count.astype(mean.dtype)

  g, c = jax.tree.map(move, means[1:], _split(g, h))
  return GradientMeans(count, g, c)


def products(
  means: GradientMeans, g: Any, h: Any, before: tuple[Any, Any] | None = None
) -> Products:
  """Second pass: the scalar products of one mini-batch, f32[] each.

  Stack those of all mini-batches to f32[m], as `lax.scan` does.

  Args:
    means: of all mini-batches, this one included.
    g: the gradient against y, again.
    h: the gradient against ŷ, again.
    before: g and h of the mini-batch before this one, of the last for the
      first; needed if `statistics` is given `num_examples`.
  """
  pair = _split(g, h)
  found = _products(means, pair, pair if before is None else _split(*before))
  return found if before is not None else found._replace(pairs=None)


def _products(means: GradientMeans, pair: Any, before: Any) -> Products:
  """Of g and c of a mini-batch and of the one before."""
  mean = means[1:]
  (g, c), (g_, c_) = (
    jax.tree.map(jnp.subtract, each, mean) for each in (pair, before)
  )
  return Products(
    gg=_inner(g, g),
    gc=_inner(g, c),
    cc=_inner(c, c),
    mean_g_g=_inner(means.g, g),
    mean_g_c=_inner(means.g, c),
    mean_c_g=_inner(means.c, g),
    mean_c_c=_inner(means.c, c),
    pairs=(_inner(g_, g), (_inner(g_, c) + _inner(c_, g)) / 2, _inner(c_, c)),
  )


def statistics(
  means: GradientMeans,
  rows: Products,
  theta: ArrayLike,
  *,
  batch_size: int,
  num_examples: int | None = None,
  at_batch_size: int | None = None,
) -> GradientStatistics:
  """Every quantity with its standard error, from the two passes.

  With `S_gc = Σ⟨ġ_i, ċ_i⟩/(m−1)`, where ġ = g − ḡ, c = h − g, and so on:

    σ² = S_gg,  ρ = S_gg + S_gc,  V = S_gg + 2·S_gc + S_cc,
    ‖b‖² = ‖c̄‖² − S_cc/m,  ‖∇F‖² = ‖ḡ‖² − S_gg/m

  without bias: the last two take the sampling error of the means off and may
  come out negative. δ and m(θ)/σ² are ratios, freed of their bias of order 1/m.

  Mini-batches without common examples out of a set of N, such as those of one
  epoch, are not independent. There S_gg estimates what a mini-batch of distinct
  examples has times 1/(1 − B/N), and the means err less, by 1 − mB/N: with all
  of the set used, ‖b‖² is exact. δ and m(θ)/σ² know of that, in their values
  and in their errors (`docs/delta.py` simulates it); the errors of σ², V, ρ and
  θ* do not, and are too long then.

  At another batch size B′, σ², V and ρ are B/B′ of those at B, times
  (1 − B′/N)/(1 − B/N) with N, while b and ∇F stay: δ grows with the batch. This
  holds for means over examples that do not see each other, so not through
  BatchNorm in training mode.

  Args:
    means: of the m mini-batches, from `update_means`.
    rows: f32[m] each, from `products`, m >= 3.
    theta: θ for `mse_ratio`, `smoothed_grad_norm` and `cosine`; may be traced.
    batch_size: B, examples in a mini-batch, over all devices.
    num_examples: N, if the mini-batches have no example in common; None if
      they are independent.
    at_batch_size: B′, the mini-batch size to speak of; None is B.

  Raises:
    ValueError: m < 3, a size that is no integer >= 1, mB > N or B′ >= N; or N
      without `before`.
  """
  m = rows.gg.shape[0]
  size = batch_size if at_batch_size is None else at_batch_size
  for name, each in (('batch_size', batch_size), ('at_batch_size', size)):
    check_step(name, each, least=1)
  sampled, scale = 0.0, batch_size / size
  if num_examples is not None:
    if m * batch_size > num_examples or size >= num_examples:
      raise ValueError(
        f'num_examples = {num_examples!r} is too few for {m} mini-batches of '
        f'{batch_size} and for one of {size}: pass None if they are '
        'independent.'
      )
    sampled = m * batch_size / num_examples
    scale *= 1 - size / num_examples
  pairs = (means.g, means.g), (means.g, means.c), (means.c, means.c)
  gg, gc, cc = (_inner(a, b) for a, b in pairs)
  return estimate((gg, gc, cc), rows, theta, batch_size, sampled, scale)


def _split(g: Any, h: Any) -> tuple[Any, Any]:
  """Returns g and c = h − g, whose scalar products lose nothing to h ≈ g."""
  g, h = jax.tree.map(lambda leaf: leaf.astype(wide(leaf)), (g, h))
  return g, jax.tree.map(lambda h, g: h.reshape(g.shape) - g, h, g)


def _inner(a: Any, b: Any) -> jax.Array:
  # Not a dot product, whose factors an accelerator rounds to bfloat16 or TF32.
  products = jax.tree.map(lambda x, y: jnp.sum((x * y.conj()).real), a, b)
  return jax.tree.reduce(operator.add, products)
