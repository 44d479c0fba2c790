"""A problem with every constant known, and SGD, LSR and TSLA on it.

`F(w) = w² + 3·sin²(w)` of one number w, minimum F* = 0 at w = 0:

- not convex: F″ = 2 + 6·cos(2w) is between −4 and 8, so L = 8;
- Polyak–Łojasiewicz: 2μF ≤ F′² for μ = 1/32 (and no μ above 0.1755).

The gradients are seen through Gaussian errors: `e` of variance σ² against the
true label; `d` against the smoothing label, a bias b plus a part of variance V
correlated with e. Thousands of trajectories run side by side, through the
package's own `label_smoothing`, which mixes the two gradients and drops θ.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tsla import smoothing
from tsla.theory.bounds import Plan, Problem

L = 8.0
MU = 1 / 32
START = 3.0  # w_0, far out: F is not convex on the way

_CHUNK = 1024


class Noise(NamedTuple):
  """The errors of the two gradients."""

  sigma2: float  # σ²
  delta: float  # δ, so that E d² = δσ²
  bias_share: float = 0.5  # b²/(δσ²), in [0, 1]
  correlation: float = 0.0  # of e and d − b, in [−1, 1]

  @property
  def bias(self) -> float:
    """The mean of d, b."""
    return (self.bias_share * self.delta * self.sigma2) ** 0.5

  @property
  def variance(self) -> float:
    """V, the variance of d."""
    return (1 - self.bias_share) * self.delta * self.sigma2

  @property
  def rho(self) -> float:
    """ρ = E e·d."""
    return self.correlation * (self.sigma2 * self.variance) ** 0.5

  def draw(
    self, key: jax.Array, shape: tuple[int, ...]
  ) -> tuple[jax.Array, jax.Array]:
    """Independent pairs (e, d), f32[shape] each."""
    keys = jax.random.split(key)
    first, second = (jax.random.normal(part, shape) for part in keys)
    mixed = self.correlation * first + (1 - self.correlation**2) ** 0.5 * second
    return self.sigma2**0.5 * first, self.bias + self.variance**0.5 * mixed


class Record(NamedTuple):
  """What a run shows, before the update at each step t."""

  gradient2: np.ndarray  # f64[T], mean of ‖∇F(w_t)‖² over the trajectories
  gap: np.ndarray  # f64[T], mean of F(w_t) − F*
  chunks: np.ndarray  # f64[T/chunk, n], each trajectory's mean ‖∇F‖²


def value(w: jax.typing.ArrayLike) -> jax.Array:
  """F(w), elementwise."""
  return jnp.square(w) + 3 * jnp.square(jnp.sin(w))


def problem(noise: Noise) -> Problem:
  """The constants that the bounds take."""
  gap = float(value(START))
  return Problem(L, MU, noise.sigma2, noise.delta, gap, noise.rho)


def run(
  plan: Plan,
  noise: Noise,
  *,
  steps: int,
  trajectories: int = 2048,
  seed: int = 0,
  until: Callable[[np.ndarray], bool] = lambda gradient2: False,
) -> Record:
  """Simulates a plan by trajectories side by side, each with its own errors.

  `steps` are rounded up to whole chunks; `until` is told E‖∇F(w_t)‖² so far and
  says whether to stop.
  """
  drop_step = min(plan.steps_one, 2**31 - 1)
  method = (plan.theta, drop_step, plan.step_one, plan.step_two)
  length = min(_CHUNK, steps)
  w = jnp.full((trajectories,), START)
  opt_state = _optimizer(*method).init(w)
  key = jax.random.key(seed, impl='threefry2x32')
  rows, gradient2 = [], np.zeros(0)
  while len(gradient2) < steps and not until(gradient2):
    start = len(gradient2)
    own_key = jax.random.fold_in(key, start)
    smoothed = plan.theta > 0 and start < drop_step
    w, opt_state, row = _chunk(
      w, opt_state, own_key, method, noise, smoothed=smoothed, length=length
    )
    rows.append(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), row))
    gradient2 = np.concatenate([gradient2, rows[-1].gradient2])
  _, gaps, chunks = zip(*rows, strict=True)
  return Record(gradient2, np.concatenate(gaps), np.stack(chunks))


def _optimizer(
  theta: Any, drop_step: Any, step_one: Any, step_two: Any
) -> optax.GradientTransformationExtraArgs:
  return optax.chain(
    smoothing.label_smoothing(smoothing.two_stage(theta, drop_step)),
    optax.sgd(lambda count: jnp.where(count < drop_step, step_one, step_two)),
  )


@functools.partial(jax.jit, static_argnames=('smoothed', 'length'))
def _chunk(
  w: jax.Array,
  opt_state: optax.OptState,
  key: jax.Array,
  method: tuple,
  noise: Noise,
  *,
  smoothed: bool,
  length: int,
) -> tuple[jax.Array, optax.OptState, Record]:
  """`length` updates of every trajectory; `smoothed` where θ may not be 0."""
  tx = _optimizer(*method)
  errors = noise.draw(key, (length, *w.shape))
  if not smoothed:
    errors = errors[:1]  # d is not even drawn then

  def update(carry: tuple, errors: tuple) -> tuple[tuple, tuple]:
    w, opt_state, total = carry
    gap, gradient = jax.vmap(jax.value_and_grad(value))(w)
    g, *h = (gradient + error for error in errors)
    extra = {'smoothing_updates': h[0]} if smoothed else {}
    step, opt_state = tx.update(g, opt_state, w, **extra)
    carry = w + step, opt_state, total + gradient**2
    return carry, ((gradient**2).mean(), gap.mean())

  carry = w, opt_state, jnp.zeros_like(w)
  (w, opt_state, total), (gradient2, gap) = jax.lax.scan(update, carry, errors)
  return w, opt_state, Record(gradient2, gap, total / length)
