"""Where ŷ comes from: nothing, the class frequencies, or a trained network.

A source is arrays, placed on the devices with the data set, and a pure function
that makes of them the ŷ of a batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from tsla import smoothing
from tsla.data import augment, batches
from tsla.data.datasets import Dataset
from tsla.errors import InputError
from tsla.training import config as config_lib
from tsla.training import durations, network, optimizer
from tsla.training.checkpoint import open_checkpoints
from tsla.training.rundir import read_run
from tsla.training.step import TrainState

# Examples the teacher sees at once before the run.
_BATCH = 500


class Source(NamedTuple):
  """What ŷ is made of, and how."""

  arrays: Any
  # (arrays, float images [B, H, W, C], their indices i32[B]) -> f32[B, K],
  # f32[K], or None for uniform
  y_hat: Callable[[Any, jax.Array, jax.Array], jax.Array | None]


def uniform() -> Source:
  """ŷ = 1/K, which the loss knows without an array."""
  return Source((), lambda arrays, images, indices: None)


def create(config: ml_collections.ConfigDict, dataset: Dataset) -> Source:
  """The source that `config.smoothing.target` names.

  Args:
    config: a validated config.
    dataset: the run's.

  Raises:
    InputError: the teacher cannot be used.
  """
  match config.smoothing.target:
    case 'prior':
      prior = smoothing.class_prior(dataset.train.labels, dataset.num_classes)
      return Source(prior, lambda prior, images, indices: prior)
    case 'teacher':
      apply, variables = load_teacher(config, dataset)
    case _:
      return uniform()

  temperature = config.teacher.temperature

  def predict(variables: Any, images: jax.Array, indices: Any) -> jax.Array:
    del indices
    logits = apply(variables, images, train=False)
    return smoothing.teacher(logits, temperature)

  if config.teacher.view == 'augmented':
    return Source(variables, predict)
  labels = _on_clean_images(config, dataset, variables, predict)
  return Source(
    labels, lambda labels, images, indices: labels[indices].astype(jnp.float32)
  )


def load_teacher(
  config: ml_collections.ConfigDict, dataset: Dataset
) -> tuple[Callable[..., jax.Array], Any]:
  """The network of a finished run of this project, frozen.

  Args:
    config: the student's; `config.teacher.run` is the directory.
    dataset: the student's.

  Returns:
    Its apply function and its variables.

  Raises:
    InputError: no finished run there, or one of other classes or other input.
  """
  where = f'config.teacher.run = {config.teacher.run!r}'
  run = read_run(config.teacher.run, where)
  if run.status['state'] != 'done':
    raise InputError(
      f'{where}: that run is {run.status["state"]}, not done',
      allowed='the directory of a finished run',
      cure='train it first, then --config.teacher.run=ITS_WORKDIR',
    )
  here, there = config_lib.flatten(config), config_lib.flatten(run.config)
  for name in ('data.name', 'data.mean', 'data.std', 'augment.crop'):
    if there[name] != here[name]:
      raise InputError(
        f'{where}: its {name} is {there[name]}',
        allowed=f'{here[name]}, as here',
      )
  per_epoch = batches.steps_per_epoch(
    len(dataset.train.labels), run.config.batch_size
  )
  model = network.create(run.config, dataset.num_classes)
  like = TrainState.create(
    model,
    *optimizer.create(run.config, durations.resolve(run.config, per_epoch)),
    seed=0,
    image_shape=network.input_shape(config, dataset),
  )
  with open_checkpoints(run.checkpoints) as checkpoints:
    try:
      state = checkpoints.restore(like)
    except ValueError as error:
      raise InputError(
        f'{where}: does not fit the {dataset.num_classes} classes of '
        f'{dataset.name}: {error}'
      ) from error
  return model.apply, {'params': state.params, 'batch_stats': state.batch_stats}


def _on_clean_images(
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  variables: Any,
  predict: Callable[[Any, jax.Array, Any], jax.Array],
) -> jax.Array:
  """ŷ of every training image as it is, `f16[N, K]`, computed once."""

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
  parts = [
    of_batch(variables, images[first : first + _BATCH])
    for first in range(0, len(images), _BATCH)
  ]
  return jnp.concatenate(parts)
