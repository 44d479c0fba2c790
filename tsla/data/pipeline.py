"""From stored images to what a network sees, in training and in evaluation.

The only place where images are augmented and normalised: training, evaluation,
the probe, a teacher and the report's contact sheet all look through a `View`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tsla.data import augment


class View(NamedTuple):
  """How stored images become a network's input."""

  pad: int  # zero pixels a side before the random crop
  crop: int  # side of the window, random or central; 0: the whole image
  flip: bool  # half of the images are mirrored
  mean: Sequence[float]  # per channel, of pixels in [0, 1]
  std: Sequence[float]
  dtype: str  # of the input, 'float32' or 'bfloat16'
  # Instead of pad: the smallest share of its image that the random window has.
  crop_area: float = 0.0

  def input_shape(self, stored: Sequence[int]) -> tuple[int, int, int]:
    """(H, W, C) of a network's input, from that of stored images."""
    height, width, channels = stored
    return self.crop or height, self.crop or width, channels


def train_view(
  view: View,
  images: jax.Array,
  seed: int | jax.Array,
  epoch: int | jax.Array,
  indices: jax.Array,
  aspects: jax.Array | None = None,
) -> jax.Array:
  """Augmented and normalised: a function of (seed, epoch, indices).

  `indices` are the places of the images in the data set, `aspects` as of
  `augmented`.
  """
  keys = augment.example_keys(seed, epoch, indices)
  return _normalized(view, augmented(view, images, keys, aspects))


def clean_view(view: View, images: jax.Array) -> jax.Array:
  """Cut from the centre and normalised: `(images / 255 - mean) / std`."""
  return _normalized(view, augment.center_crop(images, view.crop))


def augmented(
  view: View,
  images: jax.Array,
  keys: jax.Array,
  aspects: jax.Array | None = None,
) -> jax.Array:
  """A batch `u8[B, H, W, C]`, each example cropped and flipped by its own key.

  Crop and flip draw independently: without one the other's draws are the same.
  `aspects`, `f32[B]`, are those of the images before they were resized to be
  stored; None: they were not.
  """

  def augment_one(
    image: jax.Array, key: jax.Array, aspect: jax.Array | None
  ) -> jax.Array:
    crop_key, flip_key = jax.random.split(key)
    if view.crop_area:
      aspect = image.shape[1] / image.shape[0] if aspect is None else aspect
      window = augment.area_window(crop_key, aspect, view.crop_area)
      shape = view.input_shape(image.shape)[:2]
      image = augment.resized_window(image, *window, shape)
    elif view.pad or view.crop:
      image = augment.random_crop(image, crop_key, view.pad, view.crop)
    return augment.random_flip(image, flip_key) if view.flip else image

  return jax.vmap(augment_one)(images, keys, aspects)


def _normalized(view: View, images: jax.Array) -> jax.Array:
  scaled = images.astype(jnp.float32) / 255
  mean, std = (jnp.asarray(part, jnp.float32) for part in (view.mean, view.std))
  return ((scaled - mean) / std).astype(view.dtype)
