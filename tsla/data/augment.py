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
  """One random key for each of the examples at `indices`, `i32[B]`."""
  # Named, because a key of 'rbg' draws other numbers under vmap.
  key = jax.random.key(seed, impl='threefry2x32')
  key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), epoch)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def random_crop(
  image: jax.Array, key: jax.Array, *, pad: int = 0, size: int = 0
) -> jax.Array:
  """Pads one image with zeros, then cuts a window at a uniform random place.

  As the zeros are added before `normalize`, the border is black, not the data
  set's mean.

  Args:
    image: `u8[H, W, C]`.
    key: a PRNG key.
    pad: pixels added on each of the four sides.
    size: side of the square window; 0 keeps H x W.

  Raises:
    TypeError: the window is larger than the padded image.
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
  """Crops and flips `u8[B, H, W, C]`, each example from its own key.

  `pad` and `crop` are as of `random_crop`. Crop and flip draw independently;
  switching one off leaves the other's draws as they were.
  """

  def augment_one(image: jax.Array, key: jax.Array) -> jax.Array:
    crop_key, flip_key = jax.random.split(key)
    if pad or crop:
      image = random_crop(image, crop_key, pad=pad, size=crop)
    return random_flip(image, flip_key) if flip else image

  return jax.vmap(augment_one)(images, keys)


def augment_eval(images: jax.Array, *, crop: int) -> jax.Array:
  """Cuts central windows of side `crop` out of u8[B, H, W, C]; 0 keeps them.

  Where the window cannot be central to the pixel, its corner is
  `round((H - crop) / 2)`, half to even, as in torchvision. A window that is
  larger than the image is a TypeError.
  """
  if not crop:
    return images
  batch, height, width, channels = images.shape
  top, left = round((height - crop) / 2), round((width - crop) / 2)
  end = (batch, top + crop, left + crop, channels)
  return jax.lax.slice(images, (0, top, left, 0), end)


def normalize(
  images: jax.Array,
  mean: Sequence[float] | jax.Array,
  std: Sequence[float] | jax.Array,
  dtype: DTypeLike = jnp.float32,
) -> jax.Array:
  """Returns `(images / 255 - mean) / std`, computed in float32, then cast.

  `mean` and `std` are per channel, of pixels scaled to 0 .. 1.
  """
  scaled = images.astype(jnp.float32) / 255
  mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
  return ((scaled - mean) / std).astype(dtype)
