"""Writes archives in the genuine form of the data sets, for tests."""

import hashlib
import io
import tarfile

import numpy as np


def write_cifar100(path, train=40, test=20, seed=0):
  """Writes a small cifar-100-binary.tar.gz of random images.

  Args:
    path: the file that is written.
    train: number of training records.
    test: number of test records.
    seed: of the pixels and labels.

  Returns:
    A dict: train_images and test_images `u8[N, 32, 32, 3]`, train_labels and
    test_labels `i32[N]`, class_names, sha256 and size of the file.
  """
  rng = np.random.default_rng(seed)
  class_names = [f'fine_{label:02d}' for label in range(100)]
  coarse_names = [f'coarse_{label:02d}' for label in range(20)]
  files = {
    'fine_label_names.txt': '\n'.join(class_names).encode() + b'\n\n',
    'coarse_label_names.txt': '\n'.join(coarse_names).encode() + b'\n\n',
  }
  written = {'class_names': tuple(class_names)}
  for split, count in (('train', train), ('test', test)):
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 100, count, np.int32)
    records = b''
    for image, label in zip(images, labels, strict=True):
      red, green, blue = image[..., 0], image[..., 1], image[..., 2]
      planes = red.tobytes() + green.tobytes() + blue.tobytes()
      records += bytes([label // 5, label]) + planes
    files[f'{split}.bin'] = records
    written |= {f'{split}_images': images, f'{split}_labels': labels}
  with tarfile.open(path, 'w:gz') as tar:
    for name, content in files.items():
      member = tarfile.TarInfo(f'cifar-100-binary/{name}')
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  with open(path, 'rb') as file:
    data = file.read()
  return written | {
    'sha256': hashlib.sha256(data).hexdigest(),
    'size': len(data),
  }
