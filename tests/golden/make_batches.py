"""Writes batches.json: which examples a run sees, and how augmented.

  python tests/golden/make_batches.py

Spelt out with jax.random and NumPy, without the package: another stream of
random numbers, or another way to use it, is another order in every run. Ten
images of 2 x 3 pixels, no two pixels alike and none black; batches of four, so
two updates an epoch; a padding of 1; flips.
"""

import json
import pathlib

import jax
import numpy as np

IMAGES = np.arange(1, 61).reshape(10, 2, 3)
BATCH, PER_EPOCH, PAD = 4, 2, 1


def stream(seed, name, epoch):
  key = jax.random.key(seed, impl='threefry2x32')
  key = jax.random.fold_in(key, int.from_bytes(name))
  return jax.random.fold_in(key, epoch)


def augmented(seed, epoch, index):
  key = jax.random.fold_in(stream(seed, b'augm', epoch), index)
  crop, flip = jax.random.split(key)
  top, left = jax.random.randint(crop, (2,), 0, 2 * PAD + 1)
  image = np.pad(IMAGES[index], PAD)[top : top + 2, left : left + 3]
  return image[:, ::-1] if jax.random.bernoulli(flip) else image


def main():
  rows = []
  for seed in (0, 7):
    for step in range(2 * PER_EPOCH):
      epoch, position = divmod(step, PER_EPOCH)
      order = jax.random.permutation(stream(seed, b'ordr', epoch), 10)
      picked = order[position * BATCH :][:BATCH].tolist()
      images = [augmented(seed, epoch, index).tolist() for index in picked]
      rows.append(
        {'seed': seed, 'step': step, 'indices': picked, 'images': images}
      )
  out = pathlib.Path(__file__).with_name('batches.json')
  out.write_text('[\n' + ',\n'.join(map(json.dumps, rows)) + '\n]\n')


if __name__ == '__main__':
  main()
