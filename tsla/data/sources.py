"""Where a set comes from: TFDS, a folder of images, an .npz file."""

import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tsla.data import images, prepare
from tsla.data.builders import BUILDERS
from tsla.errors import InputError

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

# `u8[N, H, W, C]` and as many integers, by split.
Raw = tuple[np.ndarray, np.ndarray]
Splits = dict[str, Raw]

_SUFFIXES = ('.jpg', '.jpeg', '.png')
_NPZ = ('train_images', 'train_labels', 'test_images', 'test_labels')
_READ_AT_ONCE = 1024
_MOST_CLASSES = 1_000_000  # more is a marker, not a label


def read_tfds(
  name: str, path: str, size: int, *, download: bool
) -> tuple[Splits, list[str]]:
  """Reads one of the project's own sets or another that TFDS prepared.

  Args:
    name: the set, or set/config, or set/version.
    path: the TFDS data_dir; '' = TFDS's default.
    size: as of `images.decode_all`.
    download: whether a missing set of the project's own may be prepared.

  Returns:
    The splits, `validation` as `test` if there is no `test`, and class names.

  Raises:
    InputError: the set is missing, damaged or not for image classification.
  """
  builder = prepare.open_prepared(_prepared_directory(name, path, download))
  features, splits = builder.info.features, builder.info.splits
  try:
    shape, dtype = features['image'].shape, features['image'].np_dtype
    class_names = features['label'].names
  except (KeyError, TypeError, AttributeError) as error:
    raise InputError(
      f'data.name = {name!r}: its features are {list(features or ())}',
      allowed='an image-classification set with features image and label',
    ) from error
  if dtype != np.uint8 or len(shape) != 3 or shape[-1] not in (1, 3):
    raise InputError(
      f'data.name = {name!r}: its images are {dtype} of shape {shape}',
      allowed='uint8 of shape (H, W, 1) or (H, W, 3)',
    )
  test = 'test' if 'test' in splits else 'validation'
  if 'train' not in splits or test not in splits:
    raise InputError(
      f'data.name = {name!r}: its splits are {", ".join(splits)}',
      allowed='train, and test or validation',
    )
  raw = {
    'train': _read_tfds_split(builder, 'train', size),
    'test': _read_tfds_split(builder, test, size),
  }
  return raw, class_names


def _prepared_directory(name: str, path: str, download: bool) -> pathlib.Path:
  """Returns the folder of a TFDS set; prepares it if need be and allowed."""
  root = prepare.data_root(path)
  if name in BUILDERS:
    directory = prepare.set_directory(name, path)
    if directory.exists():
      return directory
    if download:
      return prepare.prepare(name, path)
    raise InputError(
      f'data.name = {name!r}: not prepared in {root}, and '
      'data.download is false',
      cure=prepare.command(name, path),
    )
  from tensorflow_datasets import core

  directory = root / name.replace(':', '/')
  if (directory / 'dataset_info.json').exists():
    return directory
  versions = [
    path.parent
    for path in directory.glob('*/dataset_info.json')
    if core.Version.is_valid(path.parent.name)
  ]
  if versions:
    return max(versions, key=lambda path: core.Version(path.name))
  known = [*sorted(BUILDERS), 'folder', 'npz']
  raise InputError(
    f'data.name = {name!r}: not prepared in {root}',
    allowed=f'{", ".join(known)}, or a TFDS set that lies there as '
    'array_record',
    cure=prepare.nearest(name, known, '--config.data.name=')
    or f'--config.data.path=DIR, where DIR holds {name}',
  )


def _read_tfds_split(
  builder: 'tfds.core.DatasetBuilder', split: str, size: int
) -> Raw:
  import tensorflow_datasets as tfds

  where = f'{builder.data_path}: split {split!r}'
  source = builder.as_data_source(
    split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
  )
  # TFDS's own PartialDecoding needs TensorFlow.
  features = tfds.features.FeaturesDict(
    {key: builder.info.features[key] for key in ('image', 'label')}
  )
  shape, labels = features['image'].shape, []

  def encoded() -> Iterator[tuple[str, bytes]]:
    for first in range(0, len(source), _READ_AT_ONCE):
      keys = range(first, min(first + _READ_AT_ONCE, len(source)))
      try:
        records = source.__getitems__(keys)
      except RuntimeError as error:
        raise InputError(
          f'{where} is damaged: {error}',
          cure=f'remove {builder.data_path} and prepare the set again',
        ) from error
      for key, record in zip(keys, records, strict=True):
        example = features.deserialize_example_np(
          record, decoders={'image': tfds.decode.SkipDecoding()}
        )
        labels.append(example['label'])
        yield f'{where}, example {key}', example['image']

  pixels = images.decode_all(
    encoded(),
    len(source),
    channels=shape[-1],
    size=size,
    shape=() if size else shape,
  )
  return pixels, np.array(labels)


def read_folder(path: str, size: int) -> tuple[Splits, list[str]]:
  """Reads images from PATH/{train,test}/CLASS.

  Args:
    path: the folder.
    size: as of `images.decode_all`.

  Returns:
    The splits, in the order of class and file name, and the sorted classes.

  Raises:
    InputError: a folder is missing or empty, or an image cannot be used.
  """
  folders = [pathlib.Path(path, split) for split in ('train', 'test')]
  classes = []
  for folder in folders:
    if not folder.is_dir():
      raise InputError(
        f'data.path = {path!r}: there is no folder {folder}',
        allowed='images in PATH/train/CLASS and PATH/test/CLASS',
      )
    classes.append(
      sorted(
        item.name
        for item in folder.iterdir()
        if item.is_dir() and not item.name.startswith('.')
      )
    )
  class_names = classes[0]
  if odd := sorted(set(classes[0]) ^ set(classes[1])):
    raise InputError(
      f'data.path = {path!r}: {", ".join(odd)} not in both train and test',
      allowed='the same class folders in both',
    )
  raw = {
    folder.name: _read_folder_split(folder, class_names, size)
    for folder in folders
  }
  return raw, class_names


def _read_folder_split(
  folder: pathlib.Path, class_names: list[str], size: int
) -> Raw:
  files, labels = [], []
  for label, name in enumerate(class_names):
    found = sorted(
      item
      for item in (folder / name).iterdir()
      if item.suffix.lower() in _SUFFIXES and not item.name.startswith('.')
    )
    if not found:
      raise InputError(
        f'{folder / name}: no images', allowed=', '.join(_SUFFIXES)
      )
    files += found
    labels += [label] * len(found)
  sources = ((str(file), file) for file in files)
  pixels = images.decode_all(sources, len(files), channels=3, size=size)
  return pixels, np.array(labels)


def read_npz(path: str, size: int) -> tuple[Splits, list[str]]:
  """Reads arrays train_images, train_labels, test_images and test_labels.

  Args:
    path: the .npz file.
    size: as of `images.decode_all`.

  Returns:
    The splits and the class names: its array class_names, else '0' to the
    largest label.

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
  except (
    *(OSError, ValueError, TypeError, EOFError),
    *(zipfile.BadZipFile, zlib.error),
  ) as error:
    raise InputError(
      f'data.path = {path!r}: not a readable .npz file: {error}',
      allowed='plain arrays, as numpy.savez writes them; no objects',
    ) from error
  if missing := [key for key in _NPZ if key not in arrays]:
    raise InputError(
      f'data.path = {path!r}: it has no {", ".join(missing)}',
      allowed=', '.join(_NPZ),
    )
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
  if 'labels' in key:
    right = (
      array.ndim == 1
      and array.dtype.kind in 'iu'
      and len(array) > 0
      and array.max() < _MOST_CLASSES
    )
    allowed = f'at least one integer below {_MOST_CLASSES}, shape (N,)'
  else:
    right = array.dtype == np.uint8 and (
      array.ndim == 3 or (array.ndim == 4 and array.shape[-1] in (1, 3))
    )
    allowed = 'uint8 of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3)'
  if not right:
    raise InputError(
      f'data.path = {path!r}: {key} is {array.dtype} of shape {array.shape}'
      + (f', up to {array.max()}' if 'labels' in key and array.size else ''),
      allowed=allowed,
    )
