"""A smoothing method: the soft maximum of the logits is pulled to their mean.

The maximum of MaxSup, smoothed by a temperature: at 0 it would be MaxSup.
"""

import jax

import tsla


def soft_suppression(temperature: float = 1.0) -> tsla.Method:
  """R = T·log Σ exp(z/T) − mean z."""

  def penalty(z, labels, y_hat, kept):
    soft = temperature * jax.nn.logsumexp(z / temperature, axis=-1)
    return soft - z.mean(-1, where=kept)

  return tsla.Method(tsla.penalised(penalty))
