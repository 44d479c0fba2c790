"""The methods by name; the keyword arguments of each are its options."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

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
  """The target of `online`, with the state `ClassMeans`.

  Raises:
    ValueError: so many classes that their means take more than a gigabyte.
  """
  k = task.num_classes
  if 8 * k**2 > _MOST_BYTES:
    raise ValueError(
      f'{k:,} classes: their means take {8 * k**2 / 1e9:.1f} GB on each device.'
    )

  def update(state: ClassMeans, seen: Seen) -> ClassMeans:
    right = seen.logits.argmax(-1) == seen.labels
    picked = jax.nn.one_hot(seen.labels, k) * right[:, None]
    # Not a scatter, whose sums an accelerator adds up in any order.
    sums = jnp.matmul(
      picked.T,
      jax.nn.softmax(seen.logits),
      precision=jax.lax.Precision.HIGHEST,
    )
    counts = picked.sum(0).astype(jnp.int32)
    return ClassMeans(state.y_hat, state.sums + sums, state.counts + counts)

  def end_epoch(state: ClassMeans) -> ClassMeans:
    counts = state.counts[:, None]
    means = state.sums / jnp.maximum(counts, 1)
    return ClassMeans(
      jnp.where(counts > 0, means, 1 / k),
      jnp.zeros_like(state.sums),
      jnp.zeros_like(state.counts),
    )

  return Target(
    y_hat=lambda arrays, state, seen: state.y_hat[seen.labels],
    state=ClassMeans(
      jnp.full((k, k), 1 / k, jnp.float32),
      jnp.zeros((k, k), jnp.float32),
      jnp.zeros((k,), jnp.int32),
    ),
    update=update,
    end_epoch=end_epoch,
  )


METHODS: dict[str, Callable[..., Method]] = {
  'label_smoothing': label_smoothing,
  'max_suppression': max_suppression,
  'online': online,
}
