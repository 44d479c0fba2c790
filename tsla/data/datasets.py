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
  """A classification set, in memory or mapped from a cache.

  Attributes:
    name: the `data.name` that it was loaded by.
    train: what a model is trained on.
    test: what it is judged by.
    class_names: the K names, by label.
    fingerprint: SHA-256 over images, labels, shapes and class names; equal for
      equal content, whatever it was read from.
    held_out: what of the training set is not trained on; None: nothing.
  """

  name: str
  train: Split
  test: Split
  class_names: tuple[str, ...]
  fingerprint: str
  held_out: Split | None = None

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
    config: the `data` part of a run's configuration.
      `name`: a key of `BUILDERS`; another TFDS set, as name, name/config or
      name/version, that lies prepared on disk as array_record and has the
      features `image` and `label`; 'folder', images in
      PATH/{train,test}/CLASS; 'npz', a file with train_images, train_labels,
      test_images, test_labels and, if it likes, class_names.
      `path`: the TFDS data_dir ('' = TFDS's default), the folder, the file.
      `image_size`: the side in pixels that images are resized to, antialiased
      bilinear; 0 = as stored.
      `download`: whether a missing set may be fetched and built.
      `skip_corrupt`: whether damaged images are left out, not refused.
      `label_noise`, `label_noise_seed`: as of `label_noise.add_label_noise`.
      `held_out`: the part of the training set that is not trained on.

  Returns:
    The set. A TFDS set's `validation` split serves where it has no `test`.

  Raises:
    InputError: the set is unknown, missing, damaged, empty, of mixed sizes, or
      not what it says it is.

  Example:
    >>> import tempfile, types
    >>> path = tempfile.mkdtemp() + '/tiny.npz'
    >>> images, labels = np.zeros((2, 4, 4, 3), np.uint8), np.arange(2)
    >>> np.savez(path, train_images=images, train_labels=labels,
    ...          test_images=images, test_labels=labels)
    >>> config = types.SimpleNamespace(
    ...   name='npz', path=path, image_size=0, download=False,
    ...   label_noise=0.0, label_noise_seed=0, held_out=0.0)
    >>> dataset = load_dataset(config)
    >>> dataset.class_names, dataset.image_shape
    (('0', '1'), (4, 4, 3))
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
        source = sources.FolderSource(config.path)
      else:
        source = sources.find_tfds(
          config.name, config.path, download=config.download
        )
      decoded = cache.load_decoded(
        source, config.image_size, skip_corrupt=config.skip_corrupt
      )
    raw, class_names = decoded.splits, decoded.class_names
    fingerprint = decoded.fingerprint
  train, test = (
    _checked(f'{where} {split}', *raw[split], class_names)
    for split in ('train', 'test')
  )
  if len(class_names) < 2:
    problem = f'{where} its classes are {class_names}'
    raise InputError(problem, allowed='two classes or more')
  shapes = train.images.shape[1:], test.images.shape[1:]
  if shapes[0] != shapes[1]:
    raise InputError(
      f'{where} images of train are {shapes[0]}, of test {shapes[1]}',
      allowed='one shape',
      cure='--config.data.image_size=256 resizes all images',
    )
  held_out = None
  if config.label_noise or config.held_out:
    noise, seed = config.label_noise, config.label_noise_seed
    labels = label_noise.add_label_noise(
      train.labels, len(class_names), noise, seed
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
  """Returns the split unless it is empty or its labels are not its images'."""
  if not len(stacked):
    raise InputError(f'{where}: no examples')
  if len(labels) != len(stacked):
    raise InputError(
      f'{where}: {len(labels)} labels', allowed=f'{len(stacked)}, as images'
    )
  if labels.min() < 0 or labels.max() >= len(class_names):
    raise InputError(
      f'{where}: labels from {labels.min()} to {labels.max()}',
      allowed=f'0 to {len(class_names) - 1}, as there are {len(class_names)} '
      'class names',
    )
  return Split(stacked, labels.astype(np.int32))
