"""Images that a device does not hold: read row by row, ahead of their use.

Each chunk has memory of its own, which nothing overwrites: on the CPU jax goes
on to use what NumPy has allocated. Rows of a mapped file are read, not looked
at: off a cold disk that is four times as fast at 256 pixels, and a fault of the
disk is an error instead of the end of the process.
"""

import collections
import os
import weakref
from collections.abc import Callable
from concurrent import futures
from typing import Any

import numpy as np

from tsla.errors import InputError
from tsla.files import untrusted

_AHEAD = 2  # chunks that are made while one is computed
_PIECE = 64  # rows that a thread copies in one go
_THREADS = 8  # however few the cores: they wait for the disk


class Rows:
  """Some rows of an array of images, `u8[N, H, W, C]`, without a copy."""

  def __init__(self, images: np.ndarray, rows: np.ndarray):
    self.images, self.rows = images, rows
    self.shape = len(rows), *images.shape[1:]
    self.nbytes = len(rows) * images[:1].nbytes

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, picked: 'int | slice | np.ndarray') -> np.ndarray:
    return self.images[self.rows[picked]]


# What a split has for images.
Images = np.ndarray | Rows


def reader(images: Images) -> Callable[[np.ndarray], np.ndarray]:
  """A function that copies rows, `i32[...]` to `u8[..., H, W, C]`, by threads.

  Rows beyond the last are the last one. What the function raises is an
  InputError: the file cannot be read, or is shorter than it was.
  """
  if not isinstance(images, Rows):
    images = Rows(images, np.arange(len(images)))
  copy, shape = _copier(images.images), images.shape[1:]
  pool = futures.ThreadPoolExecutor(_THREADS, 'rows')

  def read(rows: np.ndarray) -> np.ndarray:
    flat = images.rows[rows.ravel().clip(max=len(images) - 1)]
    out = np.empty((flat.size, *shape), np.uint8)
    pieces = [slice(i, i + _PIECE) for i in range(0, flat.size, _PIECE)]
    list(pool.map(lambda piece: copy(flat[piece], out[piece]), pieces))
    return out.reshape(*rows.shape, *shape)

  return read


def _copier(images: np.ndarray) -> Callable[[np.ndarray, np.ndarray], None]:
  """Copies rows of an array, or of the file that it is mapped from."""
  mapped = images.base
  if not isinstance(mapped, np.memmap) or mapped.shape != images.shape:
    return lambda rows, out: np.take(images, rows, 0, out=out, mode='clip')
  name, size = str(mapped.filename), images[:1].nbytes
  cure = 'start again: a damaged cache is found, and decoded anew'
  with untrusted(name, cure=cure):
    file = os.open(name, os.O_RDONLY)

  def copy(rows: np.ndarray, out: np.ndarray) -> None:
    with untrusted(name, cure=cure):
      for place, row in enumerate(rows.tolist()):
        if os.preadv(file, [out[place]], row * size) != size:
          raise InputError(f'{name}: shorter than it was', cure=cure)

  weakref.finalize(copy, os.close, file)
  return copy


class Feed:
  """Makes chunks in a thread, in the order in which they will be taken.

  `make` makes one by its key, on which alone it depends; `following` says which
  key comes after another, None after the last.
  """

  def __init__(
    self, make: Callable[[Any], Any], following: Callable[[Any], Any]
  ):
    self._make, self._following = make, following
    self._pool = futures.ThreadPoolExecutor(1, 'feed')
    self._made = collections.deque[tuple[Any, futures.Future]]()

  def take(self, key: Any) -> Any:
    """The chunk of a key; waits for it, and has those after it made."""
    while self._made and self._made[0][0] != key:
      self._made.popleft()[1].cancel()
    latest = self._made[-1][0] if self._made else None
    while len(self._made) <= _AHEAD:
      latest = self._following(latest) if self._made else key
      if latest is None:
        break
      self._made.append((latest, self._pool.submit(self._make, latest)))
    return self._made.popleft()[1].result()
