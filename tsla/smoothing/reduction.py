"""The passes over the logits that the losses are made of.

All that is as wide as the classes is read here, once for each purpose.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

# XLA's CPU compiler writes down what it sums over classes: in parts of so many
# logits that stay in the cache.
_CACHED = 2**17


@jax.custom_jvp
def reduced(
  z: jax.Array, index: jax.Array, top: jax.Array
) -> tuple[jax.Array, ...]:
  """What the loss takes from the logits z f[..., K], with s = z − top.

  Over the allowed classes log Σ exp(s), s at `index`, Σ s and their number, 1
  for none. JAX's own derivative would keep exp(s) and scatter into zeros, each
  as wide as z and in float32; by the rule below the gradient is one pass over z
  that writes nothing but itself.

  Args:
    z: the logits, f[..., K].
    index: a class of each, i32[...]; outside [0, K) gives NaN.
    top: what is subtracted, f32[...] (f64[...]), the dtype of the sums; a
      constant to the derivative, for only differences of s count.

  Returns:
    Four arrays of the shape and dtype of `top`.
  """
  lead = z.shape[:-1]
  number, most = math.prod(lead), max(1, _CACHED // z.shape[-1])
  if number <= 2 * most:
    return _of_rows(z, index, top)
  rows = next(rows for rows in range(most, 0, -1) if number % rows == 0)

  def in_parts(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    parts = [a.reshape(-1, rows, *a.shape[len(lead) :]) for a in arrays]
    out = jax.lax.map(lambda part: _of_rows(*part), parts)
    return tuple(o.reshape(lead) for o in out)

  return jax.lax.platform_dependent(
    z, index, top, cpu=in_parts, default=_of_rows
  )


def _of_rows(
  z: jax.Array, index: jax.Array, top: jax.Array
) -> tuple[jax.Array, ...]:
  s, kept = shifted(z, top), allowed(z)
  total = jnp.exp(s).sum(-1)
  z_index = jnp.take_along_axis(
    z, index[..., None], axis=-1, mode='fill', fill_value=jnp.nan
  )[..., 0]
  return (
    jnp.log(jnp.where(total == 0, 1, total)),  # 0: every class is masked
    z_index - top,
    jnp.where(kept, s, 0).sum(-1),
    jnp.maximum(kept.astype(top.dtype).sum(-1), 1),
  )


@reduced.defjvp
def _reduced_jvp(
  primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
  z, index, top = primals
  dz = tangents[0].astype(top.dtype)
  out = reduced(*primals)
  # Not exp(s) / total: XLA would keep the exp(s) that the value summed.
  p = jnp.exp(shifted(z, top) - out[0][..., None])
  at_index = jnp.arange(z.shape[-1]) == index[..., None]
  return out, (
    (p * dz).sum(-1),
    jnp.where(at_index, dz, 0).sum(-1),
    jnp.where(allowed(z), dz, 0).sum(-1),
    jnp.zeros_like(out[3]),
  )


def shifted(z: jax.Array, top: jax.Array) -> jax.Array:
  """S = z − top in the dtype of top, f[..., K]."""
  return z.astype(top.dtype) - top[..., None]


def allowed(z: jax.Array) -> jax.Array:
  """bool[..., K]: the classes that a logit of −inf does not mask."""
  return z != -jnp.inf
