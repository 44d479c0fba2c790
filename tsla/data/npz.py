"""Arrays from an .npz file."""

import zlib
from zipfile import BadZipFile

import numpy as np

from tsla.data import images
from tsla.data.sources import Splits
from tsla.errors import InputError

_NPZ = ('train_images', 'train_labels', 'test_images', 'test_labels')
# What NumPy raises for a file that is none of its own, or is cut short.
_DAMAGED = OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error
_MOST_CLASSES = 1_000_000  # more is a marker, not a label


def read(path: str, size: int) -> tuple[Splits, list[str]]:
  """A file's splits, and its class names, else '0' to the largest label.

  Args:
    path: the .npz file.
    size: the side in pixels that images are resized to; 0 = as stored.

  Raises:
    InputError: the file is damaged, or an array is missing or of the wrong
      type.
  """
  try:
    # NumPy leaves a damaged file open that it opened itself.
    with (
      open(path, 'rb') as opened,
      np.load(opened, allow_pickle=False) as file,
    ):
      arrays = {key: file[key] for key in (*_NPZ, 'class_names') if key in file}
  except _DAMAGED as error:
    raise InputError(
      f'data.path = {path!r}: not a readable .npz file: {error}',
      allowed='plain arrays, as numpy.savez writes them; no objects',
    ) from error
  if missing := [key for key in _NPZ if key not in arrays]:
    problem = f'data.path = {path!r}: it has no {", ".join(missing)}'
    raise InputError(problem, allowed=', '.join(_NPZ))
  for key in _NPZ:
    _check_array(path, key, arrays[key])
  if 'class_names' in arrays:
    class_names = arrays['class_names'].astype(str).ravel().tolist()
  else:
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


def _check_array(path: str, key: str, array: np.ndarray) -> None:
  found = f'{array.dtype} of shape {array.shape}'
  if 'labels' in key:
    right = array.ndim == 1 and array.dtype.kind in 'iu' and len(array) > 0
    right = right and array.max() < _MOST_CLASSES
    allowed = f'at least one integer below {_MOST_CLASSES}, shape (N,)'
    found += f', up to {array.max()}' if array.size else ''
  else:
    grey_or_rgb = array.ndim == 4 and array.shape[-1] in (1, 3)
    right = array.dtype == np.uint8 and (array.ndim == 3 or grey_or_rgb)
    allowed = 'uint8 of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3)'
  if not right:
    problem = f'data.path = {path!r}: {key} is {found}'
    raise InputError(problem, allowed=allowed)
