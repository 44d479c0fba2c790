"""The smoothed cross-entropy, from logits, per example.

The smoothed label is `(1−θ)·y + θ·ŷ` and the cross-entropy is linear in its
label, so one core gives the two cross-entropies, against y and against ŷ, and
every loss here combines them. Three rules hold throughout:

- Sums over classes accumulate in float32 (float64 for float64 logits), whatever
  the logits' dtype.
- A logit of −inf masks its class: ŷ puts no mass there, and value and gradient
  stay free of NaN.
- `where` masks examples: value 0 and gradient 0, whatever the masked logits,
  labels, θ and ŷ hold. The mean over the kept ones is
  `loss.sum() / where.sum()`.

θ counts the mass moved to ŷ over all K classes, the convention of optax,
PyTorch, Keras and timm; `convert_theta` translates the other one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from tsla.smoothing.reduction import allowed, reduced, shifted


def smoothed_cross_entropy(
  logits: jax.typing.ArrayLike,
  labels: jax.typing.ArrayLike,
  theta: jax.typing.ArrayLike,
  y_hat: jax.typing.ArrayLike | None = None,
  where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
  """Cross-entropy against the smoothed label, (1−θ)·CE(y) + θ·CE(ŷ).

  With integer labels and the uniform ŷ it is
  `logsumexp(z) − (1−θ)·z_y − θ·mean(z)`: no K-wide target is built.
  Its gradient with respect to the logits is `softmax(z) − (1−θ)·y − θ·ŷ`.

  Args:
    logits: z, f32[..., K]; bf16, f16 and f64 as well. −inf masks a class.
    labels: y, either i32[...] class indices or f32[..., K] soft targets, told
      apart by dtype. Ignore examples by `where=labels >= 0`; an index outside
      [0, K) that is not ignored gives NaN.
    theta: θ, f32[] or one per example f32[...]; may be traced. A negative θ is
      allowed (negative label smoothing).
    y_hat: ŷ, probabilities f32[K] or f32[..., K]. None is uniform. Mass on
      masked classes goes to the remaining ones in proportion; a ŷ with no mass
      on the remaining ones adds nothing.
    where: bool[...], False masks an example. None keeps all.

  Returns:
    f32[...] (f64 for f64 logits), one value per example, 0 where masked. +inf
    where y has mass on a masked class and θ is not 1.

  Raises:
    ValueError: shapes or dtypes do not fit together.

  Example:
    >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> labels = jnp.array([0, -1])
    >>> where = labels >= 0
    >>> loss = smoothed_cross_entropy(logits, labels, 0.1, where=where)
    >>> [round(float(l), 4) for l in loss]
    [0.3729, 0.0]
    >>> mean = loss.sum() / where.sum()

  Reference:
    arXiv:2006.11653, LSR.
  """
  batch = canonical(logits, labels, theta, y_hat, where)
  return zero_masked(_smoothed(batch), where)


def hard_cross_entropy(
  logits: jax.typing.ArrayLike,
  labels: jax.typing.ArrayLike,
  where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
  """Cross-entropy against the true label, −Σ y_k log softmax(z)_k.

  The value to log beside the optimised loss: it compares across θ.

  Args:
    logits: z, f32[..., K]; −inf masks a class.
    labels: y, i32[...] class indices or f32[..., K] soft targets.
    where: bool[...], False masks an example. None keeps all.

  Returns:
    f32[...] (f64 for f64 logits), one value per example, 0 where masked.

  Raises:
    ValueError: shapes or dtypes do not fit together.

  Example:
    >>> loss = hard_cross_entropy(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0]))
    >>> round(float(loss[0]), 4)
    0.2395
  """
  hard, _ = _cross_entropies(canonical(logits, labels, 0.0, None, where))
  return zero_masked(hard, where)


def smoothed_kl(
  logits: jax.typing.ArrayLike,
  labels: jax.typing.ArrayLike,
  theta: jax.typing.ArrayLike,
  y_hat: jax.typing.ArrayLike | None = None,
  where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
  """Divergence of the prediction from the smoothed label, KL(y_LS ‖ softmax).

  The smoothed cross-entropy less the entropy of its target, so it is 0 when
  the prediction equals the target, at every θ, and above 0 elsewhere (up to
  the rounding of that difference). The gradient with respect to the logits is
  that of `smoothed_cross_entropy`. This one builds the K-wide target.

  Args:
    logits: z, f32[..., K]; −inf masks a class.
    labels: y, i32[...] class indices or f32[..., K] soft targets.
    theta: θ, f32[] or f32[...]. The target must be a distribution: a negative
      mass, as from θ < 0, gives NaN.
    y_hat: ŷ, f32[K] or f32[..., K]. None is uniform.
    where: bool[...], False masks an example. None keeps all.

  Returns:
    f32[...] (f64 for f64 logits), one value per example, 0 where masked.

  Raises:
    ValueError: shapes or dtypes do not fit together.

  Example:
    >>> target = jnp.array([[0.95, 0.05]])
    >>> kl = smoothed_kl(jnp.log(target), jnp.array([0]), theta=0.1)
    >>> abs(float(kl[0])) < 1e-6
    True
  """
  batch = canonical(logits, labels, theta, y_hat, where)
  y = batch.labels
  if _is_index(y):
    y = jax.nn.one_hot(y, batch.logits.shape[-1], dtype=batch.theta.dtype)
  if batch.y_hat is None:
    kept = allowed(batch.logits)
    smooth = kept / jnp.maximum(kept.sum(-1, keepdims=True), 1)
  else:
    smooth = batch.y_hat
  theta = batch.theta[..., None]
  target = (1 - theta) * y + theta * smooth
  kl = _smoothed(batch) + xlogy(target, target).sum(-1)
  return zero_masked(kl, where)


def convert_theta(
  theta: jax.typing.ArrayLike, num_classes: int, *, to: str
) -> jax.typing.ArrayLike:
  """Translate a smoothing strength between the two conventions.

  θ is spread over all K classes, the true one included: the true class keeps
  1−θ+θ/K. α is spread over the other K−1: the true class keeps 1−α. Both
  describe the same target when θ = α·K/(K−1).

  Args:
    theta: the strength to translate; an array or traced as well.
    num_classes: K >= 2.
    to: 'all' turns α into θ (this project, optax, PyTorch, Keras, timm);
      'others' turns θ into α.

  Returns:
    The strength in the convention that `to` names.

  Raises:
    ValueError: num_classes is below 2, or `to` is neither of the two.

  Example:
    >>> round(convert_theta(0.09, 10, to='all'), 6)
    0.1
    >>> round(convert_theta(0.1, 10, to='others'), 6)
    0.09
  """
  if num_classes < 2:
    raise ValueError(f'num_classes = {num_classes!r} must be at least 2.')
  if to == 'all':
    return theta * (num_classes / (num_classes - 1))
  if to == 'others':
    return theta * ((num_classes - 1) / num_classes)
  raise ValueError(f"to = {to!r} must be 'all' or 'others'.")


class _Batch(NamedTuple):
  """Checked and cast arguments; masked examples hold harmless values but θ."""

  logits: jax.Array  # f[..., K], of the caller's dtype
  labels: jax.Array  # i32[...] or f32[..., K]
  theta: jax.Array  # f32[...]
  y_hat: jax.Array | None  # f32[..., K], no mass on masked classes


def canonical(
  logits: jax.typing.ArrayLike,
  labels: jax.typing.ArrayLike,
  theta: jax.typing.ArrayLike,
  y_hat: jax.typing.ArrayLike | None,
  where: jax.typing.ArrayLike | None,
) -> _Batch:
  """The arguments of a loss, checked, cast, masked as `where` says."""
  z = jnp.asarray(logits)
  if z.ndim == 0 or not jnp.issubdtype(z.dtype, jnp.floating):
    raise ValueError(
      f'logits of shape {z.shape} and dtype {z.dtype} must be floating with '
      'the classes last.'
    )
  shape, dtype = z.shape, jnp.promote_types(z.dtype, jnp.float32)

  y = jnp.asarray(labels)
  if _is_index(y):
    y = y.astype(jnp.int32)
    y = jnp.where(y < 0, shape[-1], y)  # jnp would count −1 from the end
    _check_shape('integer labels', y, shape, (shape[:-1],))
  else:
    y = y.astype(dtype)
    _check_shape('soft labels', y, shape, (shape,))
  theta = jnp.asarray(theta, dtype)
  _check_shape('theta', theta, shape, ((), shape[:-1]))
  theta = jnp.broadcast_to(theta, shape[:-1])
  if y_hat is not None:
    y_hat = jnp.asarray(y_hat, dtype)
    _check_shape('y_hat', y_hat, shape, (shape[-1:], shape))

  if where is not None:
    keep = jnp.asarray(where)
    if keep.dtype != jnp.bool_:
      raise ValueError(f'where of dtype {keep.dtype} must be boolean.')
    _check_shape('where', keep, shape, (shape[:-1],))
    # Before any arithmetic: a zero cotangent times NaN is NaN. θ may keep
    # its NaN, for every factor it meets in a gradient is selected here.
    z = jnp.where(keep[..., None], z, 0)
    y = jnp.where(keep if _is_index(y) else keep[..., None], y, 0)
    if y_hat is not None:
      y_hat = jnp.where(keep[..., None], y_hat, 0)

  if y_hat is not None:
    mass = y_hat.sum(-1, keepdims=True)
    y_hat = jnp.where(allowed(z), y_hat, 0)
    kept = y_hat.sum(-1, keepdims=True)
    y_hat = y_hat * (mass / jnp.where(kept == 0, 1, kept))
  return _Batch(z, y, theta, y_hat)


def _cross_entropies(batch: _Batch) -> tuple[jax.Array, jax.Array]:
  """The core: cross-entropy against y and against ŷ, each f32[...]."""
  z, y, y_hat = batch.logits, batch.labels, batch.y_hat
  top = z.max(-1).astype(batch.theta.dtype)
  top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
  if not _is_index(y) or y_hat is not None:
    z = z.astype(top.dtype)  # its gradients are added before they are rounded
  index = y if _is_index(y) else jnp.zeros(y.shape[:-1], jnp.int32)
  lse, s_y, total, count = reduced(z, index, top)
  if _is_index(y):
    hard = lse - s_y
  else:
    # 0·(−inf) counts as 0; mass on a masked class makes the loss +inf.
    counted = jnp.where((y == 0) & ~allowed(z), 0, shifted(z, top))
    hard = (y * (lse[..., None] - counted)).sum(-1)
  if y_hat is None:
    smooth = lse - total / count
  else:
    finite_s = jnp.where(allowed(z), shifted(z, top), 0)
    smooth = (y_hat * (lse[..., None] - finite_s)).sum(-1)
  return hard, smooth


def _smoothed(batch: _Batch) -> jax.Array:
  hard, smooth = _cross_entropies(batch)
  theta = batch.theta
  hard = jnp.where((theta == 1) & (hard == jnp.inf), 0, hard)
  return (1 - theta) * hard + theta * smooth


def zero_masked(
  loss: jax.Array, where: jax.typing.ArrayLike | None
) -> jax.Array:
  """0 for the examples that `where` masks."""
  return loss if where is None else jnp.where(jnp.asarray(where), loss, 0)


def _is_index(labels: jax.Array) -> bool:
  return jnp.issubdtype(labels.dtype, jnp.integer)


def _check_shape(
  name: str,
  array: jax.Array,
  logits_shape: tuple[int, ...],
  shapes: tuple[tuple[int, ...], ...],
) -> None:
  if array.shape not in shapes:
    raise ValueError(
      f'{name} of shape {array.shape} do not fit logits of shape '
      f'{logits_shape}: expected {" or ".join(map(str, shapes))}.'
    )
