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

  `indices` are the places of the images, `u8[B, H, W, C]`, in the data set, and
  `aspects`, `f32[B]`, those of their sources; None: as they are stored.
  """
  seen = augmented(view, images, seed, epoch, indices, aspects)
  return _normalized(view, seen)


def clean_view(view: View, images: jax.Array) -> jax.Array:
  """Cut from the centre and normalised."""
  return _normalized(view, augment.center_crop(images, view.crop))


def augmented(
  view: View,
  images: jax.Array,
  seed: int | jax.Array,
  epoch: int | jax.Array,
  indices: jax.Array,
  aspects: jax.Array | None = None,
) -> jax.Array:
  """`train_view` before it is normalised, `u8[B, H, W, C]`, for a person."""
  keys = augment.example_keys(seed, epoch, indices)
  options = {n: getattr(view, n) for n in ('pad', 'crop', 'flip', 'crop_area')}
  return augment.augment_train(images, keys, aspects, **options)


def _normalized(view: View, images: jax.Array) -> jax.Array:
  return augment.normalize(images, view.mean, view.std, jnp.dtype(view.dtype))
