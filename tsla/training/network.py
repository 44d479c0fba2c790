"""config + data set → the network and what it sees."""

import flax.linen as nn
import jax.numpy as jnp
import ml_collections

from tsla.data.datasets import Dataset
from tsla.models import resnet


def create(
  config: ml_collections.ConfigDict,
  num_classes: int,
  *,
  axis_name: str | None = None,
) -> nn.Module:
  """The network that `config.model` names.

  Args:
    config: a validated config.
    num_classes: number of logits K.
    axis_name: mapped axis over which BatchNorm is synchronised in training.
  """
  return resnet.create(
    config.model.name,
    num_classes=num_classes,
    stem=config.model.stem,
    width=config.model.width,
    dtype=jnp.dtype(config.model.dtype),
    axis_name=axis_name,
  )


def input_shape(
  config: ml_collections.ConfigDict, dataset: Dataset
) -> tuple[int, int, int]:
  """(H, W, C) of what it sees."""
  height, width, channels = dataset.image_shape
  side = config.augment.crop
  return side or height, side or width, channels
