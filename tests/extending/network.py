"""A network: a small vision transformer.

Dosovitskiy et al., An Image is Worth 16x16 Words, arXiv:2010.11929, with the
mean over the patches in place of a class token.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike


class Block(nn.Module):
  """Self-attention and an MLP, each on normalised input and added to it."""

  heads: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps f[B, N, D] to f[B, N, D]."""
    y = nn.LayerNorm(dtype=self.dtype)(x)
    x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype)(y)
    y = nn.LayerNorm(dtype=self.dtype)(x)
    y = nn.gelu(nn.Dense(4 * x.shape[-1], dtype=self.dtype)(y))
    return x + nn.Dense(x.shape[-1], dtype=self.dtype)(y)


class ViT(nn.Module):
  """Its parameters and logits are float32 whatever `dtype` is."""

  num_classes: int
  patch: int
  dim: int
  depth: int
  heads: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    """Logits f32[B, K] of f32[B, H, W, C]; training is no different."""
    del train
    sides = (self.patch, self.patch)
    x = nn.Conv(self.dim, sides, sides, padding='VALID', dtype=self.dtype)(
      images
    )
    x = x.reshape(len(x), -1, self.dim)  # a row a patch
    place = nn.initializers.normal(0.02)
    x = x + self.param('place', place, x.shape[1:]).astype(self.dtype)
    for _ in range(self.depth):
      x = Block(self.heads, self.dtype)(x)
    x = nn.LayerNorm(dtype=self.dtype)(x).mean(1, dtype=jnp.float32)
    self.sow('intermediates', 'features', x)
    return nn.Dense(self.num_classes, name='head')(x)


def vit(
  num_classes: int,
  *,
  dtype: DTypeLike,
  patch: int = 2,
  dim: int = 48,
  depth: int = 4,
  heads: int = 4,
) -> nn.Module:
  """A small one, for 8×8 digits; `dtype` is config.model.dtype."""
  if dim % heads:
    raise ValueError(f'dim = {dim} must be a multiple of heads = {heads}')
  return ViT(num_classes, patch, dim, depth, heads, dtype)
