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
  """Returns one random key per example.

  Args:
    seed: the run's seed; may be traced.
    epoch: which pass over the data, from 0; may be traced.
    indices: `i32[B]`, places in the data set.

  Returns:
    `key[B]`, typed PRNG keys.

  Example:
    >>> example_keys(seed=0, epoch=2, indices=jnp.array([7, 1])).shape
    (2,)
  """
  # Named, because a key of 'rbg' draws other numbers under vmap.
  key = jax.random.key(seed, impl='threefry2x32')
  key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), epoch)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def random_crop(
  image: jax.Array, key: jax.Array, *, pad: int = 0, size: int = 0
) -> jax.Array:
  """Pads one image with zeros, then cuts a window at a uniform random place.

  `pad=4` is the usual recipe for CIFAR: as the zeros are added before
  `normalize`, the border is black, not the data set's mean. `size=224` is the
  one for larger images.

  Args:
    image: `u8[H, W, C]`.
    key: a PRNG key.
    pad: pixels added on each of the four sides, at least 0.
    size: side of the square window, at most `H + 2 pad` and `W + 2 pad`; 0
      keeps H x W.

  Returns:
    `u8[size, size, C]`, or `u8[H, W, C]` for size 0.

  Raises:
    TypeError: if the window is larger than the padded image.

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
  as they were.

  Args:
    images: `u8[B, H, W, C]`.
    keys: `key[B]`, from `example_keys`.
    pad: zero padding before the crop, in pixels; 0 for none.
    crop: side of the random window; 0 keeps H x W.
    flip: whether to mirror half of the images.

  Returns:
    `u8[B, crop, crop, C]`, or `u8[B, H, W, C]` for crop 0.

  Example:
    >>> keys = example_keys(0, 0, jnp.arange(2))
    >>> images = jnp.zeros((2, 32, 32, 3), jnp.uint8)
    >>> augment_train(images, keys, pad=4, crop=0, flip=True).shape
    (2, 32, 32, 3)
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
  `round((H - size) / 2)`, half to even, as in torchvision.

  Args:
    images: `u8[B, H, W, C]`.
    size: side of the window, 1 .. min(H, W).

  Returns:
    `u8[B, size, size, C]`.

  Raises:
    TypeError: if the window is larger than the image.

  Example:
    >>> center_crop(jnp.arange(5).reshape(1, 1, 5, 1), 1).item()
    2
  """
  batch, height, width, channels = images.shape
  top, left = round((height - size) / 2), round((width - size) / 2)
  return jax.lax.slice(
    images, (0, top, left, 0), (batch, top + size, left + size, channels)
  )


def augment_eval(images: jax.Array, *, crop: int) -> jax.Array:
  """Returns the central windows of side `crop`; 0 keeps the images."""
  return center_crop(images, crop) if crop else images


def normalize(
  images: jax.Array,
  mean: Sequence[float] | jax.Array,
  std: Sequence[float] | jax.Array,
  dtype: DTypeLike = jnp.float32,
) -> jax.Array:
  """Returns `(images / 255 - mean) / std`, computed in float32, then cast.

  Args:
    images: `u8[B, H, W, C]`, 0 .. 255.
    mean: `f32[C]`, per channel, of pixels scaled to 0 .. 1.
    std: `f32[C]`, per channel, of pixels scaled to 0 .. 1; positive.
    dtype: what the model computes in, `float32` or `bfloat16`.

  Returns:
    `dtype[B, H, W, C]`.

  Example:
    >>> white = jnp.full((1, 1, 1, 1), 255, jnp.uint8)
    >>> normalize(white, mean=[0.5], std=[0.25]).item()
    2.0
  """
  scaled = images.astype(jnp.float32) / 255
  mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
  return ((scaled - mean) / std).astype(dtype)
