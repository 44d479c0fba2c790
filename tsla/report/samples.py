"""What the network sees: the first augmented images of a run."""

import functools
import io
import math

import jax
import numpy as np
from PIL import Image

from tsla.data import augment, batches, datasets
from tsla.data.pipeline import augmented
from tsla.errors import InputError
from tsla.pages.blocks import Picture
from tsla.report.results import RunResult
from tsla.training.build import view_of

COUNT = 32
_COLUMNS = 8
_LARGEST_SIDE = 88  # of a thumbnail, in pixels
_PAGE_WIDTH = 720


def first_images(run: RunResult) -> np.ndarray:
  """The first images of epoch 0, augmented as the run did, not normalised.

  `u8[B, H, W, C]`, B at most `COUNT`, of a run that has begun.
  """
  config = run.record.config
  config.data.download = False
  dataset = datasets.load_dataset(config.data)
  if run.record.fingerprint != dataset.fingerprint:
    raise InputError(f'data.name = {dataset.name!r}: not the data of the run')
  images = dataset.train.images
  order = jax.jit(batches.epoch_order, static_argnums=2)
  indices = np.asarray(order(config.seed, 0, len(images)))[:COUNT]
  keys = jax.jit(augment.example_keys)(config.seed, 0, indices)
  view = jax.jit(functools.partial(augmented, view_of(config)))
  return np.asarray(view(images[indices], keys, dataset.train.aspects[indices]))


def contact_sheet(images: np.ndarray) -> Picture:
  """`u8[B, H, W, 1 or 3]` in rows of eight; large ones shrunk, or enlarged."""
  height, width, channels = images.shape[1:]
  shrink = min(1.0, _LARGEST_SIDE / max(height, width))
  tiles = [Image.fromarray(i[..., 0] if channels == 1 else i) for i in images]
  if shrink < 1:
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    tiles = [tile.resize(size, Image.Resampling.LANCZOS) for tile in tiles]
  gap = max(1, tiles[0].width // 16)
  x, y = tiles[0].width + gap, tiles[0].height + gap
  columns = min(_COLUMNS, len(tiles))
  extent = columns * x - gap, math.ceil(len(tiles) / columns) * y - gap
  sheet = Image.new(tiles[0].mode, extent, 'white')
  for index, tile in enumerate(tiles):
    sheet.paste(tile, (index % columns * x, index // columns * y))
  if shrink < 1 and channels == 3:
    sheet = sheet.quantize(256)  # a third of the bytes, for a thumbnail
  file = io.BytesIO()
  sheet.save(file, 'png', optimize=True)
  width = max(sheet.width, _PAGE_WIDTH // sheet.width * sheet.width)
  return Picture(png=file.getvalue(), width=width, pixelated=shrink == 1)
