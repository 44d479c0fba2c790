"""CIFAR-100 with TFDS's name, version, features and order."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tsla.data.builders import BUILDERS, archive
from tsla.errors import InputError

_FOLDER = 'cifar-100-binary/'
_NAMES = {
  'label': _FOLDER + 'fine_label_names.txt',
  'coarse_label': _FOLDER + 'coarse_label_names.txt',
}
_RECORDS = {'train': _FOLDER + 'train.bin', 'test': _FOLDER + 'test.bin'}
_RECORD_BYTES = 2 + 3 * 32 * 32


class Cifar100(archive.ArchiveBuilder, skip_registration=True):
  """60,000 colour images of 32×32 pixels in 100 classes.

  A record of the archive is the coarse label, the fine label, then the pixels
  as `u8[3, 32, 32]`.

  Reference:
    Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
  """

  VERSION = tfds.core.Version(BUILDERS['cifar100'])
  SHAPE = (32, 32, 3)
  CLASSES = 100
  ARCHIVES = (
    archive.Archive(
      url='https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz',
      size=168513733,
      sha256='58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec',
    ),
  )
  HOMEPAGE = 'https://www.cs.toronto.edu/~kriz/cifar.html'

  def _features(self) -> dict[str, tfds.features.FeatureConnector]:
    more = {'coarse_label': tfds.features.ClassLabel(num_classes=20)}
    return {'id': tfds.features.Text(), **super()._features(), **more}

  def _split_generators(self, dl_manager: archive.Downloads) -> archive.Splits:
    path = self.fetch(self.ARCHIVES[0], dl_manager)
    files = archive.read_members(path, [*_NAMES.values(), *_RECORDS.values()])
    for feature, name in _NAMES.items():
      self.info.features[feature].names = files[name].decode().split()
    for name in _RECORDS.values():
      if not files[name] or len(files[name]) % _RECORD_BYTES:
        problem = f'{path}: {name} has {len(files[name])} bytes'
        allowed = f'records of {_RECORD_BYTES} bytes'
        raise InputError(problem, allowed=allowed)
    return {
      split: self._generate_examples(split, files[name])
      for split, name in _RECORDS.items()
    }

  def _generate_examples(
    self, split: str, data: bytes
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD_BYTES)
    for index, record in enumerate(records):
      image = record[2:].reshape(3, 32, 32).transpose(1, 2, 0)
      example = {
        'id': f'{split}_{index:05d}',
        'image': archive.png(np.ascontiguousarray(image)),
        'label': int(record[1]),
        'coarse_label': int(record[0]),
      }
      yield index, example
