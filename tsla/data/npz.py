"""Arrays from an .npz file."""

import os
import zipfile
from collections.abc import Collection

import numpy as np

from tsla import files
from tsla.data import images
from tsla.data.sources import Splits
from tsla.errors import InputError

_NPZ = ('train_images', 'train_labels', 'test_images', 'test_labels')
_KINDS = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED  # as numpy compresses
_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}
_MOST_CLASSES = 1_000_000  # more is a marker, not a label


def read(
  path: str, size: int, to_train: bool
) -> tuple[Splits, list[str], list[str]]:
  """A file's splits, its class names, and what a person should know of it.

  Labels are texts, or numbers from 0 with `class_names`; without, any numbers:
  those that occur are the classes, in order. A size of 0 is as stored, of -1
  the shorter side, at most `images.LARGEST`. Unless it is `to_train`, the
  training set may be missing. InputError: damaged, or over half of the memory.
  """
  where, notes = f'data.path = {path!r}', []
  arrays = read_arrays(path, (*_NPZ, 'class_names'), where)
  keys = _NPZ if to_train or {*_NPZ[:2]} & arrays.keys() else _NPZ[2:]
  if missing := [key for key in keys if key not in arrays]:
    problem = f'{where}: it has no {", ".join(missing)}'
    raise InputError(problem, allowed=', '.join(keys))
  for key in keys:
    _check_array(where, key, arrays[key])
  arrays = {f'train{key[4:]}': arrays[key][:0] for key in _NPZ[2:]} | arrays
  labels = np.concatenate([arrays['train_labels'], arrays['test_labels']])
  kinds, places = np.unique(labels, return_inverse=True)
  class_names = arrays.get('class_names', kinds).astype(str).ravel().tolist()
  if 'class_names' not in arrays:
    labels = places
    if class_names != [str(label) for label in range(len(kinds))]:
      several = ', '.join(class_names[:5]) + ', …' * (len(kinds) > 5)
      notes.append(f'labels 0 to {len(kinds) - 1} are {several}')
  elif labels.dtype.kind == 'U':
    if vague := [k for k in kinds.tolist() if class_names.count(k) != 1]:
      problem = f'{where}: labels {vague[:3]} are not once in class_names'
      raise InputError(problem, allowed=f'numbers, or {class_names[:9]}')
    labels = np.array([class_names.index(kind) for kind in kinds])[places]
  cut, raw = len(arrays['train_labels']), {}
  for split, part in (('train', labels[:cut]), ('test', labels[cut:])):
    pixels = arrays[f'{split}_images']
    if pixels.ndim == 3:
      pixels = pixels[..., None]
    aspect = np.float32(pixels.shape[2] / max(1, pixels.shape[1]))
    size = min(*pixels.shape[1:3], images.LARGEST) if size < 0 else size
    if len(pixels) and size and (size, size) != pixels.shape[1:3]:
      pixels = np.stack(
        [images.convert(image, pixels.shape[3], size) for image in pixels]
      )
    raw[split] = pixels, part, np.full(len(part), aspect)
  return raw, class_names, notes


def read_arrays(
  path: str | os.PathLike, keys: Collection[str], where: str
) -> dict[str, np.ndarray]:
  """Those arrays of a file that are there; raises as `read` does."""
  allowed = 'plain arrays, as numpy.savez writes them; no objects'
  with (
    files.untrusted(f'{where}: not a readable .npz file', allowed=allowed),
    files.open_regular(path) as opened,
    zipfile.ZipFile(opened) as archive,
  ):
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    files.check_archive(archive, memory // 2, _KINDS)
    there = {name.removesuffix('.npy'): name for name in archive.namelist()}
    arrays = {
      key: _read_member(archive, there[key]) for key in keys if key in there
    }
    if len(arrays.get('class_names', ())) > _MOST_CLASSES:
      raise ValueError(f'class_names are more than {_MOST_CLASSES:,}')
    for key, array in arrays.items():
      if array.dtype.kind == 'S':
        arrays[key] = np.char.decode(array, 'utf-8')
  return arrays


def read_images(path: str | os.PathLike) -> np.ndarray:
  """The `images` of a file, else its `test_images`, `u8[N, H, W, C]`."""
  keys = 'images', 'test_images'
  arrays = read_arrays(path, keys, str(path))
  if not arrays:
    raise InputError(f'{path}: it has no images', allowed=' or '.join(keys))
  key = min(arrays)
  _check_array(str(path), key, arrays[key])
  return arrays[key].reshape(*arrays[key].shape[:3], -1)


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
  """An array; NumPy's reader would make room for whatever the header says."""
  with archive.open(name) as file:
    header = _HEADERS[np.lib.format.read_magic(file)]
    shape, by_columns, dtype = header(file)
    if min(shape, default=0) < 0:
      raise ValueError(f'{name} is of shape {shape}')
    values = np.frombuffer(file.read(), dtype)
  return values.reshape(shape, order='F' if by_columns else 'C')


def _check_array(where: str, key: str, array: np.ndarray) -> None:
  found = f'{array.dtype} of shape {array.shape}'
  if 'labels' in key:
    right = array.ndim == 1 and array.dtype.kind in 'iuU' and len(array) > 0
    if right and array.dtype.kind != 'U':
      found += f', from {array.min()} to {array.max()}'
      right = 0 <= array.min() <= array.max() < _MOST_CLASSES
    allowed = f'texts or integers, 0 to {_MOST_CLASSES - 1}, one or more: (N,)'
  else:
    grey_or_rgb = array.ndim == 4 and array.shape[-1] in (1, 3)
    right = array.dtype == np.uint8 and (array.ndim == 3 or grey_or_rgb)
    allowed = 'uint8 of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3)'
  if not right:
    problem = f'{where}: {key} is {found}'
    raise InputError(problem, allowed=allowed)
