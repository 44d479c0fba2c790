"""Fields that follow from the data set where they are not given."""

import math

import numpy as np

from tsla.config.forms import flatten
from tsla.config.schema import Config
from tsla.data import datasets
from tsla.data.array_cache import cached_array
from tsla.data.feed import Images
from tsla.errors import InputError
from tsla.files import expand


def said(asked: Config, settled: Config) -> str:
  """What `settle` has found, in a line; '' if nothing was asked."""
  fields = flatten(settled)
  found = ', '.join(f'{name} = {fields[name]}' for name in asked.from_data)
  return f'from the data: {found}' if found else ''


def settle(config: Config) -> Config:
  """The config with a value for every field of its `from_data`, which is empty.

  The size is the median of the shorter sides, at most 256; below 96 images are
  shifted by up to an eighth, from there on cut to seven eighths; mirrored if in
  colour. A batch is a power of two from 8 to 128, a thirty-second of the images
  or less; the learning rate 0.1 a batch of 128, a tenth of that from weights.
  """
  if not (follows := set(config.from_data)):
    return config
  config = config.copy_and_resolve_references()
  config.from_data = ()
  path = expand(config.data.path)
  if 'data.name' in follows and path.suffix == '.npz' and path.is_file():
    config.data.name = 'npz'
  if 'data.image_size' in follows:
    config.data.image_size = -1
  dataset = datasets.load_dataset(config.data)
  images, weights = dataset.train.images, bool(config.model.weights)
  side, small = min(images.shape[1:3]), min(images.shape[1:3]) < 96
  most = math.log2(len(images))
  power = math.floor(min(most, max(3, min(7, most - 5))))
  batch = 2**power if 'batch_size' in follows else config.batch_size
  facts = {'images': dataset.fingerprint}
  try:
    counts = cached_array('levels', facts, lambda: _count(images))
  except InputError:  # the cache cannot be written
    counts = _count(images)
  shares, levels = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
  mean = shares @ levels
  std = np.sqrt(shares @ levels**2 - mean**2).clip(1e-3)
  values = {
    'data.image_size': side,
    'data.mean': tuple(mean.round(4).tolist()),
    'data.std': tuple(std.round(4).tolist()),
    'batch_size': batch,
    'optimizer.learning_rate': round(batch / 1280 / (1 + 9 * weights), 5),
    'model.stem': 'cifar' if small and not weights else 'imagenet',
    'augment.pad': -(-side // 8) * (small and not config.augment.crop_area),
    'augment.crop': 0 if small else round(side * 7 / 8),
    'augment.flip': images.shape[-1] == 3,
  }
  found = {name: values[name] for name in values.keys() & follows}
  config.update_from_flattened_dict(found)
  return config


def _count(images: Images) -> np.ndarray:
  """How many pixels of a channel have each level, `i64[C, 256]`.

  Counted, so that every machine finds the same.
  """
  counts = np.zeros((images.shape[-1], 256), np.int64)
  for image in images:
    channels = np.moveaxis(image, -1, 0)
    counts += [np.bincount(c.ravel(), minlength=256) for c in channels]
  return counts
