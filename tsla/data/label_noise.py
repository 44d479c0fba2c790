"""What an experiment changes of a training set: wrong labels, a part held out.

Both are functions of the set's labels and the config, never of the run's seed,
so that the runs of a comparison see the same set. The test set stays as it is.
"""

import hashlib

import jax
import numpy as np

# Each separates its draws from others of the same seed.
_NOISE = int.from_bytes(b'nois')
_HELD_OUT = int.from_bytes(b'held')


def add_label_noise(
  labels: np.ndarray, num_classes: int, fraction: float, seed: int
) -> np.ndarray:
  """Gives `round(fraction · N)` labels another class, all as likely.

  Example:
    >>> noisy = add_label_noise(np.zeros(10, np.int32), 3, fraction=0.4, seed=0)
    >>> int((noisy != 0).sum())
    4
  """
  count = len(labels)
  which, shift = jax.random.split(_key(seed, _NOISE))
  picked = _picked(which, count, fraction)
  shifts = np.asarray(jax.random.randint(shift, (count,), 1, num_classes))
  noisy = np.array(labels)
  noisy[picked] = (noisy[picked] + shifts[picked]) % num_classes
  return noisy


def held_out(count: int, fraction: float) -> np.ndarray:
  """Which `round(fraction · N)` examples are kept from training, `bool[N]`."""
  mask = np.zeros(count, bool)
  mask[_picked(_key(0, _HELD_OUT), count, fraction)] = True
  return mask


def _key(seed: int, stream: int) -> jax.Array:
  # Named, so that `jax_default_prng_impl` cannot change a data set.
  return jax.random.fold_in(jax.random.key(seed, impl='threefry2x32'), stream)


def _picked(key: jax.Array, count: int, fraction: float) -> np.ndarray:
  order = np.asarray(jax.random.permutation(key, count))
  return order[: round(fraction * count)]


def fingerprint(before: str, labels: np.ndarray, mask: np.ndarray) -> str:
  """That of the set `before` with these training labels and held-out part."""
  digest = hashlib.sha256(before.encode())
  digest.update(labels.astype('<i4'))
  digest.update(mask)
  return digest.hexdigest()
