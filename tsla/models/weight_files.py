"""Files of weights: .safetensors in and out, .pth in."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from tsla.errors import InputError
from tsla.files import expand, read_bytes, untrusted, write_whole
from tsla.models import torch_zip

FORMATS = 'a .safetensors file, or a .pth file that torch.save wrote as a zip'
_ALONE = "save the weights alone: torch.save(model.state_dict(), 'NEW.pth')"
_DTYPES = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': jnp.bfloat16,
  'I64': np.int64,
}


def read_state_dict(
  path: str | os.PathLike, sha256: str = '', field: str = 'config.model.weights'
) -> dict[str, np.ndarray]:
  """Reads a state dict from one of `FORMATS`; nothing in it is executed.

  A checkpoint that holds it under 'state_dict' or 'model' will do, and the
  prefix 'module.' of a parallel run is taken off. Arrays have torch's names and
  layout and the file's dtypes; they may be read-only. `sha256` is what the
  file's must be, '' for any, `field` the flag that named the path, for errors.
  """
  where = f'{field} = {os.fspath(path)!r}'
  with untrusted(where, allowed=FORMATS, cure=f'--{field}=FILE'):
    data = read_bytes(expand(path))
  found = hashlib.sha256(data).hexdigest()
  if sha256 and sha256.lower() != found:
    problem = f'{field}_sha256 = {sha256!r}: not the SHA-256 of {path}'
    allowed = f'{found}, if this is the file you mean'
    cure = f'fetch the file again, or correct --{field}_sha256'
    raise InputError(problem, allowed=allowed, cure=cure)
  return _state_dict(_load(data, where, another_file(field)), where)


def another_file(field: str) -> str:
  """What to do about a file that is of no use."""
  return f'fetch the file again, or choose another --{field}'


def _load(data: bytes, where: str, cure: str) -> Any:
  damaged = f'{where}: damaged, cut short or of an unknown kind'
  with untrusted(damaged, allowed=FORMATS, cure=cure):
    if data[8:9] == b'{':  # after the length of the header
      tensors = {}
      for name, item in safetensors.deserialize(data):
        array = np.frombuffer(item['data'], _DTYPES[item['dtype']])
        tensors[name] = array.reshape(item['shape'])
      return tensors
    if data.startswith(b'PK'):
      try:
        return torch_zip.read_tensors(data)
      except torch_zip.ForeignNameError as error:
        why = f'refused, its pickle names {str(error)!r}; nothing was run'
        allowed = 'tensors in dicts and lists, numbers and texts'
        problem = f'{where}: {why}'
        raise InputError(problem, allowed=allowed, cure=_ALONE) from error
  if data.startswith(b'\x80') or data[257:262] == b'ustar':
    raise InputError(
      f'{where}: a .pth file in the form from before torch 1.6',
      allowed=FORMATS,
      cure='take a newer file, or convert it where torch is: safetensors.torch'
      ".save_file(torch.load('OLD.pth', weights_only=True), 'NEW.safetensors')",
    )
  problem = f'{where}: not a file of weights'
  raise InputError(problem, allowed=FORMATS, cure=cure)


def _state_dict(tree: Any, where: str) -> dict[str, np.ndarray]:
  for key in ('state_dict', 'model'):
    if isinstance(tree, dict) and isinstance(tree.get(key), dict):
      tree = tree[key]
  if not isinstance(tree, dict) or not tree:
    tree = {type(tree).__name__: None}
  others = [
    repr(name)
    for name, value in tree.items()
    if not isinstance(name, str) or not isinstance(value, np.ndarray)
  ]
  if others:
    problem = f'{where}: no state dict; no tensors by name: {", ".join(others)}'
    allowed = "tensors by name, alone or under 'state_dict' or 'model'"
    raise InputError(problem, allowed=allowed, cure=_ALONE)
  if all(name.startswith('module.') for name in tree):
    return {name.removeprefix('module.'): tree[name] for name in tree}
  return tree


def write_safetensors(
  path: str | os.PathLike, state_dict: Mapping[str, np.ndarray]
) -> None:
  """Writes a state dict as .safetensors, all of the file or none of it."""
  path = expand(path)
  # safetensors writes the memory as it lies, whatever the strides are.
  arrays = {k: np.asarray(v, order='C') for k, v in state_dict.items()}
  # 'pt' tells the readers that look for it that the layout is torch's.
  data = safetensors.numpy.save(arrays, metadata={'format': 'pt'})
  write_whole(path, data, partial=f'.{path.name}.{os.getpid()}')
