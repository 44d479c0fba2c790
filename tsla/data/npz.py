"""Arrays from an .npz file."""

import os
import zipfile

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


def read(path: str, size: int) -> tuple[Splits, list[str]]:
  """A file's splits, and its class names, else '0' to the largest label.

  Raises:
    InputError: the file is damaged, an array is missing or of the wrong type,
      or all of them take more than half of the machine's memory.
  """
  with (
    files.untrusted(
      f'data.path = {path!r}: not a readable .npz file',
      allowed='plain arrays, as numpy.savez writes them; no objects',
    ),
    files.open_regular(path) as opened,
    zipfile.ZipFile(opened) as archive,
  ):
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    files.check_archive(archive, memory // 2, _KINDS)
    there = {name.removesuffix('.npy'): name for name in archive.namelist()}
    arrays = {
      key: _read_member(archive, there[key])
      for key in (*_NPZ, 'class_names')
      if key in there
    }
    if 'class_names' in arrays:
      if arrays['class_names'].size > _MOST_CLASSES:
        raise ValueError(f'class_names are more than {_MOST_CLASSES:,}')
      class_names = arrays['class_names'].astype(str).ravel().tolist()
  if missing := [key for key in _NPZ if key not in arrays]:
    problem = f'data.path = {path!r}: it has no {", ".join(missing)}'
    raise InputError(problem, allowed=', '.join(_NPZ))
  for key in _NPZ:
    _check_array(path, key, arrays[key])
  if 'class_names' not in arrays:
    labels = np.concatenate([arrays['train_labels'], arrays['test_labels']])
    class_names = [str(k) for k in range(int(labels.max()) + 1)]
  raw = {}
  for split in ('train', 'test'):
    pixels, labels = arrays[f'{split}_images'], arrays[f'{split}_labels']
    if pixels.ndim == 3:
      pixels = pixels[..., None]
    if size and len(pixels):
      pixels = np.stack([images.resize(image, size) for image in pixels])
    raw[split] = pixels, labels
  return raw, class_names


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
  """An array; NumPy's reader would make room for whatever the header says."""
  with archive.open(name) as file:
    header = _HEADERS[np.lib.format.read_magic(file)]
    shape, by_columns, dtype = header(file)
    if min(shape, default=0) < 0:
      raise ValueError(f'{name} is of shape {shape}')
    values = np.frombuffer(file.read(), dtype)
  return values.reshape(shape, order='F' if by_columns else 'C')


def _check_array(path: str, key: str, array: np.ndarray) -> None:
  found = f'{array.dtype} of shape {array.shape}'
  if 'labels' in key:
    right = array.ndim == 1 and array.dtype.kind in 'iu' and len(array) > 0
    if right:
      found += f', up to {array.max()}'
      right = array.max() < _MOST_CLASSES
    allowed = f'at least one integer below {_MOST_CLASSES}, shape (N,)'
  else:
    grey_or_rgb = array.ndim == 4 and array.shape[-1] in (1, 3)
    right = array.dtype == np.uint8 and (array.ndim == 3 or grey_or_rgb)
    allowed = 'uint8 of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3)'
  if not right:
    problem = f'data.path = {path!r}: {key} is {found}'
    raise InputError(problem, allowed=allowed)
