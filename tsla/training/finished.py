"""The network of a finished run, restored from the run's directory alone."""

import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from tsla.data.datasets import Dataset, Split
from tsla.data.pipeline import View, clean_view
from tsla.evaluation import calibration
from tsla.files import untrusted
from tsla.models import create_configured
from tsla.runs.directory import read_run
from tsla.runs.manifest import named
from tsla.runs.predictions import Predictions
from tsla.training.build import view_of
from tsla.training.step import TrainState
from tsla.training.teacher import in_batches, restore


class Network(NamedTuple):
  """A network that is trained no more, and what it takes and returns."""

  model: nn.Module
  variables: Any  # {'params': …, 'batch_stats': …}
  view: View
  description: dict[str, Any]  # as `model.json` in the run's directory

  def logits(self, images: jax.Array) -> jax.Array:
    """`f32[B, K]` of stored images, `u8[B, H, W, C]`."""
    seen = clean_view(self.view, images)
    return self.model.apply(self.variables, seen, train=False)

  def compiled(self) -> Callable[[np.ndarray], jax.Array]:
    """`logits`, as one program for all runs that differ in variables only."""
    function = jax.jit(lambda v, i: self._replace(variables=v).logits(i))
    return functools.partial(function, self.variables)

  def predict(
    self, splits: Mapping[str, Split], batch_size: int
  ) -> dict[str, Predictions]:
    """Its logits for the images of each split, by one program."""
    longest = max(len(split.labels) for split in splits.values())
    ask, size = self.compiled(), min(batch_size, longest)
    return {
      name: {
        'ids': np.arange(len(split.labels), dtype=np.int32),
        'labels': split.labels,
        'logits': in_batches(ask, split.images, size),
      }
      for name, split in splits.items()
    }


def describe_and_predict(
  config: ml_collections.ConfigDict, dataset: Dataset, state: TrainState
) -> tuple[dict[str, Any], dict[str, Predictions]]:
  """A description of the network of a finished run, and its predictions.

  The temperature is fitted on the validation split; it is 1 without one.
  """
  variables = jax.tree.map(
    lambda leaf: np.asarray(leaf.addressable_data(0)), state.variables
  )
  view, model = view_of(config), config.model
  description = {
    'class_names': list(dataset.class_names),
    'image_shape': list(dataset.image_shape),  # as stored, before the crop
    'temperature': 1.0,  # divides the logits
    'view': {n: getattr(view, n) for n in ('crop', 'mean', 'std', 'dtype')},
    'model': {n: model[n] for n in ('name', 'options', 'stem', 'width')},
    'arrays': {n: list(a.shape) for n, a in named(variables).items()},
  }
  network = Network(
    create_configured(model, dataset.num_classes),
    *(jax.device_put(variables), view, description),
  )
  unseen = {n: s for n, s in dataset.splits.items() if n != 'train'}
  predicted = network.predict(unseen, config.eval_batch_size)
  if validation := predicted.get('validation'):
    logits, labels = validation['logits'], validation['labels']
    description['temperature'] = calibration.fit_temperature(logits, labels)
  return description, predicted


def load(path: str | os.PathLike, where: str) -> Network:
  """The network of a finished run; InputError, by `where`, if there is none."""
  run = read_run(path, where)
  description, view = run.network(where), view_of(run.config)
  misfit = {'where': where, 'allowed': 'a run as it was written'}
  with untrusted(**misfit):
    if not 0 < (temperature := description['temperature']) < math.inf:
      raise ValueError(f'temperature = {temperature}')
    shape = tuple(description['image_shape'])
    classes = len(description['class_names'])
    parts = restore(run, classes, shape, view, **misfit)
    return Network(*parts, view, description)
