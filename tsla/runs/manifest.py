"""What a saved state must hold: a SHA-256 of each array and of each file.

The arrays are hashed in memory, before they are written; the files as they lie
on the disk afterwards. So a manifest tells a damaged file without reading any
array out of it, and arrays that came back otherwise than they went.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

NAME = 'manifest.json'
_BLOCK = 1 << 20


class Damaged(Exception):
  """What lies on the disk is not what was saved; the text says where."""


@dataclasses.dataclass(frozen=True)
class Manifest:
  """The digests of one saved state.

  Attributes:
    arrays: name -> `{'shape', 'dtype', 'sha256'}`.
    files: path inside the folder -> SHA-256.
  """

  arrays: dict[str, dict[str, Any]]
  files: dict[str, str]

  def check_files(self, folder: pathlib.Path) -> None:
    """Raises Damaged if a file of `folder` is missing or another."""
    for name, expected in self.files.items():
      try:
        found = _of_file(folder / name)
      except OSError as error:
        raise Damaged(f'{name}: {error.strerror}') from error
      if found != expected:
        raise Damaged(f'{name}: its SHA-256 is not that of the manifest')

  def check_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises Damaged if `arrays` are not those that were saved."""
    found = digests(arrays)
    for name in sorted(found.keys() | self.arrays.keys()):
      if found.get(name) != self.arrays.get(name):
        raise Damaged(f'{name}: not the array that was saved')


def named(tree: Any) -> dict[str, Any]:
  """The leaves of `tree` by name, as 'params/fc/bias'."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def host_copy(tree: Any) -> dict[str, np.ndarray]:
  """The leaves of `tree` by name, in memory that nothing else will change.

  Args:
    tree: arrays that are whole on each device.
  """
  leaves = named(tree)
  for leaf in leaves.values():
    leaf.copy_to_host_async()
  # A view would keep the device from reusing a donated array.
  return {
    name: np.array(leaf.addressable_data(0)) for name, leaf in leaves.items()
  }


def digests(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
  """Shape, dtype and SHA-256 of each array.

  Example:
    >>> digests({'a': np.zeros(2, np.float32)})['a']['sha256'][:8]
    'af5570f5'
  """
  return {
    name: {
      'shape': list(array.shape),
      'dtype': str(array.dtype),
      'sha256': hashlib.sha256(np.ascontiguousarray(array)).hexdigest(),
    }
    for name, array in arrays.items()
  }


def write(folder: pathlib.Path, arrays: dict[str, dict[str, Any]]) -> None:
  """Brings all files of `folder` to the disk, and a manifest of them.

  Args:
    folder: a saved state.
    arrays: the `digests` of what was saved.
  """
  files = {}
  for path in sorted(folder.rglob('*')):
    if path.is_file():
      files[str(path.relative_to(folder))] = _of_file(path)
    sync(path)
  content = {'arrays': arrays, 'files': files}
  partial = folder / (NAME + '.partial')
  partial.write_text(
    json.dumps(content | {'sha256': _of_content(content)}, indent=1)
  )
  sync(partial)
  partial.rename(folder / NAME)
  sync(folder)


def read(folder: pathlib.Path) -> Manifest:
  """The manifest of a saved state.

  Raises:
    Damaged: it is missing, or not as it was written.
  """
  try:
    content = json.loads((folder / NAME).read_text())
  except OSError as error:
    raise Damaged(f'{NAME}: {error.strerror}') from error
  except ValueError as error:
    raise Damaged(f'{NAME}: {error}') from error
  expected = content.pop('sha256', None) if isinstance(content, dict) else None
  if expected != _of_content(content):
    raise Damaged(f'{NAME}: not as it was written')
  return Manifest(**content)


def sync(path: pathlib.Path) -> None:
  """Brings a file, or the names in a folder, to the disk."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def _of_content(content: Any) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _of_file(path: pathlib.Path) -> str:
  digest = hashlib.sha256()
  with path.open('rb') as file:
    while block := file.read(_BLOCK):
      digest.update(block)
  return digest.hexdigest()
