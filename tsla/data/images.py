"""Files to pixels: the one decoder and the one resizing of the project.

The pixels of a JPEG depend on the decoder, and so would a result: all sources
go through Pillow, converted to RGB first and resized afterwards.
"""

import collections
import contextlib
import io
import itertools
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator
from concurrent import futures

import numpy as np
from PIL import Image, ImageOps

from tsla.errors import InputError
from tsla.files import open_regular

_PART = 32  # images that a thread decodes in one go
# What data sets hold under the names of JPEG and PNG. Pillow knows others, and
# runs a program for one of them.
_FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'WEBP', 'TIFF')
LARGEST = 256  # pixels a side, where no size is given
MOST_PIXELS = 2**26  # of an image, in the file or resized: 8192 × 8192

# What names an image in errors, and its encoded bytes or its file.
Encoded = tuple[str, bytes | pathlib.Path]


class CorruptImage(InputError):
  """An image whose encoded form is damaged; `reason` is the decoder's."""

  def __init__(self, where: str, reason: str):
    self.where, self.reason = where, reason
    cure = 'repair it, or --config.data.skip_corrupt=true leaves it out'
    cure += ' (of `tsla prepare`: --skip_corrupt)'
    super().__init__(f'{where}: not a readable image: {reason}', cure=cure)


# An image's pixels, `u8[H, W, C]`, and its width / height before the resizing.
Decoded = tuple[np.ndarray | CorruptImage, float]


def decode_all(
  sources: Iterable[Encoded], *, channels: int, size: int
) -> Iterator[Decoded]:
  """Decodes images on all cores, in the order of `sources`.

  C is 3 for RGB, 1 for grey; `size` is the side in pixels they are resized to,
  antialiased bilinear, 0 = as stored. Transparency is dropped; of 16 bits a
  channel the upper half is kept, rounded. A file is turned upright as its EXIF
  says; the bytes of a prepared set stay as they were published. What is damaged
  is yielded as such; InputError is raised if an image cannot be opened.
  """

  def decode(part: list[Encoded]) -> list[Decoded]:
    return [_decode(source, where, channels, size) for where, source in part]

  # Of metadata that nobody reads.
  warnings.filterwarnings('ignore', category=UserWarning, module='PIL')
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


def convert(image: np.ndarray, channels: int, size: int) -> np.ndarray:
  """Pixels, `u8[H, W, C]`, as `decode_all` gives those of a file."""
  pixels = image[..., 0] if image.shape[-1] == 1 else image
  return _pixels(Image.fromarray(pixels), channels, size)


def fitting_side(sources: Iterable[Encoded]) -> int:
  """The median of the shorter sides of images, at most `LARGEST`."""
  sides = []
  for _, source in sources:
    with contextlib.suppress(Exception), _opened(source) as image:
      sides.append(min(image.size))
  return min(LARGEST, int(np.median(sides or [LARGEST])))


@contextlib.contextmanager
def _opened(source: bytes | pathlib.Path) -> Iterator[Image.Image]:
  opened = io.BytesIO if isinstance(source, bytes) else open_regular
  with opened(source) as file, Image.open(file, formats=_FORMATS) as image:
    yield image


def _upper_half(values: np.ndarray) -> np.ndarray:
  """Whole numbers of 16 bits as `u8`, 65535 as 255."""
  if values.dtype.kind not in 'iu' or values.min() < 0 or values.max() >= 2**16:
    raise ValueError(f'{values.dtype} pixels beyond 16 bits')
  return np.rint(values / 257).astype(np.uint8)


def _decode(
  source: bytes | pathlib.Path, where: str, channels: int, size: int
) -> Decoded:
  bombs = Image.DecompressionBombError, Image.DecompressionBombWarning
  try:
    with _opened(source) as image:
      if image.width * image.height > MOST_PIXELS:
        found = f'{image.width} × {image.height} pixels'
        raise ValueError(f'{found}, more than {MOST_PIXELS:,}')
      image.load()
      if not isinstance(source, bytes):
        try:
          ImageOps.exif_transpose(image, in_place=True)
        except MemoryError:
          raise
        except Exception:  # of EXIF that is damaged
          pass
      if image.mode.startswith(('I', 'F')):
        image = Image.fromarray(_upper_half(np.asarray(image)))
      if 'transparency' in image.info:  # Pillow warns about the direct way.
        image = image.convert('RGBA')
      return _pixels(image, channels, size), image.width / image.height
  except (OSError, SyntaxError, ValueError, *bombs) as error:
    if getattr(error, 'errno', None):  # the disk's error, not the image's
      cure = 'start again when the disk is well: what is decoded is kept'
      raise InputError(f'{where}: {error.strerror}', cure=cure) from error
    return CorruptImage(where, str(error)), 0.0


def _pixels(image: Image.Image, channels: int, size: int) -> np.ndarray:
  image = image.convert('L' if channels == 1 else 'RGB')
  if size:
    image = image.resize((size, size), Image.Resampling.BILINEAR)
  pixels = np.asarray(image)
  return pixels if pixels.ndim == 3 else pixels[..., None]
