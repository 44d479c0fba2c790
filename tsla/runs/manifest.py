"""What a saved state must hold: a SHA-256 of each array and of each file.

The arrays are hashed in memory, the files as they lie on the disk afterwards.
So a manifest tells a damaged file without reading any array out of it, and
arrays that came back otherwise than they went.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tsla import files
from tsla.errors import InputError

NAME = 'manifest.json'
_FORMAT = 2  # 1 had no `run`


class Damaged(InputError):
  """What lies in the folder of a saved state is not what was saved."""

  def __init__(self, folder: pathlib.Path, why: str):
    self.why = why
    super().__init__(
      f'{folder}: damaged: {why}',
      allowed='a checkpoint as it was saved',
      cure='python -m tsla check WORKDIR shows which are whole',
    )


@dataclasses.dataclass(frozen=True)
class Manifest:
  """The digests of one saved state, and whose it is.

  `run` holds its `step`, `log` (`RunLog.position`) and `RunDirectory.identity`;
  it is empty in those of earlier versions.
  """

  folder: pathlib.Path
  arrays: dict[str, dict[str, Any]]  # name -> {'shape', 'dtype', 'sha256'}
  files: dict[str, str]  # path inside the folder -> SHA-256
  run: dict[str, Any] = dataclasses.field(default_factory=dict)

  def empty(self) -> dict[str, np.ndarray]:
    """Arrays of the same shapes and dtypes, which take no memory."""
    each = self.arrays.items()
    zeros = {name: np.zeros((), entry['dtype']) for name, entry in each}
    return {n: np.broadcast_to(zeros[n], entry['shape']) for n, entry in each}

  def check_files(self) -> None:
    """Raises Damaged if a file of the folder is missing or another."""
    for name, expected in self.files.items():
      try:
        found = files.sha256_of(self.folder / name)
      except OSError as error:
        raise Damaged(self.folder, f'{name}: {error.strerror}') from error
      if found != expected:
        why = f'{name}: its SHA-256 is not that of the manifest'
        raise Damaged(self.folder, why)

  def check_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises Damaged if `arrays` are not those that were saved."""
    found = digests(arrays)
    for name in sorted(found.keys() | self.arrays.keys()):
      if found.get(name) != self.arrays.get(name):
        raise Damaged(self.folder, f'{name}: not the array that was saved')


def named(tree: Any) -> dict[str, Any]:
  """The leaves of `tree` by name, as 'params/fc/bias'."""
  spell = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
  return {spell(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def host_copy(tree: Any) -> dict[str, np.ndarray]:
  """The leaves of `tree` by name, in memory that nothing else will change."""
  leaves = named(tree)
  for leaf in leaves.values():
    leaf.copy_to_host_async()
  # A view would keep the device from reusing a donated array.
  return {n: np.array(leaf.addressable_data(0)) for n, leaf in leaves.items()}


def digests(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
  """Shape, dtype and SHA-256 of each array."""
  return {
    name: {
      'shape': list(array.shape),
      'dtype': str(array.dtype),
      'sha256': hashlib.sha256(np.ascontiguousarray(array)).hexdigest(),
    }
    for name, array in arrays.items()
  }


def write(
  folder: pathlib.Path, arrays: dict[str, dict[str, Any]], run: dict[str, Any]
) -> None:
  """Brings a saved state to the disk, with the `Manifest` of it."""
  content = {files.FORMAT: _FORMAT, 'arrays': arrays, 'files': {}, 'run': run}
  for path in sorted(folder.rglob('*')):
    if path.is_file():
      content['files'][str(path.relative_to(folder))] = files.sha256_of(path)
    files.sync(path)
  content['sha256'] = _of_content(content)
  files.write_whole(folder / NAME, json.dumps(content, indent=1))


def read(folder: pathlib.Path) -> Manifest:
  """The manifest of a saved state; raises Damaged, or NewerFormat."""
  try:
    content = files.parse(NAME, files.read_text(folder / NAME))
  except files.DamagedFile as error:
    raise Damaged(folder, error.problem) from error
  expected = content.pop('sha256', None)
  if expected != _of_content(content):
    raise Damaged(folder, f'{NAME}: not as it was written')
  # After the digest, so that a damaged digit is no newer version.
  version = content.pop(files.FORMAT, 1)
  files.check_format(folder / NAME, version, _FORMAT)
  return Manifest(folder, **content)


def _of_content(content: Any) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
