"""Where ŷ comes from: nothing, the class frequencies, or a trained network.

A source is arrays, placed on the devices with the data set, and a pure function
that makes of them the ŷ of a batch.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from tsla import smoothing
from tsla.data import augment, batches
from tsla.data.datasets import Dataset
from tsla.errors import InputError
from tsla.models import resnet
from tsla.training import config as config_lib
from tsla.training import durations as durations_lib
from tsla.training import optimizer
from tsla.training.checkpoint import open_checkpoints
from tsla.training.rundir import RunDirectory
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
  run = pathlib.Path(config.teacher.run)
  try:
    fields = json.loads((run / 'config.json').read_text())
    status = json.loads((run / 'status.json').read_text())
  except (OSError, json.JSONDecodeError) as error:
    raise InputError(
      f'{where}: {error}',
      allowed='the directory of a finished run',
      cure='train it first, then --config.teacher.run=ITS_WORKDIR',
    ) from error
  if status['state'] != 'done':
    raise InputError(f'{where}: that run is {status["state"]}, not done')
  for name in ('data.name', 'data.mean', 'data.std', 'augment.crop'):
    mine = config_lib.flatten(config)[name]
    if fields[name] != mine:
      raise InputError(
        f'{where}: its {name} is {fields[name]}', allowed=f'{mine}, as here'
      )
  theirs = config_lib.default_config()
  theirs.update_from_flattened_dict(
    {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in fields.items()
    }
  )
  per_epoch = batches.steps_per_epoch(
    len(dataset.train.labels), theirs.batch_size
  )
  model = resnet.create(
    theirs.model.name,
    num_classes=dataset.num_classes,
    stem=theirs.model.stem,
    width=theirs.model.width,
    dtype=jnp.dtype(theirs.model.dtype),
  )
  like = TrainState.create(
    model,
    *optimizer.create(theirs, durations_lib.resolve(theirs, per_epoch)),
    seed=0,
    image_shape=input_shape(config, dataset),
  )
  with open_checkpoints(RunDirectory.checkpoints_of(run)) as checkpoints:
    try:
      state = checkpoints.restore(like)
    except ValueError as error:
      raise InputError(
        f'{where}: does not fit the {dataset.num_classes} classes of '
        f'{dataset.name}: {error}'
      ) from error
  return model.apply, {'params': state.params, 'batch_stats': state.batch_stats}


def input_shape(
  config: ml_collections.ConfigDict, dataset: Dataset
) -> tuple[int, int, int]:
  """(H, W, C) of what the network sees."""
  height, width, channels = dataset.image_shape
  side = config.augment.crop
  return side or height, side or width, channels


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
