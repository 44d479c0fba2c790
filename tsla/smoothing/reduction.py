"""The passes over the logits that the losses are made of.

All that is as wide as the classes is read here, once for each purpose.
"""

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

  Args:
    z: the logits, f[..., K].
    index: a class of each, i32[...]; outside [0, K) makes log Σ exp(s) NaN and
      with it every derivative.
    top: what is subtracted, f32[...] (f64[...]), the dtype of the sums; a
      constant to the derivative, for only differences of s count.

  Returns:
    Four arrays of the shape and dtype of `top`.
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
  return tuple(sum_of(z, top, *_bounds(top)) for sum_of in _SUMS)


def _one_by_one(z: jax.Array, top: jax.Array) -> tuple[jax.Array, ...]:
  # XLA's CPU compiler fuses arithmetic into a sum over classes, but writes
  # down, as wide as z, what two sums share.
  sums, args = [], (z, top, *_bounds(top))
  for sum_of in _SUMS:
    args = jax.lax.optimization_barrier(args)
    sums.append(sum_of(*args))
  return tuple(sums)


def _bounds(top: jax.Array) -> tuple[jax.Array, ...]:
  """The least finite number, and 1."""
  lowest = jnp.asarray(jnp.finfo(top.dtype).min, top.dtype)
  return lowest, jnp.ones((), top.dtype)


def _kept(
  z: jax.Array, top: jax.Array, lowest: jax.Array, one: jax.Array
) -> jax.Array:
  """1 where `allowed`, else 0; not by a comparison, which does not fuse."""
  z = z.astype(top.dtype)
  return one - jnp.minimum(jnp.maximum(z, lowest) - z, one)


_SUMS = (
  lambda z, top, lowest, one: jnp.exp(shifted(z, top)).sum(-1),
  lambda z, top, lowest, one: (
    jnp.maximum(shifted(z, top), lowest) * _kept(z, top, lowest, one)
  ).sum(-1),
  lambda *args: _kept(*args).sum(-1),
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
