"""Weights of torchvision's and timm's ResNet-18, -34 and -50, in and out."""

import functools
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from tsla.errors import InputError
from tsla.models import resnet
from tsla.models.weight_files import another_file, read_state_dict
from tsla.models.weight_files import write_safetensors as write_safetensors

# Axes by rank: vectors; out, in ↔ in, out; OIHW ↔ HWIO.
_TO_TORCH = {0: (), 1: (0,), 2: (1, 0), 3: (0, 1, 2), 4: (3, 2, 0, 1)}
_STEMS = {3: 'cifar', 7: 'imagenet'}  # by the size of the first kernel


class TensorRow(NamedTuple):
  """What became of one tensor of the file."""

  name: str  # in the file
  shape: tuple[int, ...]  # in the file
  path: str  # where it went in the flax tree; '' for nowhere
  action: str  # what was done to it


def to_variables(
  state_dict: Mapping[str, np.ndarray],
  like: Mapping[str, Any],
  field: str = 'config.model.weights',
) -> tuple[dict[str, Any], list[TensorRow]]:
  """Fills a flax ResNet's variables from what `read_state_dict` returns.

  Returns the tree `like` with the file's weights as NumPy arrays, and a row for
  every tensor of the file. Of `like` shapes suffice, but for a head `fc` that
  is kept: where the file's has another number of classes. `field` is the flag
  that named the file, for errors.
  """
  flat = traverse_util.flatten_dict(dict(like))
  wanted = {_torch_name(path): leaf for path, leaf in flat.items()}
  keep_head = _another_head(state_dict, wanted)
  rows, misfits = [], []
  for path, leaf in flat.items():
    name, place = _torch_name(path), '/'.join(path)
    array = state_dict.get(name)
    try:
      if keep_head and name.startswith('fc.'):
        place, action = '', f'not used: {len(array)} classes, the network has '
        action += f'{leaf.shape[-1]} and keeps its own head'
      else:
        flat[path], action = _convert(array, leaf)
      rows.append(TensorRow(name, array.shape, place, action))
    except ValueError as error:
      misfits.append(f'{name} {error}')
  for name, array in state_dict.items():
    if name.endswith('.num_batches_tracked'):
      action = 'not used: flax counts no batches'
      rows.append(TensorRow(name, array.shape, '', action))
    elif name not in wanted:
      misfits.append(f'{name!r} is not in the network')
  if misfits:
    raise _misfit(misfits, state_dict, wanted, field)
  return traverse_util.unflatten_dict(flat), rows


def _torch_name(path: Sequence[str]) -> str:
  """Turns `params/layer1_0/bn1/scale` into `layer1.0.bn1.weight`."""
  modules = re.sub(r'_(?=\d)', '.', '.'.join(path[1:-1]))
  leaf = {'kernel': 'weight', 'scale': 'weight'}.get(path[-1], path[-1])
  return f'{modules}.{"running_" * (path[0] == "batch_stats")}{leaf}'


def _convert(array: np.ndarray | None, leaf: Any) -> tuple[np.ndarray, str]:
  """The array in `leaf`'s layout and dtype, and what was done."""
  if array is None:
    raise ValueError('is missing')
  axes = _TO_TORCH[leaf.ndim]
  shape = tuple(leaf.shape[axis] for axis in axes)
  if array.shape != shape:
    raise ValueError(f'is {array.shape} instead of {shape}')
  if not jnp.issubdtype(array.dtype, jnp.floating):
    raise ValueError(f'is {array.dtype} instead of {leaf.dtype}')
  with np.errstate(over='ignore'):  # becomes infinite, which is refused
    result = array.transpose(np.argsort(axes)).astype(leaf.dtype, order='C')
  if not np.isfinite(result).all():
    raise ValueError('holds NaN or infinity')
  action = {2: 'transposed', 4: 'OIHW → HWIO'}.get(array.ndim, 'copied')
  if array.dtype != leaf.dtype:
    action += f', {array.dtype} → {leaf.dtype}'
  return result, action


def _another_head(state_dict: Mapping, wanted: Mapping) -> bool:
  """Whether the file's head fits but for the number of classes."""
  if not {'fc.weight', 'fc.bias'} <= state_dict.keys():
    return False
  features, classes = wanted['fc.weight'].shape
  weight, bias = state_dict['fc.weight'].shape, state_dict['fc.bias'].shape
  return weight[1:] == (features,) and bias == weight[:1] != (classes,)


def _misfit(
  misfits: list[str], state_dict: Mapping, wanted: Mapping, field: str
) -> InputError:
  """The error that lists them, with the cure for the usual mistakes."""
  found, model = _architecture(state_dict), _architecture(wanted)
  problem = f'{len(misfits)} misfits: {"; ".join(misfits)}'
  cure = another_file(field)
  if found != model:
    problem = f'the file looks like {found or "another network"}; {problem}'
    if found:
      cure = f'--config.model.name={found}'
  elif np.ndim(state_dict.get('conv1.weight')) == 4:
    width, _, _, kernel = state_dict['conv1.weight'].shape
    if kernel != wanted['conv1.weight'].shape[0] and kernel in _STEMS:
      cure = f'--config.model.stem={_STEMS[kernel]}'
    elif width != wanted['conv1.weight'].shape[-1]:
      cure = f'--config.model.width={width}'
  allowed = f'the weights of this {model}: same names, shapes, finite numbers'
  return InputError(f'{field}: {problem}', allowed=allowed, cure=cure)


def _architecture(names: Iterable[str]) -> str:
  """The network that has these names, '' if none."""
  names = set(names)
  first = (re.match(r'layer(\d)\.\d+\.conv1\.weight$', name) for name in names)
  blocks = Counter(match[1] for match in first if match)
  bottleneck = 'layer1.0.conv3.weight' in names
  block = resnet.Bottleneck if bottleneck else resnet.BasicBlock
  found = block, tuple(blocks[stage] for stage in sorted(blocks))
  known = {what: name for name, what in resnet.ARCHITECTURES.items()}
  return known.get(found, '')


def to_state_dict(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """A flax ResNet's variables by torchvision's names, in torch's layout.

  `load_state_dict` of torchvision's model takes it; the counters
  `num_batches_tracked`, which it does not need, are left out.
  """
  return {
    _torch_name(path): np.asarray(leaf).transpose(_TO_TORCH[leaf.ndim])
    for path, leaf in traverse_util.flatten_dict(dict(variables)).items()
  }


def load_network(
  path: str | os.PathLike,
  *,
  sha256: str = '',
  field: str = 'config.model.weights',
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> tuple[nn.Module, dict[str, Any], list[TensorRow]]:
  """The whole network that a file was saved from, by its names and shapes.

  The arguments are as of `read_state_dict` and `create`. Returns the network,
  its variables, and a row for every tensor of the file.
  """
  state_dict = read_state_dict(path, sha256, field)
  name = _architecture(state_dict)
  stem, head = (state_dict.get(key) for key in ('conv1.weight', 'fc.weight'))
  if (
    not name
    or any(array is None or not array.size for array in (stem, head))
    or (stem.ndim, head.ndim) != (4, 2)
    or stem.shape[-1] not in _STEMS
  ):
    known = 'known network with a stem conv1 and a head fc'
    problem = f'{field} = {os.fspath(path)!r}: no {known}'
    allowed = f"torchvision's names for {', '.join(resnet.ARCHITECTURES)}"
    cure = another_file(field)
    raise InputError(problem, allowed=allowed, cure=cure)
  shape = {'stem': _STEMS[stem.shape[-1]], 'width': stem.shape[0]}
  model = resnet.create(name, head.shape[0], **shape, dtype=dtype)
  images = jax.ShapeDtypeStruct((1, 32, 32, stem.shape[1]), jnp.float32)
  init = functools.partial(model.init, train=True)
  like = jax.eval_shape(init, jax.random.key(0), images)
  return model, *to_variables(state_dict, like, field)
