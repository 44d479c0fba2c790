"""What an experiment changes of a training set: wrong labels, a part set apart.

Both are functions of the set's labels and the config, never of the run's seed,
so that the runs of a comparison see the same set. The test set stays as it is.
"""

import hashlib

import jax
import numpy as np

# Each separates its draws from others of the same seed.
_NOISE, _VALIDATION, _TEST = map(int.from_bytes, (b'nois', b'vali', b'test'))


def add_label_noise(
  labels: np.ndarray, num_classes: int, fraction: float, seed: int
) -> np.ndarray:
  """Gives `round(fraction · N)` labels another class, all as likely."""
  if not fraction:
    return labels
  count = len(labels)
  # Named, so that `jax_default_prng_impl` cannot change a data set.
  key = jax.random.key(seed, impl='threefry2x32')
  which, shift = jax.random.split(jax.random.fold_in(key, _NOISE))
  order = np.asarray(jax.random.permutation(which, count))
  picked = order[: round(fraction * count)]
  # int32, so that `jax_enable_x64` cannot either.
  drawn = jax.random.randint(shift, (count,), 1, num_classes, np.int32)
  shifts = np.asarray(drawn)
  noisy = np.array(labels)
  noisy[picked] = (noisy[picked] + shifts[picked]) % num_classes
  return noisy


def set_apart(
  labels: np.ndarray, fraction: float, *, test: bool = False
) -> np.ndarray:
  """Which examples the validation, or test, split takes, `bool[N]`.

  Of the n of a class `round(fraction · n)`, but one at least, and one stays.
  """
  mask = np.zeros(len(labels), bool)
  # Raw numbers, which are those of every version of NumPy.
  numbers = np.random.Philox(key=_TEST if test else _VALIDATION)
  order = np.lexsort((numbers.random_raw(len(labels)), labels))
  bounds = np.flatnonzero(np.diff(labels[order])) + 1
  for own in np.split(order, bounds) if fraction else ():
    count = max(1, round(fraction * len(own)))
    mask[own[: min(count, len(own) - 1)]] = True
  return mask


def fingerprint(before: str, labels: np.ndarray, mask: np.ndarray) -> str:
  """That of the set `before` with these training labels and part set apart."""
  parts = before.encode(), labels.astype('<i4').tobytes(), mask.tobytes()
  return hashlib.sha256(b''.join(parts)).hexdigest()
