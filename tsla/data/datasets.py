"""A name becomes arrays: every source ends in the same two checked splits."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from tsla.data import cache, label_noise, npz, sources
from tsla.errors import InputError
from tsla.files import untrusted

if TYPE_CHECKING:
  import ml_collections


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """The examples of one split, in the order of the source."""

  images: np.ndarray  # u8[N, H, W, C], C = 1 (grey) or 3; may be read-only
  labels: np.ndarray  # i32[N], in 0 .. K - 1


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A classification set, in memory or mapped from a cache."""

  name: str  # the `data.name` that it was loaded by
  train: Split
  test: Split
  class_names: tuple[str, ...]  # by label
  # SHA-256 over images, labels, shapes and class names, whatever they are from.
  fingerprint: str
  held_out: Split | None = None  # what of `train` is not trained on

  @property
  def num_classes(self) -> int:
    """K."""
    return len(self.class_names)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""
    return self.train.images.shape[1:]


def load_dataset(config: 'ml_collections.ConfigDict') -> Dataset:
  """Reads a data set and checks it against what it says of itself.

  Images are decoded once; a later call maps what `tsla.data.cache` keeps.

  Args:
    config: the `data` part of a run's configuration. Beside what
      `tsla.config.schema` says, `name` may be a TFDS set, as name, name/config
      or name/version, that lies prepared on disk as array_record and has the
      features `image` and `label`.

  Raises:
    InputError: the set is unknown, missing, damaged, empty, of mixed sizes, or
      not what it says it is.
  """
  where = f'data.name = {config.name!r}:'
  if config.name in ('folder', 'npz') and not config.path:
    kind = 'DIR' if config.name == 'folder' else 'FILE'
    cure = f'--config.data.path={kind}'
    raise InputError(f'{where} data.path is empty', cure=cure)
  if config.name == 'npz':
    raw, class_names = npz.read(config.path, config.image_size)
    fingerprint = cache.fingerprint(raw, class_names)
  else:
    named = f'{where} data.path = {config.path!r}'
    with untrusted(named, cure='--config.data.path=DIR'):
      if config.name == 'folder':
        source = sources.find_folder(config.path)
      else:
        source = sources.find_tfds(
          config.name, config.path, download=config.download
        )
      raw, class_names, fingerprint, _ = cache.load_decoded(
        source, config.image_size, skip_corrupt=config.skip_corrupt
      )
  train, test = (
    _checked(f'{where} {split}', *raw[split], class_names)
    for split in ('train', 'test')
  )
  if len(class_names) < 2:
    problem = f'{where} its classes are {class_names}'
    raise InputError(problem, allowed='two classes or more')
  shapes = train.images.shape[1:], test.images.shape[1:]
  if shapes[0] != shapes[1]:
    problem = f'{where} images of train are {shapes[0]}, of test {shapes[1]}'
    cure = '--config.data.image_size=256 resizes all images'
    raise InputError(problem, allowed='one shape', cure=cure)
  held_out = None
  if config.label_noise or config.held_out:
    fraction, seed = config.label_noise, config.label_noise_seed
    labels = label_noise.add_label_noise(
      train.labels, len(class_names), fraction, seed
    )
    mask = label_noise.held_out(len(labels), config.held_out)
    fingerprint = label_noise.fingerprint(fingerprint, labels, mask)
    train = Split(train.images, labels)
    if mask.any():
      train, held_out = (
        Split(train.images[part], labels[part]) for part in (~mask, mask)
      )
  names = tuple(class_names)
  return Dataset(config.name, train, test, names, fingerprint, held_out)


def _checked(
  where: str, stacked: np.ndarray, labels: np.ndarray, class_names: list[str]
) -> Split:
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
  return Split(stacked, labels.astype(np.int32))
