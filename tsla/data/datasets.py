"""A name becomes arrays: every source ends in the same two checked splits."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tsla.data import cache, folders, label_noise, npz, sources
from tsla.data.feed import Images, Rows
from tsla.errors import InputError
from tsla.files import expand, untrusted

if TYPE_CHECKING:
  import ml_collections


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """The examples of one split, in the order of the source."""

  images: Images  # u8[N, H, W, C], C = 1 (grey) or 3; may be read-only
  labels: np.ndarray  # i32[N], in 0 .. K - 1
  # f32[N], width / height before they were resized; None: as they are.
  aspects: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A classification set, in memory or mapped from a cache."""

  name: str  # the `data.name` that it was loaded by
  train: Split
  test: Split
  class_names: tuple[str, ...]  # by label
  # SHA-256 over images, labels, aspects, shapes and class names, whatever they
  # are from.
  fingerprint: str
  validation: Split | None = None  # of the training set, not trained on
  notes: Sequence[str] = ()  # what a person should know of it
  left_out: Sequence[tuple[str, str]] = ()  # its files that are not in it, why

  @property
  def splits(self) -> dict[str, Split]:
    """Those that hold something, by name."""
    splits = {n: getattr(self, n) for n in ('train', 'test', 'validation')}
    return {n: part for n, part in splits.items() if part and part.labels.size}

  @property
  def num_classes(self) -> int:
    """K."""
    return len(self.class_names)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""
    return self.train.images.shape[1:]


def load_dataset(
  config: 'ml_collections.ConfigDict', *, to_train: bool = True
) -> Dataset:
  """Reads a data set and checks it against what it says of itself.

  Images are decoded once; a later call maps what `tsla.data.cache` keeps.
  `config` is the section `data`. Raises InputError for a set that is unknown,
  missing, damaged, empty, of mixed sizes, or not what it says it is, and for
  one `to_train` of a single class, or without training examples of a class.
  """
  name, path, where = config.name, config.path, f'data.name = {config.name!r}:'
  cure = f'--config.data.path={"FILE" if name == "npz" else "DIR"}'
  if name in ('folder', 'npz'):
    if not path:
      raise InputError(f'{where} data.path is empty', cure=cure)
    path = str(expand(path))
  if name == 'npz':
    raw, class_names, notes = npz.read(path, config.image_size, to_train)
    fingerprint, left_out = cache.fingerprint(raw, class_names), []
  else:
    with untrusted(f'{where} data.path = {path!r}', cure=cure):
      if name == 'folder':
        source = folders.find_folder(path)
      else:
        source = sources.find_tfds(name, path, download=config.download)
      if not to_train:  # decoded images are not written beside it
        source = source._replace(homes=source.homes[::-1])
      raw, class_names, fingerprint, notes, left_out = cache.load_decoded(
        source, config.image_size, skip_corrupt=config.skip_corrupt
      )
  test = _checked(f'{where} test', class_names, raw['test'])
  train = Split(test.images[:0], test.labels[:0])
  if to_train or len(raw['train'][0]):
    train = _checked(f'{where} train', class_names, raw['train'])
  shapes = train.images.shape[1:], test.images.shape[1:]
  if shapes[0] != shapes[1]:
    problem = f'{where} images of train are {shapes[0]}, of test {shapes[1]}'
    cure = '--config.data.image_size=256 resizes all images'
    raise InputError(problem, allowed='one shape', cure=cure)
  if to_train:
    notes += _check_classes(where, train, test, class_names)
  validation = None
  if config.label_noise or config.validation:
    noise = config.label_noise, config.label_noise_seed
    labels = label_noise.add_label_noise(train.labels, len(class_names), *noise)
    mask = label_noise.set_apart(train.labels, config.validation)
    fingerprint = label_noise.fingerprint(fingerprint, labels, mask)
    train = dataclasses.replace(train, labels=labels)
    if mask.any():
      train, validation = (
        Split(Rows(train.images, rows), labels[rows], train.aspects[rows])
        for rows in map(np.flatnonzero, (~mask, mask))
      )
  parts = train, test, tuple(class_names), fingerprint, validation
  return Dataset(name, *parts, notes, left_out)


def _check_classes(
  where: str, train: Split, test: Split, class_names: list[str]
) -> list[str]:
  """A notice of classes that are not tested; InputError: not trained."""
  if len(class_names) < 2:
    problem = f'{where} its classes are {class_names}'
    raise InputError(problem, allowed='two classes or more')
  lacking = []
  for split in (train, test):
    counts = np.bincount(split.labels, minlength=len(class_names))
    names = [class_names[label] for label in np.flatnonzero(counts == 0)]
    more = f' and {len(names) - 5} more' * (len(names) > 5)
    lacking.append(', '.join(names[:5]) + more)
  if lacking[0]:
    problem = f'{where} no training example of {lacking[0]}'
    allowed = 'one of each class, and one to test it where that can be'
    cure = 'add one, or take what is of that class out of the test set'
    raise InputError(problem, allowed=allowed, cure=cure)
  return [f'no test example of {lacking[1]}'] * bool(lacking[1])


def _checked(
  where: str, class_names: list[str], arrays: Sequence[np.ndarray]
) -> Split:
  stacked, labels, aspects = arrays
  if not len(stacked):
    raise InputError(f'{where}: no examples')
  if len(labels) != len(stacked):
    allowed = f'{len(stacked)}, as images'
    raise InputError(f'{where}: {len(labels)} labels', allowed=allowed)
  count = len(class_names)
  if labels.min() < 0 or labels.max() >= count:
    problem = f'{where}: labels from {labels.min()} to {labels.max()}'
    allowed = f'0 to {count - 1}, as there are {count} class names'
    raise InputError(problem, allowed=allowed)
  return Split(stacked, labels.astype(np.int32), aspects)
