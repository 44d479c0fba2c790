"""Decoded pixels on disk: an image is decoded once, not at every start.

Below one of a source's homes a set lies in PLACE/STATE: where the source is,
its image size and decoder; its content. A new state replaces the old one. It is
complete or not there, because it is renamed into its place, and never changes:
all of it is read once a start, 1.5 GB/s a core with instructions for SHA-256,
and the set is decoded again where a fault of the disk made it differ.
"""

import collections
import contextlib
import functools
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
import PIL
import tqdm

from tsla.data import images
from tsla.data.array_cache import cached_array, writing
from tsla.data.sources import Contents, Examples, Source, Splits
from tsla.errors import InputError
from tsla.files import (
  existing,
  read_object,
  read_text,
  sha256_of,
  sync,
  write_object,
  write_whole,
)

_FORMAT = 3  # of the files below
_PART = 2**26  # bytes of images that have a SHA-256, or are kept by a kill
_WORTH_SAYING, _SLOW = 10**9, 10**10  # bytes, to decode and to check
_SPLITS = ('train', 'test')
_ROWS = {'labels': '<i4', 'aspects': '<f4'}  # one number an image
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
  notes: list[str]  # what a person should know of them
  left_out: list[tuple[str, str]]  # files, and why


def load_decoded(source: Source, size: int, *, skip_corrupt: bool) -> Decoded:
  """Returns a source's decoded images; decodes them unless they are there.

  A size of -1 is the one that fits. Processes that ask at once wait for the
  first one. InputError: of the source, the disk, or an image that is corrupt.
  """
  state = source.state()
  if size < 0:
    facts = {'location': source.location, 'state': state}
    size = int(cached_array('side', facts, lambda: _side(source)))
  below = pathlib.Path(_place(source, size), state)
  for home in source.homes:
    if decoded := _open(home / below, skip_corrupt):
      return decoded
  writable = (h for h in source.homes if os.access(existing(h), os.W_OK))
  home = next(writable, source.homes[-1])
  with writing(home, 'no decoded images can be stored there', _MAKE_ROOM):
    if not (decoded := _open(home / below, skip_corrupt)):
      _build(home / below, source, size, skip_corrupt)
      decoded = _open(home / below, skip_corrupt)
  return decoded


def fingerprint(splits: Splits, class_names: list[str]) -> str:
  """Returns the SHA-256 over images, labels, shapes and class names.

  Over aspects too, but where all are those of the images as they are stored.
  """
  digest = hashlib.sha256()
  for split in _SPLITS:
    pixels, labels, aspects = splits[split]
    digest.update(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels))
    digest.update(labels.astype('<i4'))
    height, width = pixels.shape[1:3]
    if (aspects != np.float32(width / max(1, height))).any():
      digest.update(aspects.astype('<f4'))
  digest.update(json.dumps(list(class_names)).encode())
  return digest.hexdigest()


def _side(source: Source) -> np.ndarray:
  splits = source.open().splits.values()
  read = (example[:2] for split in splits for example in split.read())
  return np.array(images.fitting_side(read))


def _place(source: Source, size: int, version: int = _FORMAT) -> str:
  digest = _sha256([version, source.location, size, PIL.__version__])
  readable = re.sub(r'[^\w.]+', '-', source.location).strip('-')[-40:]
  return f'{readable}-{size}-{digest[:12]}'


def _open(folder: pathlib.Path, skip_corrupt: bool) -> Decoded | None:
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
      if about[split]['images_sha256'] != _digests(folder, split):
        raise ValueError(f'{folder / split}.images: not what was written')
    notes, left_out = about['notes'], about['left_out']
  except (OSError, ValueError, KeyError) as error:
    text = getattr(error, 'problem', error)
    print(f'{text}; its set is decoded again', file=sys.stderr)
    return None
  if skipped and not skip_corrupt:
    raise images.CorruptImage(*skipped[0])
  left_out += [(where, 'damaged') for where, _ in skipped]
  if left_out:
    reasons = collections.Counter(why for _, why in left_out).most_common()
    counts = ', '.join(f'{count} {why}' for why, count in reasons[:5])
    # The damaged ones are those that matter.
    one = f'{(skipped or left_out)[0][0]} is one'
    every = 'data.json of a run on this set names all'
    notes.append(f'{len(left_out)} files left out: {counts}; {one}; {every}')
  return Decoded(splits, names, about['fingerprint'], notes, left_out)


def _sha256(value: Any) -> str:
  return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _digests(folder: pathlib.Path, split: str) -> list[str]:
  path = folder / f'{split}.images'
  return _read_digests(path, path.stat().st_ctime_ns)


@functools.lru_cache(len(_SPLITS))
def _read_digests(path: pathlib.Path, changed: int) -> list[str]:
  """The SHA-256 of each part of a file, which a process reads once."""
  flat = np.memmap(path, np.uint8, 'r')
  if flat.size > _SLOW:
    print(f'{path}: {flat.size / 1e9:,.1f} GB are checked', file=sys.stderr)
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    parts = (flat[i : i + _PART] for i in range(0, flat.size, _PART))
    return list(pool.map(lambda p: hashlib.sha256(p).hexdigest(), parts))


def _open_splits(folder: pathlib.Path, about: dict) -> Splits:
  splits = {}
  for split in _SPLITS:
    path, shape = folder / f'{split}.images', tuple(about[split]['shape'])
    rows = [np.fromfile(folder / f'{split}.{n}', t) for n, t in _ROWS.items()]
    found = [hashlib.sha256(numbers).hexdigest() for numbers in rows]
    written = [about[split][f'{name}_sha256'] for name in _ROWS]
    if (path.stat().st_size, found) != (math.prod(shape), written):
      raise ValueError(f'{folder / split}.*: not what was written')
    # Without memmap's own type, which JAX and NumPy would carry along.
    pixels = np.asarray(np.memmap(path, np.uint8, 'r', shape=shape))
    splits[split] = pixels, *(n.astype(n.dtype.newbyteorder('=')) for n in rows)
  return splits


def _build(
  target: pathlib.Path, source: Source, size: int, skip_corrupt: bool
) -> None:
  """Decodes the source into `target`; needs the home's lock."""
  home = target.parents[1]
  building, begun = home / '.building', home / '.building' / 'of'
  name = f'{target.parent.name}/{target.name}'
  contents = source.open()
  # The source's earlier states, and what a killed build of another one left.
  for old in (target.parent, home / _place(source, size, _FORMAT - 1)):
    shutil.rmtree(old, ignore_errors=True)
  if not begun.exists() or read_text(begun) != name:
    shutil.rmtree(building, ignore_errors=True)
  _check_space(building, contents, size)
  try:
    if not building.exists():
      building.mkdir()
      write_whole(begun, name)
    about = {
      split: _write_split(building / split, examples, size, skip_corrupt)
      for split, examples in contents.splits.items()
    }
    splits = _open_splits(building, about)
    for split in _SPLITS:
      about[split]['images_sha256'] = _digests(building, split)
    about |= {
      'class_names': contents.class_names,
      'left_out': contents.left_out,
      'notes': contents.notes,
      'fingerprint': fingerprint(splits, contents.class_names),
      'source': source.location,
      'image_size': size,
    }
    write_object(building / _ABOUT, about | {'sha256': _sha256(about)})
    if source.state() != target.name:
      problem = f'{source.location}: it changed while it was read'
      cure = 'start again when nothing writes there any more'
      shutil.rmtree(building)  # it may come back to the state of before
      raise InputError(problem, cure=cure)
    target.parent.mkdir(exist_ok=True)
    building.rename(target)
    for each in (target / begun.name, *target.glob('*.kept*')):
      each.unlink()
    for folder in (target, target.parent, home):
      sync(folder)
  except OSError:  # of the cache's disk; after any other the build goes on
    shutil.rmtree(building, ignore_errors=True)
    raise


def _check_space(building: pathlib.Path, contents: Contents, size: int) -> None:
  """Says what a large set will take; InputError if the disk has less."""
  need = 0
  for examples in contents.splits.values():
    sides = (size, size, examples.channels) if size else examples.shape
    need += examples.size * math.prod(sides or (0,))
  need -= sum(file.stat().st_size for file in building.glob('*.images'))
  free = shutil.disk_usage(building.parent).free
  found = f'{need / 1e9:,.1f} GB of decoded images, {free / 1e9:,.1f} GB free'
  if need > free:
    cure = f'{_MAKE_ROOM}; or a smaller --config.data.image_size'
    raise InputError(f'{building.parent}: {found}', cure=cure)
  if need > _WORTH_SAYING:
    print(f'{building.parent}: {found}', file=sys.stderr)


def _write_split(
  path: pathlib.Path, examples: Examples, size: int, skip_corrupt: bool
) -> dict[str, Any]:
  """Writes path.images, .labels and .aspects; returns what describes them.

  path.kept says how much is on the disk: after a kill it goes on there.
  """
  order, kept = collections.deque(), path.with_suffix('.kept')
  seen, count, shape, skipped = 0, 0, () if size else examples.shape, []
  paths = [path.with_suffix(f'.{name}') for name in ('images', *_ROWS)]
  if kept.exists():
    seen, (count, *shape), skipped = read_object(kept).values()
    if skipped and not skip_corrupt:
      raise images.CorruptImage(*skipped[0])
  lengths = [count * n for n in (math.prod(shape), 4, 4)]

  def encoded() -> Iterator[images.Encoded]:
    for where, image, label in examples.read(seen):
      order.append((where, label))
      yield where, image

  decoded = images.decode_all(encoded(), channels=examples.channels, size=size)
  looks = {'leave': False, 'delay': 1, 'disable': None, 'unit': ' images'}
  looks |= {'initial': seen, 'total': examples.size}
  bar = tqdm.tqdm(decoded, f'decode {path.name}', **looks)
  # Written, not mapped: a full disk is an error then, and not the end.
  with contextlib.ExitStack() as stack:
    files = [stack.enter_context(each.open('ab')) for each in paths]
    for file, length in zip(files, lengths, strict=True):
      if file.tell() < length:
        shutil.rmtree(path.parent)
        raise InputError(f'{path}: shorter than it was', cure='start again')
      file.truncate(length)
    for image, aspect in bar:
      where, label = order.popleft()
      seen += 1
      if isinstance(image, images.CorruptImage):
        if not skip_corrupt:
          raise image
        skipped.append((image.where, image.reason))
        continue
      shape = shape or image.shape
      if image.shape != tuple(shape):
        problem = f'{where}: {_words(image.shape)}, data.image_size = {size}'
        allowed = f'{_words(shape)} as the others'
        cure = '--config.data.image_size=256 resizes all images'
        cure += ' (of `tsla prepare`: --image_size)'
        raise InputError(problem, allowed=allowed, cure=cure)
      row = image, *map(np.array, (label, aspect), _ROWS.values())
      for file, part in zip(files, row, strict=True):
        file.write(part)
      count += 1
      if count % max(1, _PART // image.nbytes) == 0:
        for file in files:
          file.flush()
          os.fsync(file.fileno())
        now = {'shape': [count, *shape], 'skipped': skipped}
        write_object(kept, {'seen': seen, **now})
  for each in paths:
    sync(each)
  if not count:
    raise InputError(f'{examples.where}: no readable image')
  about = {f'{each.suffix[1:]}_sha256': sha256_of(each) for each in paths[1:]}
  return about | {'shape': [count, *shape], 'skipped': skipped}


def _words(shape: Sequence[int]) -> str:
  return '×'.join(map(str, shape)) + ' (height, width, channels)'
