"""Decoded pixels on disk: an image is decoded once, not at every start.

Below one of a source's homes a set lies in PLACE/STATE. PLACE stands for where
the source is, for the image size and for the decoder; STATE for the source's
content. A new state replaces the old one. A folder STATE is complete or not
there, because it is renamed into its place, and nothing in it ever changes.

What a fault of the disk changes there is noticed: all of it is read once a
start and compared with its SHA-256; the set is decoded again where it differs.
On all cores, each takes 1.5 GB/s if it has instructions for SHA-256.
"""

import collections
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

from tsla.data import images
from tsla.data.array_cache import writing
from tsla.data.sources import Examples, Source, Splits
from tsla.errors import InputError
from tsla.files import existing, read_object, sync, write_object, write_whole

_FORMAT = 1  # of the files below
_PART = 2**26  # bytes of images that have a SHA-256
_SPLITS = ('train', 'test')
_ABOUT = 'about.json'
_MAKE_ROOM = (
  'make room; XDG_CACHE_HOME=DIR moves those of image folders, '
  '--config.data.path those of other sets'
)


class Decoded(NamedTuple):
  """What a cache holds."""

  splits: Splits  # train and test; the images are mapped read-only
  class_names: list[str]
  fingerprint: str
  skipped: list[Sequence[str]]  # where a corrupt image was, and why


def load_decoded(source: Source, size: int, *, skip_corrupt: bool) -> Decoded:
  """Returns a source's decoded images; decodes them unless they are there.

  Processes that ask at once wait for the first one. Corrupt images that are
  skipped are named on stderr.

  Raises:
    InputError: the source cannot be used; an image is corrupt and
      `skip_corrupt` is false, or has another shape than the others; the disk
      is full.
  """
  place, state = _place(source, size), source.state()
  found = (_open(home / place / state) for home in source.homes)
  decoded = next(filter(None, found), None)
  if not decoded:
    home = next(filter(_is_writable, source.homes), source.homes[-1])
    with writing(home, 'no decoded images can be stored there', _MAKE_ROOM):
      folder = home / place / state
      if not (decoded := _open(folder)):
        _build(folder, source, size, skip_corrupt)
        decoded = _open(folder)
  if decoded.skipped:
    if not skip_corrupt:
      raise images.CorruptImage(*decoded.skipped[0])
    text = f'{len(decoded.skipped)} corrupt images left out, the first is '
    print(text + decoded.skipped[0][0], file=sys.stderr)
  return decoded


def fingerprint(splits: Splits, class_names: list[str]) -> str:
  """Returns the SHA-256 over images, labels, shapes and class names."""
  digest = hashlib.sha256()
  for split in _SPLITS:
    pixels, labels = splits[split]
    digest.update(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels))
    digest.update(labels.astype('<i4'))
  digest.update(json.dumps(list(class_names)).encode())
  return digest.hexdigest()


def _place(source: Source, size: int) -> str:
  import PIL

  parts = [_FORMAT, source.location, size, PIL.__version__]
  digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
  readable = re.sub(r'[^\w.]+', '-', source.location).strip('-')[-40:]
  return f'{readable}-{size}-{digest[:12]}'


def _is_writable(home: pathlib.Path) -> bool:
  return os.access(existing(home), os.W_OK)


def _open(folder: pathlib.Path) -> Decoded | None:
  """Returns what the folder holds; None where that is not what was written."""
  if not folder.exists():
    return None
  try:
    about = read_object(folder / _ABOUT)
    if about.pop('sha256', '') != _sha256(about):
      raise ValueError(f'{folder / _ABOUT}: not what was written')
    skipped = [item for split in _SPLITS for item in about[split]['skipped']]
    splits, names = _open_splits(folder, about), about['class_names']
    for split in _SPLITS:
      if about[split]['images_sha256'] != _digests(splits[split][0]):
        raise ValueError(f'{folder / split}.images: not what was written')
    return Decoded(splits, names, about['fingerprint'], skipped)
  except (OSError, ValueError, KeyError) as error:
    text = getattr(error, 'problem', error)
    print(f'{text}; its set is decoded again', file=sys.stderr)
    return None


def _sha256(about: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _digests(pixels: np.ndarray) -> list[str]:
  """The SHA-256 of each part of the images, taken on all cores."""
  flat = pixels.reshape(-1)
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    parts = (flat[i : i + _PART] for i in range(0, flat.size, _PART))
    return list(pool.map(lambda p: hashlib.sha256(p).hexdigest(), parts))


def _open_splits(folder: pathlib.Path, about: dict) -> Splits:
  splits = {}
  for split in _SPLITS:
    path, shape = folder / f'{split}.images', tuple(about[split]['shape'])
    labels = np.fromfile(folder / f'{split}.labels', '<i4')
    digest = hashlib.sha256(labels).hexdigest()
    written = math.prod(shape), about[split]['labels_sha256']
    if (path.stat().st_size, digest) != written:
      raise ValueError(f'{path}: not what was written')
    # Without memmap's own type, which JAX and NumPy would carry along.
    pixels = np.asarray(np.memmap(path, np.uint8, 'r', shape=shape))
    splits[split] = pixels, labels.astype(np.int32)
  return splits


def _build(
  target: pathlib.Path, source: Source, size: int, skip_corrupt: bool
) -> None:
  """Decodes the source into `target`; needs the home's lock."""
  home = target.parents[1]
  building = home / '.building'
  # What a killed build left, and the source's earlier states.
  for stale in (building, target.parent):
    shutil.rmtree(stale, ignore_errors=True)
  building.mkdir()
  try:
    class_names, examples = source.open()
    about = {
      split: _write_split(building / split, examples[split], size, skip_corrupt)
      for split in _SPLITS
    }
    splits = _open_splits(building, about)
    for split in _SPLITS:
      about[split]['images_sha256'] = _digests(splits[split][0])
    about |= {
      'class_names': class_names,
      'fingerprint': fingerprint(splits, class_names),
      'source': source.location,
      'image_size': size,
    }
    write_object(building / _ABOUT, about | {'sha256': _sha256(about)})
    if source.state() != target.name:
      problem = f'{source.location}: it changed while it was read'
      cure = 'start again when nothing writes there any more'
      raise InputError(problem, cure=cure)
    target.parent.mkdir()
    building.rename(target)
    for folder in (target, target.parent, home):
      sync(folder)
  finally:
    shutil.rmtree(building, ignore_errors=True)


def _write_split(
  path: pathlib.Path, examples: Examples, size: int, skip_corrupt: bool
) -> dict[str, Any]:
  """Writes path.images and path.labels; returns what describes them."""
  import tqdm

  order, labels, skipped = collections.deque(), [], []
  shape = () if size else examples.shape

  def encoded() -> Iterator[images.Encoded]:
    for where, image, label in examples.read():
      order.append((where, label))
      yield where, image

  decoded = images.decode_all(encoded(), channels=examples.channels, size=size)
  looks = {'leave': False, 'delay': 1, 'disable': None, 'unit': ' images'}
  bar = tqdm.tqdm(decoded, f'decode {path.name}', examples.size, **looks)
  # Written, not mapped: a full disk is an error then, and not the end.
  with path.with_suffix('.images').open('wb') as file:
    for image in bar:
      where, label = order.popleft()
      if isinstance(image, images.CorruptImage):
        if not skip_corrupt:
          raise image
        skipped.append((image.where, image.reason))
        continue
      shape = shape or image.shape
      if image.shape != shape:
        problem = f'{where}: {_words(image.shape)}, data.image_size = {size}'
        allowed = f'{_words(shape)} as the others'
        cure = '--config.data.image_size=256 resizes all images'
        raise InputError(problem, allowed=allowed, cure=cure)
      file.write(image)
      labels.append(label)
  sync(path.with_suffix('.images'))
  if not labels:
    raise InputError(f'{examples.where}: no readable image')
  data = np.array(labels, '<i4').tobytes()
  write_whole(path.with_suffix('.labels'), data)
  digest, shape = hashlib.sha256(data).hexdigest(), [len(labels), *shape]
  return {'shape': shape, 'labels_sha256': digest, 'skipped': skipped}


def _words(shape: tuple[int, ...]) -> str:
  return '×'.join(map(str, shape)) + ' (height, width, channels)'
