"""Metrics of an evaluation: the margin of the label, and the top-3 accuracy."""

import jax
import jax.numpy as jnp


def margins(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
  """A value an example each: f32[B] of f32[B, K] and i32[B]."""
  own = jnp.take_along_axis(logits, labels[:, None], -1)  # f32[B, 1]
  is_label = labels[:, None] == jnp.arange(logits.shape[-1])
  others = jnp.where(is_label, -jnp.inf, logits)
  ahead = jnp.sum(~(own > others), -1)  # a tie counts against the label
  return {'margin': own[:, 0] - others.max(-1), 'top3': 1.0 * (ahead < 3)}
