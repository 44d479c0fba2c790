"""Where ŷ comes from: nothing, the class frequencies, or a trained network.

A source is arrays, placed on the devices with the data set, and a pure function
that makes of them the ŷ of a batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsla import smoothing
from tsla.data import array_cache
from tsla.data.datasets import Dataset
from tsla.data.pipeline import View, clean_view
from tsla.training.teacher import Teacher


class Source(NamedTuple):
  """What ŷ is made of, and how."""

  arrays: Any
  # (arrays, float images [B, H, W, C], their indices i32[B]) -> f32[B, K],
  # f32[K], or None for uniform
  y_hat: Callable[[Any, jax.Array, jax.Array], jax.Array | None]


def uniform() -> Source:
  """ŷ = 1/K, which the loss knows without an array."""
  return Source((), lambda arrays, images, indices: None)


def create(
  target: str,
  dataset: Dataset,
  view: View,
  teacher: Teacher | None = None,
  *,
  batch_size: int = 500,
) -> Source:
  """The source of ŷ for a target: 'uniform', 'prior' or 'teacher'."""
  match target:
    case 'uniform':
      return uniform()
    case 'prior':
      prior = smoothing.class_prior(dataset.train.labels, dataset.num_classes)
      return Source(prior, lambda prior, images, indices: prior)

  def predict(variables: Any, images: jax.Array, indices: Any) -> jax.Array:
    del indices
    logits = teacher.model.apply(variables, images, train=False)
    return smoothing.teacher(logits, teacher.temperature)

  if teacher.view == 'augmented':
    return Source(teacher.variables, predict)
  facts = {  # all that ŷ of the clean images follows from, to the last bit
    'data': dataset.fingerprint,
    'crop': view.crop,
    'mean': view.mean,
    'std': view.std,
    'images': view.dtype,
    'teacher': teacher.fingerprint(),
    'network': jnp.dtype(teacher.model.dtype).name,
    'temperature': teacher.temperature,
    'batch': batch_size,
    'jax': jax.__version__,
    'device': jax.local_devices()[0].device_kind,
  }
  labels = array_cache.cached_array(
    'y_hat',
    facts,
    lambda: _on_clean_images(
      dataset.train.images, view, teacher.variables, predict, batch_size
    ),
  )
  return Source(
    labels, lambda labels, images, indices: labels[indices].astype(jnp.float32)
  )


def _on_clean_images(
  images: np.ndarray,
  view: View,
  variables: Any,
  predict: Callable[[Any, jax.Array, Any], jax.Array],
  batch_size: int,
) -> np.ndarray:
  """ŷ of every training image as it is, `f16[N, K]`."""

  @jax.jit
  def of_batch(variables: Any, images: jax.Array) -> jax.Array:
    images = clean_view(view, images)
    return predict(variables, images, None).astype(jnp.float16)

  size = min(batch_size, len(images))
  parts = []
  for first in range(0, len(images), size):
    # The last batch is filled up: another size would be compiled anew.
    picked = np.arange(first, first + size).clip(max=len(images) - 1)
    parts.append(np.asarray(of_batch(variables, images[picked])))
  return np.concatenate(parts)[: len(images)]
