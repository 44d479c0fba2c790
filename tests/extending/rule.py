"""A switch rule: smoothing ends once the two gradients point apart."""

import jax

import tsla


def apart(seen: tsla.Observation, memory, cosine: float = 0.9) -> jax.Array:
  """Whether the cosine between ∇F and its smoothed form is below `cosine`."""
  measured = seen.statistics.cosine
  return measured.value + 2 * measured.error < cosine
