"""Files to pixels: the one decoder and the one resizing of the project.

The pixels of a JPEG depend on the decoder, and so would a result: all sources
go through Pillow, converted to RGB first and resized afterwards.
"""

import collections
import io
import itertools
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import TYPE_CHECKING

import numpy as np

from tsla.errors import InputError
from tsla.files import open_regular

if TYPE_CHECKING:
  from PIL import Image


_PART = 32  # images that a thread decodes in one go
# What data sets hold under the names of JPEG and PNG. Pillow knows others, and
# runs a program for one of them.
_FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'WEBP')
MOST_PIXELS = 2**26  # of an image, in the file or resized: 8192 × 8192

# What names an image in errors, and its encoded bytes or its file.
Encoded = tuple[str, bytes | pathlib.Path]


class CorruptImage(InputError):
  """An image whose encoded form is damaged; `reason` is the decoder's."""

  def __init__(self, where: str, reason: str):
    self.where, self.reason = where, reason
    super().__init__(
      f'{where}: not a readable image: {reason}',
      cure='repair it, or --config.data.skip_corrupt=true leaves it out',
    )


def decode_all(
  sources: Iterable[Encoded], *, channels: int, size: int
) -> Iterator[np.ndarray | CorruptImage]:
  """Decodes images on all cores, to `u8[H, W, C]` in the order of `sources`.

  C is 3 for RGB, 1 for grey; `size` is the side in pixels they are resized to,
  antialiased bilinear, 0 = as stored. Transparency is dropped, EXIF rotation
  ignored. What is damaged is yielded as such.

  Raises:
    InputError: an image cannot be opened or has more than 8 bits a channel.
  """

  def decode(part: list[Encoded]) -> list[np.ndarray | CorruptImage]:
    return [_decode(source, where, channels, size) for where, source in part]

  from PIL import Image

  # Pillow's own budget: beyond ours it warns, and far beyond it refuses.
  warnings.simplefilter('error', Image.DecompressionBombWarning)
  sources, waiting = iter(sources), collections.deque()
  workers = os.cpu_count() or 1
  # Threads: Pillow frees the interpreter while it decodes and resizes.
  with futures.ThreadPoolExecutor(workers) as pool:
    # A window, so that neither encoded nor decoded images pile up.
    while part := list(itertools.islice(sources, _PART)):
      waiting.append(pool.submit(decode, part))
      if len(waiting) > 2 * workers:
        yield from waiting.popleft().result()
    while waiting:
      yield from waiting.popleft().result()


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """Resizes `u8[H, W, C]`, C = 1 or 3, as `decode_all` does."""
  from PIL import Image

  grey = image.shape[-1] == 1
  return _pixels(Image.fromarray(image[..., 0] if grey else image), size)


def _decode(
  source: bytes | pathlib.Path, where: str, channels: int, size: int
) -> np.ndarray | CorruptImage:
  from PIL import Image

  bombs = Image.DecompressionBombError, Image.DecompressionBombWarning
  try:
    opened = io.BytesIO if isinstance(source, bytes) else open_regular
    with opened(source) as file, Image.open(file, formats=_FORMATS) as image:
      if image.width * image.height > MOST_PIXELS:
        found = f'{image.width} × {image.height} pixels'
        raise ValueError(f'{found}, more than {MOST_PIXELS:,}')
      if image.mode.startswith(('I', 'F')):
        problem = f'{where}: an image of mode {image.mode}'
        raise InputError(problem, allowed='8 bits a channel')
      if 'transparency' in image.info:  # Pillow warns about the direct way.
        image = image.convert('RGBA')
      return _pixels(image.convert('L' if channels == 1 else 'RGB'), size)
  except InputError:
    raise
  except (OSError, SyntaxError, ValueError, *bombs) as error:
    if getattr(error, 'errno', None):  # the disk's error, not the image's
      raise InputError(f'{where}: {error.strerror}') from error
    return CorruptImage(where, str(error))


def _pixels(image: 'Image.Image', size: int) -> np.ndarray:
  from PIL import Image

  if size:
    image = image.resize((size, size), Image.Resampling.BILINEAR)
  pixels = np.asarray(image)
  return pixels if pixels.ndim == 3 else pixels[..., None]
