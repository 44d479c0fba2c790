"""Where encoded images come from; here TFDS."""

import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tsla.data import prepare
from tsla.data.builders import BUILDERS
from tsla.errors import InputError
from tsla.files import user_cache

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

# By split `u8[N, H, W, C]`, N labels, and as `f32[N]` the width / height that
# each image had before it was resized.
Splits = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]

_READ_AT_ONCE = 1024
_UNLABELLED = 'imagenet2012'  # its test images have no labels


class Examples(NamedTuple):
  """The encoded examples of one split."""

  where: str  # names the split in errors
  size: int  # how many there are
  channels: int  # of the decoded images
  shape: tuple[int, ...]  # (H, W, C) if it is that of all images, else ()
  # Yields what names an example in errors, its encoded image or the image's
  # file, and its label, from an example on.
  read: Callable[..., Iterator[tuple[str, bytes | pathlib.Path, int]]]


class Contents(NamedTuple):
  """What a source holds."""

  class_names: list[str]
  splits: dict[str, Examples]  # train and test
  left_out: Sequence[tuple[str, str]] = ()  # a file, and why
  notes: Sequence[str] = ()  # what a person should know of it


class Source(NamedTuple):
  """Encoded images on disk."""

  location: str  # as a text that is theirs alone within the homes
  homes: tuple[pathlib.Path, ...]  # for their decoded form, the best one first
  # A digest of the files' names, sizes and times of change. What changes a file
  # and none of the three, a fault of the disk, is not seen.
  state: Callable[[], str]
  open: Callable[[], Contents]


def find_tfds(name: str, path: str, *, download: bool) -> Source:
  """One of the project's own sets, or NAME/CONFIG, NAME/VERSION of TFDS.

  Its homes are beside the sets, and the user's own cache where nothing can be
  written. With `download` a missing set of the project's own is prepared.
  """
  root = prepare.data_root(path)
  directory = _find_prepared(name, path, root, download)

  def state() -> str:
    info = directory / 'dataset_info.json'
    content = info.read_bytes() if info.exists() else b''
    files = sorted(directory.iterdir())
    # A set may move with its decoded images; the time of its writing does.
    return digest(content, directory, files, lambda f: f.st_mtime_ns)

  location = os.fspath(directory.relative_to(root))
  homes = root / '.decoded', user_cache('decoded')
  return Source(location, homes, state, lambda: _open_tfds(name, directory))


def _find_prepared(
  name: str, path: str, root: pathlib.Path, download: bool
) -> pathlib.Path:
  where = f'data.name = {name!r}: not prepared in {root}'
  if name in BUILDERS:
    directory = root / name / BUILDERS[name]
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


def _open_tfds(name: str, directory: pathlib.Path) -> Contents:
  """As of `Source.open`; `validation` serves where there is no `test`."""
  builder = prepare.open_prepared(directory)
  features, splits = builder.info.features, builder.info.splits
  where = f'data.name = {name!r}'
  try:
    shape, dtype = features['image'].shape, features['image'].np_dtype
    class_names = features['label'].names
  except (KeyError, TypeError, AttributeError) as error:
    problem = f'{where}: its features are {list(features or ())}'
    allowed = 'an image-classification set with features image and label'
    raise InputError(problem, allowed=allowed) from error
  if dtype != np.uint8 or len(shape) != 3 or shape[-1] not in (1, 3):
    problem = f'{where}: its images are {dtype} of shape {shape}'
    allowed = 'uint8 of shape (H, W, 1) or (H, W, 3)'
    raise InputError(problem, allowed=allowed)
  labelled = 'test' in splits and not name.startswith(_UNLABELLED)
  test = 'test' if labelled else 'validation'
  if 'train' not in splits or test not in splits:
    problem = f'{where}: its splits are {", ".join(splits)}'
    raise InputError(problem, allowed='train, and test or validation')
  parts = (_tfds_examples(builder, split) for split in ('train', test))
  return Contents(class_names, dict(zip(('train', 'test'), parts, strict=True)))


def _tfds_examples(builder: 'tfds.core.DatasetBuilder', split: str) -> Examples:
  import tensorflow_datasets as tfds

  where = f'{builder.data_path}: split {split!r}'
  again = prepare.again(builder.data_path)
  raw_bytes = tfds.decode.DeserializeMethod.RAW_BYTES
  source = builder.as_data_source(split, deserialize_method=raw_bytes)
  # TFDS's own PartialDecoding needs TensorFlow.
  features = tfds.features.FeaturesDict(
    {key: builder.info.features[key] for key in ('image', 'label')}
  )
  decoders = {'image': tfds.decode.SkipDecoding()}

  def read(begin: int = 0) -> Iterator[tuple[str, bytes, int]]:
    for first in range(begin, len(source), _READ_AT_ONCE):
      keys = range(first, min(first + _READ_AT_ONCE, len(source)))
      try:
        with source.data_source:  # else each of a thousand files stays open
          records = source.__getitems__(keys)
      except RuntimeError as error:
        raise InputError(f'{where} is damaged: {error}', cure=again) from error
      for key, record in zip(keys, records, strict=True):
        example = features.deserialize_example_np(record, decoders=decoders)
        yield f'{where}, example {key}', example['image'], example['label']

  shape = features['image'].shape
  fixed = () if None in shape else shape
  return Examples(where, len(source), shape[-1], fixed, read)


def digest(
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
