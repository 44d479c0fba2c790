"""Crop, flip and normalise on the device.

Images stay uint8 until `normalize`. Each example draws from a key of its own,
made from (seed, epoch, index): its augmentation depends neither on its place in
the batch nor on the other examples nor on the number of devices. Every
function runs inside `jit`, `pmap` and `scan`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# Separates augmentation from other draws of the same seed.
_STREAM = int.from_bytes(b'augm')


def example_keys(
  seed: int | jax.Array, epoch: int | jax.Array, indices: jax.Array
) -> jax.Array:
  """A key of each example, `key[B]`, by its place in the set, `i32[B]`."""
  # Named, because a key of 'rbg' draws other numbers under vmap.
  key = jax.random.key(seed, impl='threefry2x32')
  key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), epoch)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def random_crop(
  image: jax.Array, key: jax.Array, *, pad: int = 0, size: int = 0
) -> jax.Array:
  """Pads one image with zeros, then cuts a window at a uniform random place.

  As the zeros are added before `normalize`, the border is black, not the data
  set's mean. `pad` pixels are added on each of the four sides of `u8[H, W, C]`;
  a window of `size` 0 is of H x W, and TypeError is raised for one that is
  larger than the padded image.

  Example:
    >>> image = jnp.ones((32, 32, 3), jnp.uint8)
    >>> random_crop(image, jax.random.key(0), pad=4).shape
    (32, 32, 3)
  """
  height, width, channels = image.shape
  window = (size or height, size or width)
  padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
  room = jnp.array(padded.shape[:2], jnp.int32) - jnp.array(window, jnp.int32)
  top, left = jax.random.randint(key, (2,), 0, room + 1, jnp.int32)
  start = (top, left, jnp.zeros_like(top))
  return jax.lax.dynamic_slice(padded, start, (*window, channels))


def random_flip(image: jax.Array, key: jax.Array) -> jax.Array:
  """Mirrors one image `[H, W, C]` left to right with probability 1/2."""
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def augment_train(
  images: jax.Array, keys: jax.Array, *, pad: int, crop: int, flip: bool
) -> jax.Array:
  """Crops and flips a batch, each example from its own key.

  Crop and flip draw independently; switching one off leaves the other's draws
  as they were. Pad and crop are those of `random_crop`, `u8[B, H, W, C]`.
  """

  def augment_one(image: jax.Array, key: jax.Array) -> jax.Array:
    crop_key, flip_key = jax.random.split(key)
    if pad or crop:
      image = random_crop(image, crop_key, pad=pad, size=crop)
    return random_flip(image, flip_key) if flip else image

  return jax.vmap(augment_one)(images, keys)


def center_crop(images: jax.Array, size: int) -> jax.Array:
  """Cuts the central square window out of every image.

  Where the window cannot be central to the pixel, its corner is
  `round((H - size) / 2)`, half to even, as in torchvision. A size of 0 keeps
  the images, `u8[B, H, W, C]`; TypeError is raised for one that is larger.

  Example:
    >>> center_crop(jnp.arange(5).reshape(1, 1, 5, 1), 1).item()
    2
  """
  if not size:
    return images
  batch, height, width, channels = images.shape
  top, left = round((height - size) / 2), round((width - size) / 2)
  return jax.lax.slice(
    images, (0, top, left, 0), (batch, top + size, left + size, channels)
  )


def normalize(
  images: jax.Array,
  mean: Sequence[float] | jax.Array,
  std: Sequence[float] | jax.Array,
  dtype: DTypeLike = jnp.float32,
) -> jax.Array:
  """`(images / 255 - mean) / std`, by channel, in float32, then cast.

  Example:
    >>> white = jnp.full((1, 1, 1, 1), 255, jnp.uint8)
    >>> normalize(white, mean=[0.5], std=[0.25]).item()
    2.0
  """
  scaled = images.astype(jnp.float32) / 255
  mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
  return ((scaled - mean) / std).astype(dtype)
