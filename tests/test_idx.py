"""Sets in the form of MNIST."""

import gzip
import struct

import numpy as np
import pytest

from tsla.commands import idx
from tsla.config.forms import default_config
from tsla.data import datasets

FILES = {
  'train-images-idx3-ubyte.gz': (6, 4, 3),
  'train-labels-idx1-ubyte.gz': (6,),
  't10k-images-idx3-ubyte.gz': (2, 4, 3),
  't10k-labels-idx1-ubyte.gz': (2,),
}


@pytest.fixture
def folder(tmp_path):
  """Pixels count up, labels too."""
  for name, shape in FILES.items():
    header = b'\0\0\x08' + bytes([len(shape)])
    header += struct.pack(f'>{len(shape)}I', *shape)
    values = np.arange(np.prod(shape), dtype=np.uint8)
    (tmp_path / name).write_bytes(gzip.compress(header + values.tobytes()))
  return tmp_path


def convert(folder, *flags):
  out = folder / 'new' / 'set.npz'
  return out, idx.main([f'--folder={folder}', f'--out={out}', *flags])


def test_it_becomes_a_set_that_loads(folder):
  out, code = convert(folder, '--train=5')
  assert code == 0
  config = default_config().data
  config.name, config.path = 'npz', str(out)
  dataset = datasets.load_dataset(config)
  np.testing.assert_array_equal(
    dataset.train.images.ravel(), np.arange(60, dtype=np.uint8)
  )
  assert dataset.train.images.shape == (5, 4, 3, 1)
  assert dataset.train.labels.tolist() == [0, 1, 2, 3, 4]
  assert dataset.test.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
  ('damage', 'words'),
  [
    (lambda path: path.unlink(), 'No such file'),
    (lambda path: path.write_bytes(b'no gzip'), 'gzip'),
    (lambda path: path.write_bytes(path.read_bytes()[:-12]), 'end-of-stream'),
    (
      lambda path: path.write_bytes(
        gzip.compress(b'\0\0\x0d' + gzip.decompress(path.read_bytes())[3:])
      ),
      'begins with 00000d03',
    ),
    (
      lambda path: path.write_bytes(gzip.compress(b'\0\0\x08\x03\0\0')),
      'begins with 00000803',
    ),
    (
      lambda path: path.write_bytes(
        gzip.compress(gzip.decompress(path.read_bytes())[:-1])
      ),
      '71 bytes for the shape (6, 4, 3)',
    ),
  ],
)
def test_bad_files_are_named(folder, damage, words, capsys):
  damage(folder / 'train-images-idx3-ubyte.gz')
  out, code = convert(folder)
  error = capsys.readouterr().err
  assert code == 2 and not out.exists()
  assert 'train-images-idx3-ubyte.gz' in error and words in error
  assert len(error.splitlines()) <= 3


def test_more_images_than_there_are(folder, capsys):
  assert convert(folder, '--train=7')[1] == 2
  assert 'allowed: 1 to 6' in capsys.readouterr().err
