"""The passes over the logits that the losses are made of.

All that is as wide as the classes is read here, once for each purpose.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


@jax.custom_jvp
def reduced(
  z: jax.Array, index: jax.Array, top: jax.Array
) -> tuple[jax.Array, ...]:
  """What the loss takes from the logits z f[..., K], with s = z − top.

  Over the allowed classes log Σ exp(s), s at `index`, Σ s and their number, 1
  for none. JAX's own derivative would keep exp(s) and scatter into zeros, each
  as wide as z and in float32; by the rule below the gradient is one pass over z
  that writes nothing but itself.

  An index i32[...] outside [0, K) makes log Σ exp(s) NaN, and with it every
  derivative. `top` is f32[...] (f64[...]), and so are the four results; it is a
  constant to the derivative, for only differences of s count.
  """
  exp_sum, total, count = jax.lax.platform_dependent(
    z, top, cpu=_one_by_one, default=_together
  )
  inside = (index >= 0) & (index < z.shape[-1])
  lse = jnp.log(jnp.where(exp_sum == 0, 1, exp_sum))  # 0: all are masked
  if jax.typeof(z).sharding.spec[-1] is None:
    z_index = jnp.take_along_axis(z, index[..., None], -1, mode='clip')[..., 0]
  else:
    z_index = picked(z, index)
  return (
    jnp.where(inside, lse, jnp.nan),
    z_index.astype(top.dtype) - top,
    total,
    jnp.maximum(count, 1),
  )


def _together(z: jax.Array, top: jax.Array) -> tuple[jax.Array, ...]:
  s, kept = shifted(z, top), allowed(z)
  sums = jnp.exp(s), jnp.where(kept, s, 0), kept.astype(top.dtype)
  return tuple(x.sum(-1) for x in sums)


def _one_by_one(z: jax.Array, top: jax.Array) -> tuple[jax.Array, ...]:
  # XLA's CPU compiler fuses arithmetic, but no comparison, into a sum over
  # classes, and writes down, as wide as z, what two sums share.
  lowest = jnp.asarray(jnp.finfo(top.dtype).min, top.dtype)
  args = z, top, lowest, jnp.ones((), top.dtype)

  def apart(*terms: Callable[..., jax.Array]) -> tuple[jax.Array, ...]:
    sums, own = [], args
    for term in terms:
      own = jax.lax.optimization_barrier(own)
      sums.append(term(*own).sum(-1))
    return tuple(sums)

  def kept(z: jax.Array, _: Any, low: jax.Array, one: jax.Array) -> jax.Array:
    z = z.astype(top.dtype)
    return one - jnp.minimum(jnp.maximum(z, low) - z, one)  # 0 of −inf

  def kept_s(*args: jax.Array) -> jax.Array:
    return jnp.maximum(shifted(*args[:2]), args[2]) * kept(*args)

  exp_sum, every = apart(
    lambda z, top, *_: jnp.exp(shifted(z, top)),
    lambda z, top, *_: shifted(z, top),
  )
  return exp_sum, *jax.lax.cond(
    jnp.isfinite(every).all(),  # no class is masked
    lambda: (every, 0 * every + z.shape[-1]),
    lambda: apart(kept_s, kept),
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
  return out, (
    (p * dz).sum(-1),
    picked(dz, index),
    jnp.where(allowed(z), dz, 0).sum(-1),
    jnp.zeros_like(out[3]),
  )


def picked(x: jax.Array, index: jax.Array) -> jax.Array:
  """X at a class of each, f[...]: no gather, which would move shards of K."""
  classes = jnp.expand_dims(jnp.arange(x.shape[-1]), range(index.ndim))
  return jnp.where(classes == index[..., None], x, 0).sum(-1)


def shifted(z: jax.Array, top: jax.Array) -> jax.Array:
  """S = z − top in the dtype of top, f[..., K]."""
  return z.astype(top.dtype) - top[..., None]


def allowed(z: jax.Array) -> jax.Array:
  """bool[..., K]: the classes that a logit of −inf does not mask."""
  return z != -jnp.inf
