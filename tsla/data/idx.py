"""Sets in the form of MNIST, four .gz files, become one .npz file.

  python -m tsla idx --folder=/usr/share/datasets/fashion-mnist \
    --out=data/fashion_mnist.npz

That folder is the one of Debian's package dataset-fashion-mnist; MNIST, KMNIST
and EMNIST come in the same form. Then `--config.data.name=npz
--config.data.path=data/fashion_mnist.npz` trains on it.
"""

import argparse
import gzip
import io
import math
import pathlib
import sys
import zlib
from collections.abc import Sequence

import numpy as np

from tsla.errors import InputError
from tsla.files import write_whole

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

  Args:
    path: the file.
    ndim: how many dimensions it must have.

  Returns:
    `u8[…]`.

  Raises:
    InputError: there is no such file, or it is damaged or of another kind.
  """
  where = f'--folder={path.parent}: {path.name}'
  try:
    data = gzip.decompress(path.read_bytes())
  except (OSError, EOFError, zlib.error) as error:
    why = getattr(error, 'strerror', None) or error
    raise InputError(
      f'{where}: {why}',
      allowed='a folder with ' + ', '.join(name for name, _ in _PARTS.values()),
      cure='apt-get install dataset-fashion-mnist, or fetch the files again',
    ) from error
  magic, start = bytes([0, 0, 8, ndim]), 4 + 4 * ndim
  if data[:4] != magic or len(data) < start:
    raise InputError(
      f'{where}: begins with {data[:4].hex()}, no {ndim} dimensions of bytes',
      allowed=f'{magic.hex()} and {ndim} dimensions',
      cure='fetch the file again',
    )
  shape = tuple(np.frombuffer(data[4:start], '>u4').tolist())
  pixels = np.frombuffer(data, np.uint8, offset=start)
  if pixels.size != math.prod(shape):
    raise InputError(
      f'{where}: {pixels.size:,} bytes for the shape {shape}',
      allowed=f'{math.prod(shape):,}',
      cure='fetch the file again',
    )
  return pixels.reshape(shape)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code, 2 for bad input."""
  parser = argparse.ArgumentParser(prog='python -m tsla idx')
  add = parser.add_argument
  add('--folder', required=True, type=pathlib.Path, help='of the .gz files')
  add('--out', required=True, type=pathlib.Path, help='the .npz file to write')
  add('--train', type=int, default=None, metavar='N', help='the first N only')
  args = parser.parse_args(argv)
  try:
    arrays = {
      name: read(args.folder / file, ndim)
      for name, (file, ndim) in _PARTS.items()
    }
    most = len(arrays['train_labels'])
    if args.train is not None and not 0 < args.train <= most:
      raise InputError(
        f'--train={args.train}', allowed=f'1 to {most}', cure=f'--train={most}'
      )
    for name in ('train_images', 'train_labels'):
      arrays[name] = arrays[name][: args.train]
    try:
      args.out.parent.mkdir(parents=True, exist_ok=True)
      np.savez_compressed(buffer := io.BytesIO(), **arrays)
      write_whole(args.out, buffer.getvalue())
    except OSError as error:
      raise InputError(
        f'--out={args.out}: {error}',
        allowed='a file that can be written',
        cure='--out=data/fashion_mnist.npz',
      ) from error
  except InputError as error:
    print(error, file=sys.stderr)
    return 2
  for name, array in arrays.items():
    print(f'{name}: {array.dtype}{list(array.shape)}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
