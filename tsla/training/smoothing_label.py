"""Where ŷ comes from: nothing, the class frequencies, or a trained network.

A source is arrays, placed on the devices with the data set, and a pure function
that makes of them the ŷ of a batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tsla import smoothing
from tsla.data import array_cache, augment
from tsla.data.datasets import Dataset
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
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  teacher: Teacher | None = None,
) -> Source:
  """The source that `config.smoothing.target` names.

  Args:
    config: a validated config.
    dataset: the run's.
    teacher: the run's, where the target is one.
  """
  match config.smoothing.target:
    case 'uniform':
      return uniform()
    case 'prior':
      prior = smoothing.class_prior(dataset.train.labels, dataset.num_classes)
      return Source(prior, lambda prior, images, indices: prior)

  model, temperature = teacher.model, config.teacher.temperature

  def predict(variables: Any, images: jax.Array, indices: Any) -> jax.Array:
    del indices
    logits = model.apply(variables, images, train=False)
    return smoothing.teacher(logits, temperature)

  if config.teacher.view == 'augmented':
    return Source(teacher.variables, predict)
  labels = array_cache.load(
    'y_hat',
    _facts(config, dataset, teacher),
    lambda: _on_clean_images(config, dataset, teacher.variables, predict),
  )
  return Source(
    labels, lambda labels, images, indices: labels[indices].astype(jnp.float32)
  )


def _facts(
  config: ml_collections.ConfigDict, dataset: Dataset, teacher: Teacher
) -> dict[str, Any]:
  """All that ŷ of the clean images follows from, to the last bit."""
  return {
    'data': dataset.fingerprint,
    'crop': config.augment.crop,
    'mean': config.data.mean,
    'std': config.data.std,
    'images': config.model.dtype,
    'teacher': teacher.fingerprint(),
    'network': jnp.dtype(teacher.model.dtype).name,
    'temperature': config.teacher.temperature,
    'batch': config.eval_batch_size,
    'jax': jax.__version__,
    'device': jax.local_devices()[0].device_kind,
  }


def _on_clean_images(
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  variables: Any,
  predict: Callable[[Any, jax.Array, Any], jax.Array],
) -> np.ndarray:
  """ŷ of every training image as it is, `f16[N, K]`."""

  @jax.jit
  def of_batch(variables: Any, images: jax.Array) -> jax.Array:
    images = augment.normalize(
      augment.augment_eval(images, crop=config.augment.crop),
      config.data.mean,
      config.data.std,
      jnp.dtype(config.model.dtype),
    )
    return predict(variables, images, None).astype(jnp.float16)

  images = dataset.train.images
  size = min(config.eval_batch_size, len(images))
  parts = []
  for first in range(0, len(images), size):
    # The last batch is filled up: another size would be compiled anew.
    picked = np.arange(first, first + size).clip(max=len(images) - 1)
    parts.append(np.asarray(of_batch(variables, images[picked])))
  return np.concatenate(parts)[: len(images)]
