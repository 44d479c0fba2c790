"""A schedule of θ with a duration of its own: it halves again and again."""

import jax.numpy as jnp
import optax


def halving(
  theta, durations, half_life_percent: float = 10.0
) -> optax.Schedule:
  """θ·2^(−count / half-life), and 0 from the drop on, if there is one."""
  half_life = half_life_percent / 100 * durations.total_steps
  drop = durations.at('smoothing.drop', durations.total_steps)
  return lambda count: jnp.where(
    count < drop, theta * 2.0 ** (-count / half_life), 0.0
  )
