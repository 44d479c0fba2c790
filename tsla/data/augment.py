"""Crop and flip on the device.

Images are uint8. Each example draws from a key of its own, made from (seed,
epoch, index): its augmentation depends neither on its place in the batch nor on
the other examples nor on the number of devices. Every function runs inside
`jit`, `pmap` and `scan`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

# Separates augmentation from other draws of the same seed.
_STREAM = int.from_bytes(b'augm')
# Of a window of random area, as in torchvision.
_TRIES, _ASPECTS = 10, (3 / 4, 4 / 3)


def example_keys(
  seed: int | jax.Array, epoch: int | jax.Array, indices: jax.Array
) -> jax.Array:
  """A key of each example, `key[B]`, by its place in the set, `i32[B]`."""
  # Named, because a key of 'rbg' draws other numbers under vmap.
  key = jax.random.key(seed, impl='threefry2x32')
  key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), epoch)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def random_crop(
  image: jax.Array, key: jax.Array, pad: int = 0, size: int = 0
) -> jax.Array:
  """Pads one image with zeros, then cuts a window at a uniform random place.

  `pad` pixels are added on each side of the stored `u8[H, W, C]`: the border is
  black, not the data set's mean. A window of `size` 0 is of H x W; TypeError is
  raised for one that is larger than the padded image.
  """
  height, width, channels = image.shape
  window = (size or height, size or width)
  padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
  room = jnp.array(padded.shape[:2], jnp.int32) - jnp.array(window, jnp.int32)
  top, left = jax.random.randint(key, (2,), 0, room + 1, jnp.int32)
  start = (top, left, jnp.zeros_like(top))
  return jax.lax.dynamic_slice(padded, start, (*window, channels))


def area_window(
  key: jax.Array, aspect: ArrayLike, smallest: float
) -> tuple[jax.Array, jax.Array]:
  """A window of random area and aspect, as torchvision's RandomResizedCrop.

  Its share a of the area is uniform in `[smallest, 1]`, the log of its aspect r
  in `[log 3/4, log 4/3]`: in an image of `aspect` A, width / height, it has
  `sqrt(a r / A)` of the width and `sqrt(a A / r)` of the height. The first of
  ten draws that fits is taken, at a uniform place; else the largest window in
  the middle whose aspect is in that range. Returns its upper left corner and
  its size, `f32[2]` each, height first, in parts of the image's sides.

  Reference:
    Szegedy et al., arXiv:1409.4842, section 6.
  """
  # Drawn flat: threefry of several axes takes seconds to compile on a CPU.
  draws = jax.random.uniform(key, (2 * _TRIES + 2,))
  tries, place = draws[:-2].reshape(2, _TRIES), draws[-2:]
  area = smallest + (1 - smallest) * tries[0]
  low, high = np.log(_ASPECTS)
  ratio = jnp.exp(low + (high - low) * tries[1]) / aspect
  sizes = jnp.sqrt(jnp.stack([area / ratio, area * ratio], axis=1))
  fits = (sizes <= 1).all(1)
  widest = jnp.stack([aspect / _ASPECTS[0], _ASPECTS[1] / aspect])
  size = jnp.where(fits.any(), sizes[fits.argmax()], jnp.minimum(widest, 1))
  return jnp.where(fits.any(), place, 0.5) * (1 - size), size


def resized_window(
  image: jax.Array, corner: jax.Array, size: jax.Array, shape: tuple[int, int]
) -> jax.Array:
  """An `area_window` of `u8[H, W, C]`, antialiased bilinear: `u8[*shape, C]`.

  What is around it counts at its edges, as in Pillow.
  """
  sides = jnp.asarray(image.shape[:2], jnp.float32)
  scale = jnp.asarray(shape, jnp.float32) / (size * sides)
  move, shape = -corner * sides * scale, (*shape, image.shape[2])
  pixels = jax.image.scale_and_translate(
    image.astype(jnp.float32), shape, (0, 1), scale, move, 'linear'
  )
  return jnp.rint(pixels).clip(0, 255).astype(jnp.uint8)


def random_flip(image: jax.Array, key: jax.Array) -> jax.Array:
  """Mirrors one image `[H, W, C]` left to right with probability 1/2."""
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def center_crop(images: jax.Array, size: int) -> jax.Array:
  """Cuts the central square window out of every image, `u8[B, H, W, C]`.

  Where it cannot be central to the pixel, its corner is half the difference,
  rounded half to even, as in torchvision. A size of 0 keeps the images;
  TypeError is raised for one that is larger.
  """
  if not size:
    return images
  batch, height, width, channels = images.shape
  top, left = round((height - size) / 2), round((width - size) / 2)
  return jax.lax.slice(
    images, (0, top, left, 0), (batch, top + size, left + size, channels)
  )
