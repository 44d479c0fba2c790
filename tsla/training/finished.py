"""The network of a finished run, restored from the run's directory alone."""

import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
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
  """A network that is trained no more, and what it takes and says."""

  model: nn.Module
  variables: Any  # {'params': …, 'batch_stats': …}
  view: View
  about: dict[str, Any]  # as `model.json` in the run's directory

  def logits(self, images: jax.Array) -> jax.Array:
    """`f32[B, K]` of stored images, `u8[B, H, W, C]`."""
    seen = clean_view(self.view, images)
    return self.model.apply(self.variables, seen, train=False)

  def compiled(self) -> Callable[[np.ndarray], jax.Array]:
    """`logits`, as one program for all runs that differ in variables only."""
    function = jax.jit(lambda v, i: self._replace(variables=v).logits(i))
    return functools.partial(function, self.variables)

  def judge(
    self, splits: Mapping[str, Split], batch_size: int
  ) -> dict[str, Predictions]:
    """What it says of the images of each split, by one program."""
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


def splits_of(data: Dataset) -> dict[str, Split]:
  """What a run on these data was not trained on."""
  splits = {'test': data.test, 'validation': data.validation}
  return {name: split for name, split in splits.items() if split is not None}


def judged(
  config: ml_collections.ConfigDict, dataset: Dataset, state: TrainState
) -> tuple[dict[str, Any], dict[str, Predictions]]:
  """What a network is at the end of a run, and what it says of each split.

  The temperature is fitted on the validation split; it is 1 without one.
  """
  variables = jax.tree.map(
    lambda leaf: np.asarray(leaf.addressable_data(0)), state.variables
  )
  view, model = view_of(config), config.model
  about = {
    'class_names': list(dataset.class_names),
    'image_shape': list(dataset.image_shape),  # as stored, before the crop
    'temperature': 1.0,  # divides the logits
    'view': {n: getattr(view, n) for n in ('crop', 'mean', 'std', 'dtype')},
    'model': {n: model[n] for n in ('name', 'options', 'stem', 'width')},
    'arrays': {n: list(a.shape) for n, a in named(variables).items()},
  }
  network = Network(
    create_configured(model, dataset.num_classes),
    *(jax.tree.map(jnp.asarray, variables), view, about),
  )
  said = network.judge(splits_of(dataset), config.eval_batch_size)
  if validation := said.get('validation'):
    about['temperature'] = calibration.fit_temperature(
      validation['logits'], validation['labels']
    )
  return about, said


def load(path: str | os.PathLike, where: str) -> Network:
  """The network of a finished run; InputError, by `where`, if there is none."""
  run = read_run(path, where)
  about, view = run.network(where), view_of(run.config)
  with untrusted(where, allowed='a run as it was written'):
    if not 0 < about['temperature'] < math.inf:
      raise ValueError(f'temperature = {about["temperature"]}')
    shape, classes = tuple(about['image_shape']), len(about['class_names'])
    return Network(*restore(run, classes, shape, view), view, about)
