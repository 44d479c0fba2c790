"""Where encoded images come from: TFDS, a folder."""

import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tsla.data import prepare
from tsla.data.builders import BUILDERS
from tsla.errors import InputError
from tsla.files import user_cache

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

# `u8[N, H, W, C]` and as many integers, by split.
Splits = dict[str, tuple[np.ndarray, np.ndarray]]

_SUFFIXES = ('.jpg', '.jpeg', '.png')
_READ_AT_ONCE = 1024


class Examples(NamedTuple):
  """The encoded examples of one split."""

  where: str  # names the split in errors
  size: int  # how many there are
  channels: int  # of the decoded images
  shape: tuple[int, ...]  # (H, W, C) if it is that of all images, else ()
  # Yields what names an example in errors, its encoded image or the image's
  # file, and its label.
  read: Callable[[], Iterator[tuple[str, bytes | pathlib.Path, int]]]


class Source(NamedTuple):
  """Encoded images on disk."""

  location: str  # as a text that is theirs alone within the homes
  homes: tuple[pathlib.Path, ...]  # for their decoded form, the best one first
  # A digest of the files' names, sizes and times of change. What changes a file
  # and none of the three, a fault of the disk, is not seen.
  state: Callable[[], str]
  # Returns the class names, and the examples of train and of test.
  open: Callable[[], tuple[list[str], dict[str, Examples]]]


def find_folder(path: str) -> Source:
  """Images in PATH/{train,test}/CLASS, in the order of class and file name.

  Nothing is written into their folder: the user's cache is their home.
  """

  def state() -> str:
    class_names, files = _list_folder(path)
    listed = [file for split in files.values() for _, file, _ in split]
    content = json.dumps(class_names).encode()
    # The kernel's own time, which no program can put back.
    return _digest(content, path, listed, lambda f: f.st_ctime_ns)

  def examples() -> tuple[list[str], dict[str, Examples]]:
    class_names, files = _list_folder(path)
    splits = {}
    for split, found in files.items():
      where, read = os.path.join(path, split), functools.partial(iter, found)
      splits[split] = Examples(where, len(found), 3, (), read)
    return class_names, splits

  location = os.fspath(pathlib.Path(path).resolve())
  return Source(location, (user_cache('decoded'),), state, examples)


def find_tfds(name: str, path: str, *, download: bool) -> Source:
  """One of the project's own sets, or another that TFDS prepared.

  Its homes are beside the sets, and the user's own cache where nothing can be
  written.

  Args:
    name: the set, or set/config, or set/version.
    path: the TFDS data_dir; '' = TFDS's default.
    download: whether a missing set of the project's own may be prepared.
  """
  root = prepare.data_root(path)
  directory = _find_prepared(name, path, root, download)

  def state() -> str:
    info = directory / 'dataset_info.json'
    content = info.read_bytes() if info.exists() else b''
    files = sorted(directory.iterdir())
    # A set may move with its decoded images; the time of its writing does.
    return _digest(content, directory, files, lambda f: f.st_mtime_ns)

  location = os.fspath(directory.relative_to(root))
  homes = root / '.decoded', user_cache('decoded')
  examples = functools.partial(_open_tfds, name, directory)
  return Source(location, homes, state, examples)


def _find_prepared(
  name: str, path: str, root: pathlib.Path, download: bool
) -> pathlib.Path:
  where = f'data.name = {name!r}: not prepared in {root}'
  if name in BUILDERS:
    directory = prepare.set_directory(name, path)
    if not directory.exists():
      if not download:
        cure = prepare.command(name, path)
        raise InputError(f'{where}, and data.download is false', cure=cure)
      prepare.prepare(name, path)
    return directory
  directory = root / name.replace(':', '/')
  if (directory / 'dataset_info.json').exists():
    return directory
  versions = {
    tuple(map(int, found.parent.name.split('.'))): found.parent
    for found in directory.glob('*/dataset_info.json')
    if re.fullmatch(r'\d+\.\d+\.\d+', found.parent.name)
  }
  if versions:
    return versions[max(versions)]
  known = [*sorted(BUILDERS), 'folder', 'npz']
  another = 'or a TFDS set that lies there as array_record'
  near = prepare.nearest(name, known, '--config.data.name=')
  cure = near or f'--config.data.path=DIR, where DIR holds {name}'
  raise InputError(where, allowed=', '.join([*known, another]), cure=cure)


def _open_tfds(
  name: str, directory: pathlib.Path
) -> tuple[list[str], dict[str, Examples]]:
  """As of `Source.open`; `validation` serves where there is no `test`."""
  builder = prepare.open_prepared(directory)
  features, splits = builder.info.features, builder.info.splits
  where = f'data.name = {name!r}'
  try:
    shape, dtype = features['image'].shape, features['image'].np_dtype
    class_names = features['label'].names
  except (KeyError, TypeError, AttributeError) as error:
    raise InputError(
      f'{where}: its features are {list(features or ())}',
      allowed='an image-classification set with features image and label',
    ) from error
  if dtype != np.uint8 or len(shape) != 3 or shape[-1] not in (1, 3):
    problem = f'{where}: its images are {dtype} of shape {shape}'
    allowed = 'uint8 of shape (H, W, 1) or (H, W, 3)'
    raise InputError(problem, allowed=allowed)
  test = 'test' if 'test' in splits else 'validation'
  if 'train' not in splits or test not in splits:
    problem = f'{where}: its splits are {", ".join(splits)}'
    raise InputError(problem, allowed='train, and test or validation')
  found = {'train': 'train', 'test': test}
  return class_names, {k: _tfds_examples(builder, found[k]) for k in found}


def _tfds_examples(builder: 'tfds.core.DatasetBuilder', split: str) -> Examples:
  import tensorflow_datasets as tfds

  where = f'{builder.data_path}: split {split!r}'
  source = builder.as_data_source(
    split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
  )
  # TFDS's own PartialDecoding needs TensorFlow.
  features = tfds.features.FeaturesDict(
    {key: builder.info.features[key] for key in ('image', 'label')}
  )
  decoders = {'image': tfds.decode.SkipDecoding()}

  def read() -> Iterator[tuple[str, bytes, int]]:
    for first in range(0, len(source), _READ_AT_ONCE):
      keys = range(first, min(first + _READ_AT_ONCE, len(source)))
      try:
        records = source.__getitems__(keys)
      except RuntimeError as error:
        again = prepare.again(builder.data_path)
        raise InputError(f'{where} is damaged: {error}', cure=again) from error
      for key, record in zip(keys, records, strict=True):
        example = features.deserialize_example_np(record, decoders=decoders)
        yield f'{where}, example {key}', example['image'], example['label']

  shape = features['image'].shape
  fixed = () if None in shape else shape
  return Examples(where, len(source), shape[-1], fixed, read)


def _list_folder(path: str) -> tuple[list[str], dict[str, list]]:
  """The class names, and what `Examples.read` yields of each split."""
  folders = [pathlib.Path(path, split) for split in ('train', 'test')]
  train, test = (_class_folders(path, folder) for folder in folders)
  if odd := sorted(set(train) ^ set(test)):
    raise InputError(
      f'data.path = {path!r}: {", ".join(odd)} not in both train and test',
      allowed='the same class folders in both',
    )
  return train, {
    folder.name: [
      (str(file), file, label)
      for label, name in enumerate(train)
      for file in _image_files(folder / name)
    ]
    for folder in folders
  }


def _class_folders(path: str, folder: pathlib.Path) -> list[str]:
  if not folder.is_dir():
    raise InputError(
      f'data.path = {path!r}: there is no folder {folder}',
      allowed='images in PATH/train/CLASS and PATH/test/CLASS',
    )
  return [item.name for item in _visible(folder) if item.is_dir()]


def _image_files(folder: pathlib.Path) -> list[pathlib.Path]:
  found = [i for i in _visible(folder) if i.suffix.lower() in _SUFFIXES]
  if not found:
    raise InputError(f'{folder}: no images', allowed=', '.join(_SUFFIXES))
  return found


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(i for i in folder.iterdir() if not i.name.startswith('.'))


def _digest(
  content: bytes,
  root: str | os.PathLike,
  files: Iterable[pathlib.Path],
  time: Callable[[os.stat_result], int],
) -> str:
  """Digests `content` and each file's name, size and time."""
  digest = hashlib.sha256(content)
  for file in files:
    facts = file.stat()
    name = os.path.relpath(file, root)
    digest.update(repr((name, facts.st_size, time(facts))).encode())
  return digest.hexdigest()
