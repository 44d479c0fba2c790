"""Networks: images in, float32 logits out; and files of their weights.

Nothing here knows a
data set, a run or a directory.
"""

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from tsla.models.resnet import ResNet, create

if TYPE_CHECKING:
  import ml_collections

__all__ = ['ResNet', 'create', 'create_configured']


def create_configured(
  options: 'ml_collections.ConfigDict',
  num_classes: int,
  *,
  axis_name: str | None = None,
) -> nn.Module:
  """The network that the section `model` of a config names, as of `create`."""
  return create(
    options.name,
    num_classes=num_classes,
    stem=options.stem,
    width=options.width,
    dtype=jnp.dtype(options.dtype),
    axis_name=axis_name,
  )
