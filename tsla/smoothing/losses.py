"""The smoothed cross-entropy, from logits, per example.

The smoothed label is `(1−θ)·y + θ·ŷ` and the cross-entropy is linear in its
label, so one core gives the two cross-entropies, against y and against ŷ, and
every loss here combines them. Three rules hold throughout:

- Sums over classes accumulate in float32 (float64 for float64 logits), whatever
  the logits' dtype.
- A logit of −inf masks its class: ŷ puts no mass there, and value and gradient
  stay free of NaN. A huge negative number such as `finfo.min` masks none: it
  counts in the mean, and with θ > 0 the loss is as huge.
- `where`, bool, masks the examples where it is False: value 0 and gradient 0,
  whatever their logits, labels, θ and ŷ hold. Numbers weigh them, and 0 masks.
  The mean is `loss.sum() / where.sum()` in either case. The derivative to a
  weight is the loss, but to one of exactly 0 it is 0: learn from above 0.

θ counts the mass moved to ŷ over all K classes, the convention of optax,
PyTorch, Keras and timm; `convert_theta` translates the other one. A loss is one
value per example, f32[...] (f64 of f64 logits).

Logits of sequences are f32[B, T, K]. θ and `where` may lack last axes of
`[B, T]` (one θ a sequence: f32[B]), ŷ first axes of `[B, T, K]`. A causal
language model predicts the next token, so its labels are shifted by one:

  >>> tokens = jnp.array([[5, 3, 7, 1, 0, 0], [2, 8, 6, 4, 9, 1]])  # 0 pads
  >>> inputs, labels = tokens[:, :-1], tokens[:, 1:]
  >>> where = labels != 0
  >>> logits = jnp.zeros((*inputs.shape, 10))  # of a model, untrained
  >>> loss = smoothed_cross_entropy(logits, labels, 0.1, where=where)
  >>> print(f'{loss.sum() / where.sum():.3f} nats a token, ln 10 = 2.303')
  2.303 nats a token, ln 10 = 2.303

MixUp and CutMix: the loss is linear in the label, so the labels are smoothed
once by either of

  λ·ℓ(z, y_a, θ) + (1−λ)·ℓ(z, y_b, θ) = ℓ(z, λ·y_a + (1−λ)·y_b, θ)

with y_a and y_b as they were in the data; λ may differ by example. Labels that
a MixUp has smoothed already want θ = 0 here.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jax.typing import ArrayLike

from tsla.smoothing.reduction import allowed, picked, reduced, shifted
from tsla.smoothing.schedules import check_step

Shape = tuple[int, ...]


def smoothed_cross_entropy(
  logits: ArrayLike,
  labels: ArrayLike,
  theta: ArrayLike,
  y_hat: ArrayLike | None = None,
  where: ArrayLike | None = None,
  *,
  weights: ArrayLike | None = None,
) -> jax.Array:
  """Cross-entropy against the smoothed label, (1−θ)·CE(y) + θ·CE(ŷ).

  With integer labels and the uniform ŷ it is
  `logsumexp(z) − (1−θ)·z_y − θ·mean(z)`: no K-wide target is built.
  Its gradient with respect to the logits is `softmax(z) − (1−θ)·y − θ·ŷ`. It is
  +inf where y has mass on a masked class and θ is not 1.

  Args:
    logits: z, f32[..., K]; bf16, f16 and f64 as well. −inf masks a class.
    labels: y, either i32[...] class indices or f32[..., K] soft targets, told
      apart by dtype. Ignore examples by `where=labels >= 0`; an index outside
      [0, K) that is not ignored gives NaN, as value and as gradient.
    theta: θ, f32[] or one per example f32[...]; may be traced. A negative θ is
      allowed (negative label smoothing).
    y_hat: ŷ, probabilities f32[K] or f32[..., K]. None is uniform. Mass on
      masked classes goes to the remaining ones in proportion; a ŷ with no mass
      on the remaining ones adds nothing.
    where: bool[...], or the examples' weights, as the module says. None: all.
    weights: w, f32[K], of the classes. The smoothed label's mass on class k
      counts w_k times, as in PyTorch's `CrossEntropyLoss(weight=w)`, whose mean
      for class indices is `loss.sum() / weights[labels].sum(where=where)`.

  Raises:
    ValueError: shapes or dtypes do not fit together.

  Example:
    >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> labels = jnp.array([0, -1])
    >>> where = labels >= 0
    >>> loss = smoothed_cross_entropy(logits, labels, 0.1, where=where)
    >>> [round(float(l), 4) for l in loss]
    [0.3729, 0.0]

  Reference:
    arXiv:2006.11653, LSR.
  """
  batch = canonical(logits, labels, theta, y_hat, where, weights)
  return zero_masked(_smoothed(batch), where)


def hard_cross_entropy(
  logits: ArrayLike,
  labels: ArrayLike,
  where: ArrayLike | None = None,
  *,
  weights: ArrayLike | None = None,
) -> jax.Array:
  """Cross-entropy against the true label, −Σ y_k log softmax(z)_k.

  The value to log beside the optimised loss: it compares across θ.

  Args:
    logits: z, as for `smoothed_cross_entropy`, and so are the others.
    labels: y.
    where: which examples count, and how much.
    weights: f32[K], of the classes.

  Raises:
    ValueError: shapes or dtypes do not fit together.

  Example:
    >>> loss = hard_cross_entropy(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0]))
    >>> round(float(loss[0]), 4)
    0.2395
  """
  batch = canonical(logits, labels, 0.0, None, where, weights)
  return zero_masked(_cross_entropies(batch)[0], where)


def smoothed_kl(
  logits: ArrayLike,
  labels: ArrayLike,
  theta: ArrayLike,
  y_hat: ArrayLike | None = None,
  where: ArrayLike | None = None,
) -> jax.Array:
  """Divergence of the prediction from the smoothed label, KL(y_LS ‖ softmax).

  The smoothed cross-entropy less the entropy of its target, so it is 0 when
  the prediction equals the target, at every θ, and above 0 elsewhere (up to
  the rounding of that difference). The gradient with respect to the logits is
  that of `smoothed_cross_entropy`. This one builds the K-wide target.

  Args:
    logits: z, as for `smoothed_cross_entropy`, and so are the others.
    labels: y.
    theta: θ. The target must be a distribution: a negative
      mass, as from θ < 0, gives NaN. Towards θ = 0 the derivative to θ goes to
      −inf, and is that at 0.
    y_hat: ŷ.
    where: which examples count, and how much.

  Raises:
    ValueError: shapes or dtypes do not fit together.

  Example:
    >>> target = jnp.array([[0.95, 0.05]])
    >>> kl = smoothed_kl(jnp.log(target), jnp.array([0]), theta=0.1)
    >>> abs(float(kl[0])) < 1e-6
    True
  """
  batch = canonical(logits, labels, theta, y_hat, where)
  z, y, theta, smooth, _ = batch
  if _is_index(y):
    y = jax.nn.one_hot(y, z.shape[-1], dtype=theta.dtype)
  smooth = _uniform(z, theta.dtype) if smooth is None else smooth
  theta = theta[..., None]
  target = (1 - theta) * y + theta * smooth
  # Without the classes that are empty at every θ, where 0·log 0 has no slope.
  target = jnp.where((y == 0) & (smooth == 0), 1, target)
  negative_entropy = jnp.where(target < 0, jnp.nan, -entr(target)).sum(-1)
  return zero_masked(_smoothed(batch) + negative_entropy, where)


def smoothed_sigmoid_cross_entropy(
  logits: ArrayLike,
  labels: ArrayLike,
  theta: ArrayLike,
  y_hat: ArrayLike | None = None,
  where: ArrayLike | None = None,
) -> jax.Array:
  """Cross-entropy of yes-or-no questions against the smoothed answers.

  Of a binary classifier, or of K labels that may all be true; of the logits'
  shape, while PyTorch and Keras average over the K. Each question has the
  classes 1 and 0, and θ counts the mass moved to ŷ over both: the loss is
  `−t·log σ(z) − (1−t)·log σ(−z)` with `t = (1−θ)·y + θ·ŷ`, its gradient
  `σ(z) − t`.

  Args:
    logits: z, f32[...] of any shape, finite; bf16, f16 and f64 as well.
    labels: y, of the logits' shape: integers or bool, 0 and 1, or floats in
      0 .. 1. Others give NaN.
    theta: θ, f32[], or with first axes of the logits.
    y_hat: ŷ of 1: f32[], or with last axes of the logits. None is 1/2.
    where: which count, and how much; with first axes of the logits.

  Raises:
    ValueError: shapes or dtypes do not fit together.

  Example:
    >>> logits = jnp.array([[2.0, -1.0, 0.0]])
    >>> labels = jnp.array([[1, 0, 1]])
    >>> loss = smoothed_sigmoid_cross_entropy(logits, labels, theta=0.1)
    >>> [round(float(l), 4) for l in loss[0]]
    [0.2269, 0.3633, 0.6931]

  Reference:
    Szegedy et al., arXiv:1512.00567, section 7, for two classes.
  """
  z, t = _floating(logits), jnp.asarray(labels)
  dtype, shape = wide(z), z.shape
  soft = jnp.issubdtype(t.dtype, jnp.floating)
  t = _checked('labels', t, shape, [shape]).astype(dtype)
  y_hat = _last('y_hat', 0.5 if y_hat is None else y_hat, shape, 0)
  theta = leading('theta', theta, shape, shape).astype(dtype)
  if where is not None:
    keep = leading('where', where, shape, shape).astype(bool)
    z, t, theta, y_hat = (jnp.where(keep, x, 0) for x in (z, t, theta, y_hat))
  z, y_hat = z.astype(dtype), y_hat.astype(dtype)
  valid = (t >= 0) & (t <= 1) if soft else (t == 0) | (t == 1)
  t = jnp.where(valid, t, jnp.nan)
  t = (1 - theta) * t + theta * y_hat
  loss = t * jax.nn.softplus(-z) + (1 - t) * jax.nn.softplus(z)
  return zero_masked(loss, where)


def convert_theta(theta: ArrayLike, num_classes: int, *, to: str) -> ArrayLike:
  """Translate a smoothing strength between the two conventions.

  θ is spread over all K classes, the true one included: the true class keeps
  1−θ+θ/K. α is spread over the other K−1: the true class keeps 1−α. Both
  describe the same target when θ = α·K/(K−1).

  Args:
    theta: the strength to translate; an array or traced as well.
    num_classes: K >= 2, an integer.
    to: 'all' turns α into θ (this project, optax, PyTorch, Keras, timm);
      'others' turns θ into α.

  Raises:
    ValueError: num_classes is no integer >= 2, or `to` is neither of the two.

  Example:
    >>> round(convert_theta(0.09, 10, to='all'), 6)
    0.1
    >>> round(convert_theta(0.1, 10, to='others'), 6)
    0.09
  """
  check_step('num_classes', num_classes, least=2)
  if to == 'all':
    return theta * (num_classes / (num_classes - 1))
  if to == 'others':
    return theta * ((num_classes - 1) / num_classes)
  raise ValueError(f"to = {to!r} must be 'all' or 'others'.")


class _Batch(NamedTuple):
  """Checked and cast arguments; masked examples hold harmless values."""

  logits: jax.Array  # f[..., K], of the caller's dtype
  labels: jax.Array  # i32[...] or f32[..., K], weighted
  theta: jax.Array  # f32[...]
  y_hat: jax.Array | None  # f32[..., K], no mass on masked classes, weighted
  weight: jax.Array | None  # f32[...], of an index's class


def canonical(
  logits: ArrayLike,
  labels: ArrayLike,
  theta: ArrayLike,
  y_hat: ArrayLike | None,
  where: ArrayLike | None,
  weights: ArrayLike | None = None,
) -> _Batch:
  """The arguments of a loss, checked, cast, masked as `where` says."""
  z = _floating(logits)
  if z.ndim == 0:
    raise ValueError(f'logits of shape {z.shape} must have the classes last.')
  shape, dtype, weight = z.shape, wide(z), None

  y = jnp.asarray(labels)
  if _is_index(y):
    cure = ' One-hot: labels.astype(float).'
    _checked('integer labels', y, shape, [shape[:-1]], cure)
    if y.dtype.itemsize < 8:
      y = y.astype(jnp.int32)
    # jnp would count −1 from the end, and cut 2³² to 0.
    y = jnp.where((y < 0) | (y >= shape[-1]), shape[-1], y).astype(jnp.int32)
  else:
    cure = ' Class indices: labels.astype(int).'
    y = _checked('soft labels', y, shape, [shape], cure).astype(dtype)
  theta = leading('theta', theta, shape[:-1], shape).astype(dtype)
  if y_hat is not None:
    if _is_index(jnp.asarray(y_hat)):
      cure = f'jax.nn.one_hot(y_hat, {shape[-1]})'
      raise ValueError(f'y_hat are no probabilities but integers: {cure}.')
    y_hat = _last('y_hat', y_hat, shape, 1).astype(dtype)

  if where is not None:
    keep = leading('where', where, shape[:-1], shape).astype(bool)
    # Before any arithmetic: a zero cotangent times NaN is NaN.
    z, theta = jnp.where(keep[..., None], z, 0), jnp.where(keep, theta, 0)
    y = jnp.where(keep if _is_index(y) else keep[..., None], y, 0)
    if y_hat is not None:
      y_hat = jnp.where(keep[..., None], y_hat, 0)

  if y_hat is not None:
    mass = y_hat.sum(-1, keepdims=True)
    y_hat = jnp.where(allowed(z), y_hat, 0)
    kept = y_hat.sum(-1, keepdims=True)
    y_hat = y_hat * (mass / jnp.where(kept == 0, 1, kept))
  if weights is not None:
    weights = _last('weights', weights, shape, 1).astype(dtype)
    y_hat = weights * (_uniform(z, dtype) if y_hat is None else y_hat)
    if _is_index(y):
      weight = picked(weights, y)
    else:
      y = weights * y
  return _Batch(z, y, theta, y_hat, weight)


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
    hard = hard if batch.weight is None else times(batch.weight, hard)
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
  return times(1 - batch.theta, hard) + times(batch.theta, smooth)


def times(factor: jax.Array, loss: jax.Array) -> jax.Array:
  """Their product, where 0·∞ is 0."""
  return factor * jnp.where((factor == 0) & jnp.isinf(loss), 0, loss)


def zero_masked(loss: jax.Array, where: ArrayLike | None) -> jax.Array:
  """0 for the examples that `where` masks, the others times their weight."""
  if where is None:
    return loss
  weight = leading('where', where, loss.shape, loss.shape)
  loss = jnp.where(weight.astype(bool), loss, 0)
  return loss if weight.dtype == jnp.bool_ else loss * weight.astype(loss.dtype)


def _uniform(z: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
  """ŷ = 1/K over the allowed classes, f32[..., K]."""
  kept = allowed(z).astype(dtype)
  return kept / jnp.maximum(kept.sum(-1, keepdims=True), 1)


def _is_index(labels: jax.Array) -> bool:
  return jnp.issubdtype(labels.dtype, jnp.integer)


def _floating(logits: ArrayLike) -> jax.Array:
  z = jnp.asarray(logits)
  if not jnp.issubdtype(z.dtype, jnp.floating) or z.dtype.itemsize < 2:
    raise ValueError(
      f'logits of shape {z.shape} and dtype {z.dtype} must be floating, of 16 '
      'bits or more: logits.astype(jnp.bfloat16).'
    )
  return z


def wide(z: Any) -> jnp.dtype:
  """The dtype of the sums."""
  with jax.numpy_dtype_promotion('standard'):  # where it is strict, too
    return jnp.promote_types(z.dtype, jnp.float32)


def leading(name: str, array: Any, shape: Shape, like: Shape) -> jax.Array:
  """Broadcasts to the shape what has its first axes, all or none."""
  ends = range(len(shape) + 1)
  array = _checked(name, array, like, [shape[:n] for n in ends])
  more = range(array.ndim, len(shape))
  return jnp.broadcast_to(jnp.expand_dims(array, more), shape)


def _last(name: str, array: Any, shape: Shape, least: int) -> jax.Array:
  """Broadcasts to the logits' shape what has its last axes, `least` or more."""
  starts = [shape[n:] for n in range(len(shape) - least, -1, -1)]
  return jnp.broadcast_to(_checked(name, array, shape, starts), shape)


def _checked(
  name: str, array: Any, like: Shape, shapes: list[Shape], cure: str = ''
) -> jax.Array:
  array = jnp.asarray(array)
  if jnp.iscomplexobj(array):
    raise ValueError(f'{name} of dtype {array.dtype} must be real.')
  if array.shape not in shapes:
    raise ValueError(
      f'{name} of shape {array.shape} do not fit logits of shape {like}: '
      f'expected {" or ".join(map(str, shapes))}.{cure}'
    )
  return array
