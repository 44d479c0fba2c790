"""Data sets in the form of MNIST: four gzipped idx files."""

import gzip
import io
import math
import pathlib

import numpy as np

from tsla.errors import InputError
from tsla.files import open_regular, untrusted, write_whole

_MOST = 2**30  # bytes of an unpacked file; of EMNIST's images half of that
_PARTS = {
  'train_images': ('train-images-idx3-ubyte.gz', 3),
  'train_labels': ('train-labels-idx1-ubyte.gz', 1),
  'test_images': ('t10k-images-idx3-ubyte.gz', 3),
  'test_labels': ('t10k-labels-idx1-ubyte.gz', 1),
}


def read(path: pathlib.Path, ndim: int) -> np.ndarray:
  """An array of bytes from a gzipped idx file.

  The file has two zero bytes, the type (8: unsigned bytes), the number of
  dimensions, each dimension as a big-endian uint32, and the bytes.
  """
  where = f'--folder={path.parent}: {path.name}'
  again = 'fetch the file again'
  allowed = 'a folder with ' + ', '.join(name for name, _ in _PARTS.values())
  cure = 'apt-get install dataset-fashion-mnist, or fetch the files again'
  with untrusted(where, allowed=allowed, cure=cure), open_regular(path) as file:
    data = gzip.GzipFile(fileobj=file).read(_MOST + 1)
    if len(data) > _MOST:
      raise ValueError(f'unpacked, it takes more than {_MOST:,} bytes')
  start, magic = 4 + 4 * ndim, bytes([0, 0, 8, ndim])
  if data[:4] != magic or len(data) < start:
    problem = f'begins with {data[:4].hex()}, no {ndim} dimensions of bytes'
    allowed = f'{magic.hex()} and {ndim} dimensions'
    raise InputError(f'{where}: {problem}', allowed=allowed, cure=again)
  shape = tuple(np.frombuffer(data[4:start], '>u4').tolist())
  pixels = np.frombuffer(data, np.uint8, offset=start)
  if pixels.size != (size := math.prod(shape)):
    problem = f'{where}: {pixels.size:,} bytes for the shape {shape}'
    raise InputError(problem, allowed=f'{size:,}', cure=again)
  return pixels.reshape(shape)


def convert(
  folder: pathlib.Path, out: pathlib.Path, train: int | None = None
) -> dict[str, np.ndarray]:
  """Writes a folder's four files as one .npz file, a set of `data.name=npz`.

  Only the first `train` training images are taken, unless that is None. Returns
  the arrays by their names in the file.
  """
  arrays = {
    name: read(folder / file, ndim) for name, (file, ndim) in _PARTS.items()
  }
  most = len(arrays['train_labels'])
  if train is not None and not 0 < train <= most:
    allowed, cure = f'1 to {most}', f'--train={most}'
    raise InputError(f'--train={train}', allowed=allowed, cure=cure)
  for name in ('train_images', 'train_labels'):
    arrays[name] = arrays[name][:train]
  np.savez_compressed(buffer := io.BytesIO(), **arrays)
  allowed, cure = 'a file that can be written', '--out=data/fashion_mnist.npz'
  with untrusted(f'--out={out}', allowed=allowed, cure=cure):
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, buffer.getvalue())
  return arrays
