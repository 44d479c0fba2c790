"""Networks: images in, float32 logits out; and files of their weights.

Nothing here knows a data set, a run or a directory.
"""

import functools
import inspect
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp

from tsla import programs
from tsla.models.resnet import ARCHITECTURES, ResNet, create

if TYPE_CHECKING:  # the benchmarks run without it
  import ml_collections

__all__ = ['NETWORKS', 'ResNet', 'create', 'create_configured']

# Each is called with K, the number of classes, and what it has a parameter for
# of stem, width, dtype and axis_name; its others are its options.
NETWORKS: dict[str, programs.Function] = {
  name: functools.partial(create, name) for name in ARCHITECTURES
}
GIVEN = ('num_classes', 'stem', 'width', 'dtype', 'axis_name')


def create_configured(
  options: 'ml_collections.ConfigDict',
  num_classes: int,
  *,
  axis_name: str | None = None,
) -> nn.Module:
  """The network that the section `model` of a config names."""
  function, own = options_given(options)
  given = {'stem': options.stem, 'width': options.width}
  given |= {'dtype': jnp.dtype(options.dtype), 'axis_name': axis_name}
  known = inspect.signature(function).parameters
  own |= {name: given[name] for name in given if name in known}
  name, where = options.name, f'config.model.name = {options.name!r}'
  return programs.make(function, name, where, nn.Module, num_classes, **own)


def options_given(
  options: 'ml_collections.ConfigDict',
) -> tuple[programs.Function, dict[str, Any]]:
  """What makes a network, and the options that `model.options` gives it."""
  name, where = options.name, f'config.model.name = {options.name!r}'
  own = programs.is_own(name) and programs.load(name, where)
  function = own or NETWORKS[name]
  known = {name: programs.options_of(function, GIVEN)}
  where = f'config.model.options = {options.options!r}'
  return function, programs.dispatch(options.options, where, known)[name]
