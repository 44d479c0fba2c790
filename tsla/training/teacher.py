"""The network whose predictions are ŷ: of a finished run, or of a file."""

import hashlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tsla.config import durations
from tsla.config import forms as config_lib
from tsla.data import batches
from tsla.data.datasets import Dataset
from tsla.errors import InputError
from tsla.models import pretrained
from tsla.runs.checkpoint import AnotherState, open_checkpoints
from tsla.runs.directory import RunRecord, read_run
from tsla.training import network, optimizer
from tsla.training.step import TrainState

_WEIGHTS = 'config.teacher.weights'


class Teacher(NamedTuple):
  """A network that is trained no more."""

  model: nn.Module
  variables: Any  # {'params': …, 'batch_stats': …}

  def fingerprint(self) -> str:
    """SHA-256 over the variables: names, shapes, types and bits."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
      array, name = np.asarray(leaf), jax.tree_util.keystr(path)
      digest.update(repr((name, array.shape, array.dtype.name)).encode())
      digest.update(array.tobytes())
    return digest.hexdigest()


def load(config: ml_collections.ConfigDict, dataset: Dataset) -> Teacher | None:
  """The teacher that `config.teacher` names; None where ŷ needs none.

  Args:
    config: the student's, validated.
    dataset: the student's.

  Raises:
    InputError: there is no such run or file, the run is not finished, or the
      network is of other classes or other input.
  """
  if config.smoothing.target != 'teacher':
    return None
  if config.teacher.run:
    return _of_run(config, dataset)
  return _of_file(config, dataset)


def check_source(config: ml_collections.ConfigDict) -> None:
  """Raises InputError if the run or the file of the teacher is of no use.

  It takes no data set, so that nobody waits for one in vain.
  """
  if config.smoothing.target != 'teacher':
    return
  if config.teacher.run:
    _finished_run(config)
  else:
    pretrained.read_state_dict(
      config.teacher.weights, config.teacher.weights_sha256, _WEIGHTS
    )


def _finished_run(
  config: ml_collections.ConfigDict,
) -> tuple[str, RunRecord]:
  """The run that `teacher.run` names, and how errors call it."""
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
  return where, run


def _of_run(config: ml_collections.ConfigDict, dataset: Dataset) -> Teacher:
  where, run = _finished_run(config)
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
    except AnotherState as error:
      raise InputError(
        f'{where}: does not fit the {dataset.num_classes} classes of '
        f'{dataset.name}: {error}',
        allowed='a run on this data set',
        cure='--config.teacher.run=ITS_WORKDIR',
      ) from error
  return Teacher(
    model, {'params': state.params, 'batch_stats': state.batch_stats}
  )


def _of_file(config: ml_collections.ConfigDict, dataset: Dataset) -> Teacher:
  """The file says which network it is; its input is normalised as here."""
  path = config.teacher.weights
  model, variables, _ = pretrained.load(
    path,
    sha256=config.teacher.weights_sha256,
    field=_WEIGHTS,
    dtype=jnp.dtype(config.model.dtype),
  )
  *_, channels, _ = variables['params']['conv1']['kernel'].shape
  there = f'{model.num_classes} classes, images of {channels} channels'
  here = f'{dataset.num_classes} classes, images of {dataset.image_shape[-1]} '
  here += 'channels'
  if there != here:
    raise InputError(
      f'{_WEIGHTS} = {path!r}: a network for {there}',
      allowed=f'{here}, as of {dataset.name}',
      cure='fine-tune it on this data set with --config.model.weights, then '
      '--config.teacher.run=THAT_WORKDIR',
    )
  return Teacher(model, variables)
