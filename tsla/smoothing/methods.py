"""The methods by name; the keyword arguments of each are its options."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from tsla.smoothing.losses import smoothed_cross_entropy
from tsla.smoothing.method import Method, Seen, Target, Task, penalised

_MOST_BYTES = 10**9  # of what `online` keeps for the classes


def label_smoothing() -> Method:
  """Label smoothing: R = CE(z, ŷ) − CE(z, y); θ < 0 sharpens the labels.

  Example:
    >>> label_smoothing().mixture
    True

  Reference:
    Szegedy et al., arXiv:1512.00567, section 7; Xu et al., arXiv:2006.11653.
    θ < 0: Wei et al., arXiv:2106.04149.
  """
  return Method(
    smoothed_cross_entropy, mixture=True, lowest=-float('inf'), highest=1.0
  )


def negative() -> Method:
  """Negative label smoothing: label smoothing whose θ is at most 0, as −0.4.

  With the uniform ŷ the loss is `CE − |θ|·(z_y − mean z)`, which falls for ever
  as z_y rises: its gradient stays `θ·(y − ŷ)` where the prediction is right and
  sure. Nothing in it stops the logits: weight decay does, a decaying learning
  rate, or the end of stage one. A schedule that crosses 0 is one of
  `label_smoothing`, whose θ has both signs.

  Example:
    >>> negative().lowest, negative().highest
    (-inf, 0.0)

  Reference:
    Wei et al., To Smooth or Not? When Label Smoothing Meets Noisy Labels,
    arXiv:2106.04149.
  """
  return label_smoothing()._replace(highest=0.0)


def max_suppression() -> Method:
  """MaxSup: R = max z − mean z, on the highest logit instead of the label's.

  Where the prediction is right it is label smoothing with the uniform ŷ. Where
  several logits are the highest they share the gradient.

  Example:
    >>> loss = max_suppression().loss
    >>> logits, labels = jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0])
    >>> round(float(loss(logits, labels, 0.1)[0]), 4)
    0.3729

  Reference:
    Zhou et al., MaxSup: Overcoming Representation Collapse in Label Smoothing,
    arXiv:2502.15798.
  """
  return Method(
    penalised(lambda z, labels, y_hat, kept: z.max(-1) - z.mean(-1, where=kept))
  )


def margin(m: float = 10.0) -> Method:
  """Margin-based label smoothing: R = mean_k max(0, max z − z_k − m).

  It is 0, with its gradient, where no logit is more than m below the highest;
  with m = 0 it is MaxSup. The mean goes over all K classes, so that one beyond
  the margin weighs 1/K: the same θ is weaker with more classes.

  Args:
    m: the margin, in logits, >= 0.

  Raises:
    ValueError: m is below 0.

  Example:
    >>> loss, labels = margin(m=1.5).loss, jnp.array([0])
    >>> logits = jnp.array([[2.0, 1.0, 0.0]])  # one of three is 0.5 beyond
    >>> float(loss(logits, labels, 1.0)[0] - loss(logits, labels, 0.0)[0])
    0.16666...

  Reference:
    Liu et al., The Devil is in the Margin: Margin-based Label Smoothing for
    Network Calibration, arXiv:2111.15430.
  """
  if m < 0:
    raise ValueError(f'm = {m!r} must be at least 0.')

  def beyond(z: jax.Array) -> jax.Array:
    return jax.nn.relu(z.max(-1, keepdims=True) - z - m)

  return Method(
    penalised(lambda z, labels, y_hat, kept: beyond(z).mean(-1, where=kept))
  )


def confidence_penalty() -> Method:
  """Penalty on confidence: R = −H(softmax z) = Σ_k p_k log p_k.

  The sum over the classes, as published: an R that is their mean is K times
  weaker at the same θ. R lies between −log K and 0.

  Example:
    >>> loss = confidence_penalty().loss
    >>> round(float(loss(jnp.zeros((1, 4)), jnp.array([0]), 1.0)[0]), 6)
    0.0

  Reference:
    Pereyra et al., Regularizing Neural Networks by Penalizing Confident Output
    Distributions, arXiv:1701.06548.
  """

  def negative_entropy(z: jax.Array) -> jax.Array:
    log_p = jax.nn.log_softmax(z)
    return (jnp.exp(log_p) * log_p).sum(-1)

  return Method(penalised(lambda z, labels, y_hat, kept: negative_entropy(z)))


def zipf() -> Method:
  """Zipf's label smoothing: R = KL(q ‖ p), where q_k ∝ 1/rank_k.

  p is the softmax over the classes that are not the label's. Their logits are
  ranked, the highest 1; equal ones share the least of their ranks. No gradient
  flows through a rank, so that of R is p − q.

  Published with a second, dense head whose many votes are ranked; this one
  ranks the network's logits. θ is 0.1 there, and 1 for sets such as CIFAR-100.

  It sorts, which is slow on a CPU: value and gradient take 55 times as long as
  those of cross-entropy at K = 1,000, 118 times at 32,000.

  Example:
    >>> loss, labels = zipf().loss, jnp.array([0])
    >>> logits = jnp.log(jnp.array([[5.0, 2.0, 1.0]]))  # p = q
    >>> float(loss(logits, labels, 1.0)[0] - loss(logits, labels, 0.0)[0])
    0.0

  Reference:
    Liang et al., Efficient One Pass Self-distillation with Zipf's Label
    Smoothing, arXiv:2207.12980.
  """

  def penalty(
    z: jax.Array, labels: jax.Array, y_hat: Any, kept: jax.Array
  ) -> jax.Array:
    if labels.ndim == z.ndim:
      raise ValueError('zipf takes class indices, no soft labels.')
    places = jnp.arange(z.shape[-1])
    others = kept & (places != labels[..., None])
    # A sum over classes is the same in any order: from here on that of ranks.
    z = -jnp.sort(jnp.where(others, -z, jnp.inf))
    there = places < others.sum(-1, keepdims=True)
    z = jnp.where(there, z, 0)
    lower = jnp.diff(z, prepend=jnp.inf) != 0  # than the one before
    rank = 1 + jax.lax.cummax(jnp.where(lower, places, 0), axis=z.ndim - 1)
    q = jnp.where(there, 1 / rank.astype(z.dtype), 0)
    q /= jnp.maximum(q.sum(-1, keepdims=True), 1)  # without others it is 0
    log_p = jnp.where(there, jax.nn.log_softmax(z, where=there), 0)
    return -(entr(q) + q * log_p).sum(-1)

  return Method(penalised(penalty), sorts=True)


class ClassMeans(NamedTuple):
  """State of `online`: all classes' mean predictions, then and now."""

  y_hat: jax.Array  # f32[K, K], a row a class: of the last epoch
  sums: jax.Array  # f32[K, K], of this epoch so far
  counts: jax.Array  # i32[K], examples in the sums


def online() -> Method:
  """Online label smoothing: ŷ is the mean prediction of the example's class.

  The mean goes over the examples of the class that were classified rightly in
  the last epoch, as they were seen in training; uniform before the first
  epoch's end, and for a class without such an example.

  The published method trains 0.5·CE in its first epoch; this one trains
  (1 − θ)·CE + θ·CE(uniform) there.

  Example:
    >>> target = online().target(Task(num_classes=2, num_examples=8, labels=()))
    >>> target.y_hat((), target.state, Seen(jnp.array([1]), jnp.array([5])))
    Array([[0.5, 0.5]], dtype=float32)

  Reference:
    Zhang et al., Delving Deep into Label Smoothing, arXiv:2011.12562.
  """
  return Method(smoothed_cross_entropy, class_means, mixture=True, highest=1.0)


def class_means(task: Task) -> Target:
  """The target of `online`; ValueError above a gigabyte of `ClassMeans`."""
  k = task.num_classes
  if 8 * k**2 > _MOST_BYTES:
    raise ValueError(
      f'{k:,} classes: their means take {8 * k**2 / 1e9:.1f} GB on each device.'
    )

  def update(state: ClassMeans, seen: Seen) -> ClassMeans:
    right = seen.logits.argmax(-1) == seen.labels
    picked = jax.nn.one_hot(seen.labels, k) * right[:, None]
    p = jax.nn.softmax(seen.logits)
    # Not a scatter, whose sums an accelerator adds up in any order.
    sums = jnp.matmul(picked.T, p, precision=jax.lax.Precision.HIGHEST)
    counts = picked.sum(0).astype(jnp.int32)
    return ClassMeans(state.y_hat, state.sums + sums, state.counts + counts)

  def end_epoch(state: ClassMeans) -> ClassMeans:
    counts = state.counts[:, None]
    means = state.sums / jnp.maximum(counts, 1)
    y_hat = jnp.where(counts > 0, means, 1 / k)
    return jax.tree.map(jnp.zeros_like, state)._replace(y_hat=y_hat)

  none = jnp.zeros((k, k), jnp.float32), jnp.zeros(k, jnp.int32)
  return Target(
    y_hat=lambda arrays, state, seen: state.y_hat[seen.labels],
    state=ClassMeans(jnp.full((k, k), 1 / k, jnp.float32), *none),
    update=update,
    end_epoch=end_epoch,
  )


METHODS: dict[str, Callable[..., Method]] = {
  'label_smoothing': label_smoothing,
  'negative': negative,
  'max_suppression': max_suppression,
  'margin': margin,
  'confidence_penalty': confidence_penalty,
  'zipf': zipf,
  'online': online,
}
