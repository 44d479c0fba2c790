"""Files to pixels: the one decoder and the one resizing of the project.

The pixels of a JPEG depend on the decoder, and so would a result: all sources
go through Pillow, converted to RGB first and resized afterwards.
"""

import functools
import io
import itertools
import pathlib
from collections.abc import Iterable
from concurrent import futures
from typing import TYPE_CHECKING

import numpy as np

from tsla.errors import InputError

if TYPE_CHECKING:
  from PIL import Image


def decode_all(
  sources: Iterable[tuple[str, bytes | pathlib.Path]],
  count: int,
  *,
  channels: int,
  size: int,
  shape: tuple[int | None, ...] = (),
) -> np.ndarray:
  """Decodes JPEG or PNG images of one shape into one array.

  Args:
    sources: what names an image in errors, and the encoded image or its file.
    count: N, how many there are.
    channels: 3 for RGB, 1 for grey.
    size: the side in pixels they are resized to, antialiased bilinear; 0 = as
      stored.
    shape: what (H, W, C) has to be; the first image's where it says nothing.

  Returns:
    `u8[N, H, W, channels]`. Transparency is dropped, EXIF rotation ignored.

  Raises:
    InputError: an image is damaged, has more than 8 bits a channel or another
      shape.
  """
  sources, index, stacked = iter(sources), 0, np.empty((0,), np.uint8)
  with futures.ThreadPoolExecutor() as pool:
    # In portions, so that encoded and decoded images don't pile up.
    while portion := list(itertools.islice(sources, 1024)):
      parts = [portion[i : i + 64] for i in range(0, len(portion), 64)]
      decode = functools.partial(_decode_part, channels=channels, size=size)
      for part, decoded in zip(parts, pool.map(decode, parts), strict=True):
        for (where, _), image in zip(part, decoded, strict=True):
          if not index:
            shape = shape if shape and None not in shape else image.shape
            stacked = np.empty((count, *shape), np.uint8)
          if image.shape != shape:
            raise InputError(
              f'{where}: {_words(image.shape)}, data.image_size = {size}',
              allowed=f'{_words(shape)} as the others',
              cure='--config.data.image_size=256 resizes all images',
            )
          stacked[index] = image
          index += 1
  return stacked


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """Resizes `u8[H, W, C]`, C = 1 or 3, as `decode_all` does."""
  from PIL import Image

  if image.shape[-1] == 1:
    image = image[..., 0]
  return _pixels(Image.fromarray(image), size)


def _decode_part(
  sources: list[tuple[str, bytes | pathlib.Path]], *, channels: int, size: int
) -> list[np.ndarray]:
  return [_decode(source, where, channels, size) for where, source in sources]


def _decode(
  source: bytes | pathlib.Path, where: str, channels: int, size: int
) -> np.ndarray:
  from PIL import Image

  file = io.BytesIO(source) if isinstance(source, bytes) else source
  try:
    with Image.open(file) as image:
      if image.mode.startswith(('I', 'F')):
        raise InputError(
          f'{where}: an image of mode {image.mode}', allowed='8 bits a channel'
        )
      if 'transparency' in image.info:  # Pillow warns about the direct way.
        image = image.convert('RGBA')
      return _pixels(image.convert('L' if channels == 1 else 'RGB'), size)
  except (OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise InputError(f'{where}: not a readable image: {error}') from error


def _pixels(image: 'Image.Image', size: int) -> np.ndarray:
  from PIL import Image

  if size:
    image = image.resize((size, size), Image.Resampling.BILINEAR)
  pixels = np.asarray(image)
  return pixels if pixels.ndim == 3 else pixels[..., None]


def _words(shape: tuple[int, ...]) -> str:
  return '×'.join(map(str, shape)) + ' (height, width, channels)'
