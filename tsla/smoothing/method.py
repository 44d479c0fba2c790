"""What a smoothing method is: a loss, and the target that it smooths towards.

The loss is affine in θ and plain cross-entropy at θ = 0:

  ℓ_θ(z, y) = CE(z, y) + θ·R(z, y, ŷ)

so every method has two stages, shares trunks, and can be measured: the gradient
of an update is `g + θ·∇R`, whose error `tsla.smoothing.variance` estimates.
`penalised` makes the loss of an R; label smoothing, whose R is
`CE(z, ŷ) − CE(z, y)`, has a fused one, `smoothed_cross_entropy`.
`docs/extending.md` has a method of one's own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from tsla.smoothing import losses
from tsla.smoothing.reduction import allowed

# (logits, labels, theta, y_hat=None, where=None) -> f32[...], as
# `smoothed_cross_entropy`: one value an example, and no example sees another.
Loss = Callable[..., jax.Array]
# Below the highest logit; e to the power of it is 0 in float32 and float64.
_FAR_BELOW = 1e4


class Task(NamedTuple):
  """The training set, as far as a target depends on it."""

  num_classes: int  # K
  num_examples: int  # N
  labels: Any  # i32[N], on the host


class Seen(NamedTuple):
  """What a target may look at: a batch of the step.

  For ŷ it is this device's part of the batch, for `update` the whole batch on
  every device.
  """

  labels: jax.Array  # i32[B]
  indices: jax.Array  # i32[B], places in the training set
  # f32[B, H, W, C] as the network sees them; None for `update`
  images: Any = None
  # f32[B, K], for `update` only: of the forward pass whose gradient was applied
  logits: Any = None


class Target(NamedTuple):
  """Where ŷ comes from.

  Attributes:
    y_hat: `(arrays, state, Seen) -> f32[B, K]`, `f32[K]`, or None for uniform.
    arrays: what never changes, placed on the devices with the data set.
    state: before the first update: arrays, finite, saved with the run.
    update: `(state, Seen) -> state`, after each gradient, also where θ = 0, so
      that a run and those that fork from it have the same state; or None.
    end_epoch: `state -> state`, after the last update of an epoch; or None.
  """

  y_hat: Callable[[Any, Any, Seen], jax.Array | None]
  arrays: Any = ()
  state: Any = ()
  update: Callable[[Any, Seen], Any] | None = None
  end_epoch: Callable[[Any], Any] | None = None


# ŷ = 1/K, which the loss knows without an array.
UNIFORM = Target(lambda arrays, state, seen: None)


class Method(NamedTuple):
  """A smoothing method: static, made by a function with keyword options.

  Attributes:
    loss: `(logits, labels, theta, y_hat=None, where=None) -> f32[...]`.
    target: `Task -> Target`; None: ŷ is chosen apart from the method.
    mixture: whether ℓ_1 is a cross-entropy against a distribution. Only then
      do δ and θ = 1/(1 + δ) say something: they ask about θ = 1, which for
      another R is an accident of its scale.
    lowest: the least θ that makes sense.
    highest: the greatest.
    sorts: whether the loss sorts the classes of each example, which is slow on
      a CPU where they are many: a run says so.

  Example:
    >>> method = Method(penalised(lambda z, *_: z.max(-1) - z.mean(-1)))
    >>> float(method.loss(jnp.array([[2.0, 0.0]]), jnp.array([0]), 0.1)[0])
    0.226928...
  """

  loss: Loss
  target: Callable[[Task], Target] | None = None
  mixture: bool = False
  lowest: float = 0.0
  highest: float = float('inf')
  sorts: bool = False


def penalised(penalty: Callable[..., jax.Array]) -> Loss:
  """The loss `CE(z, y) + θ·R(z, y, ŷ)` of a penalty R.

  It takes what `smoothed_cross_entropy` takes, and handles once for all what
  that promises: a logit of −inf masks its class (R sees 10⁴ less than the
  highest logit there, and no gradient comes back); `where` masks examples;
  logits of half precision are cast to float32 once, so the gradient is rounded
  once. At θ = 0 it is the cross-entropy to the bit.

  Args:
    penalty: `(z, labels, y_hat, kept) -> f32[...]`: finite logits f32[..., K],
      labels and ŷ as the loss got them, and bool[..., K], false for classes
      that are masked: leave them out of a mean, `z.mean(-1, where=kept)`. R
      must be finite for logits up to ±3·10⁴, or θ = 0 gives NaN there.

  Example:
    >>> loss = penalised(lambda z, labels, y_hat, kept: (z**2).mean(-1))
    >>> float(loss(jnp.array([[1.0, -1.0]]), jnp.array([0]), 0.0)[0])
    0.126928...
  """

  def loss(
    logits: ArrayLike,
    labels: ArrayLike,
    theta: ArrayLike,
    y_hat: ArrayLike | None = None,
    where: ArrayLike | None = None,
  ) -> jax.Array:
    batch = losses.canonical(logits, labels, theta, y_hat, where)
    z, theta = batch.logits.astype(batch.theta.dtype), batch.theta
    kept = allowed(z)
    top = jax.lax.stop_gradient(z.max(-1, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0)
    finite = jnp.where(kept, z, top - _FAR_BELOW)
    hard = losses.hard_cross_entropy(z, batch.labels)
    extra = penalty(finite, batch.labels, batch.y_hat, kept)
    if extra.shape != hard.shape:
      raise ValueError(
        f'The penalty is of shape {extra.shape} for logits of shape {z.shape}: '
        f'it must be {hard.shape}, one value an example.'
      )
    return losses.zero_masked(hard + losses.times(theta, extra), where)

  return loss


def logit_gradients(
  loss: Loss,
  logits: ArrayLike,
  labels: ArrayLike,
  y_hat: ArrayLike | None = None,
  where: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
  """∂ℓ_0/∂z and ∂ℓ_1/∂z, f32[..., K]: at θ = 0 and θ = 1.

  For label smoothing these are `softmax(z) − y` and `softmax(z) − ŷ`.
  """
  logits = jnp.asarray(logits)
  logits = logits.astype(losses.wide(logits))
  gradient = jax.grad(lambda z, t: loss(z, labels, t, y_hat, where).sum())
  return gradient(logits, 0.0), gradient(logits, 1.0)
