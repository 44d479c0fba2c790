"""What the network sees: the first augmented images of a run."""

import io
import math

import jax.numpy as jnp
import numpy as np
from PIL import Image

from tsla.data import batches, datasets
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

  `u8[B, H, W, C]`, B at most `COUNT`, in the order of the training, of a run
  that has begun. Nothing is downloaded for it.

  Raises:
    InputError: its data set is not where it was, or another one is there.
  """
  config = run.record.config
  config.data.download = False
  dataset = datasets.load_dataset(config.data)
  if run.record.fingerprint != dataset.fingerprint:
    raise InputError(f'data.name = {dataset.name!r}: not the data of the run')
  images = dataset.train.images
  indices = batches.epoch_order(config.seed, 0, len(images))[:COUNT]
  picked = jnp.asarray(images[np.asarray(indices)])
  return np.asarray(augmented(view_of(config), picked, config.seed, 0, indices))


def contact_sheet(images: np.ndarray) -> Picture:
  """The images in rows of eight; large ones shrunk, small ones enlarged.

  The images are `u8[B, H, W, C]`, C = 1 or 3.
  """
  height, width, channels = images.shape[1:]
  shrink = min(1.0, _LARGEST_SIDE / max(height, width))
  size = max(1, round(width * shrink)), max(1, round(height * shrink))
  mode = 'L' if channels == 1 else 'RGB'
  gap = max(1, size[0] // 16)
  cell = size[0] + gap, size[1] + gap
  columns = min(_COLUMNS, len(images))
  rows = math.ceil(len(images) / columns)
  extent = columns * cell[0] - gap, rows * cell[1] - gap
  sheet = Image.new(mode, extent, 'white')
  for index, image in enumerate(images):
    tile = Image.fromarray(image[..., 0] if channels == 1 else image)
    if shrink < 1:
      tile = tile.resize(size, Image.Resampling.LANCZOS)
    row, column = divmod(index, columns)
    sheet.paste(tile, (column * cell[0], row * cell[1]))
  if shrink < 1 and mode == 'RGB':
    sheet = sheet.quantize(256)  # a third of the bytes, for a thumbnail
  file = io.BytesIO()
  sheet.save(file, 'png', optimize=True)
  return Picture(
    png=file.getvalue(),
    width=max(sheet.width, _PAGE_WIDTH // sheet.width * sheet.width),
    pixelated=shrink == 1,
  )
