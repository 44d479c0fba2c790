"""Writes a data set: two digits side by side, whose sum is the class.

python tests/extending/dataset.py sums.npz
"""

import sys

import numpy as np
from sklearn.datasets import load_digits


def write(path: str) -> None:
  """4,000 training pairs and 1,000 for the test, of different digits."""
  digits = load_digits()
  pixels = np.round(digits.images * 255 / 16).astype(np.uint8)  # 0 … 16 before
  rng = np.random.default_rng(0)
  arrays = {'class_names': [str(total) for total in range(19)]}
  for split, size, there in (
    ('train', 4000, np.arange(1437)),
    ('test', 1000, np.arange(1437, 1797)),
  ):
    left, right = rng.choice(there, (2, size))
    arrays[f'{split}_images'] = np.concatenate([pixels[left], pixels[right]], 2)
    arrays[f'{split}_labels'] = digits.target[left] + digits.target[right]
  np.savez(path, **arrays)


if __name__ == '__main__':
  write(sys.argv[1])
