"""Accuracy class by class, and what a method changes in it over seeds."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95


def student_interval(differences: ArrayLike) -> tuple[np.ndarray, ...]:
  """Mean and ends of `mean(d) ± t(0.975, S - 1) std(d) / sqrt(S)`, over axis 0.

  It speaks of other seeds on these test images, not of other test images. The
  ends are NaN for one seed.
  """
  values = np.asarray(differences, np.float64)
  n, mean = len(values), values.mean(0)
  if n == 1:
    return mean, mean * np.nan, mean * np.nan
  t = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
  half = t * values.std(0, ddof=1) / np.sqrt(n)
  return mean, mean - half, mean + half


def class_accuracy(
  correct: ArrayLike, labels: ArrayLike, num_classes: int
) -> np.ndarray:
  """Share of `bool[..., N]` by class, `f64[..., K]`; NaN without an image."""
  members = np.asarray(labels)[:, None] == np.arange(num_classes)
  count = members.sum(0)
  hits = np.asarray(correct, np.float64) @ members
  return hits / np.where(count, count, np.nan)


def class_changes(
  method: ArrayLike, baseline: ArrayLike, labels: ArrayLike, num_classes: int
) -> dict[str, np.ndarray]:
  """What a method gave and took, class by class, as means over paired seeds.

  Args:
    method: `bool[S, N]`, correct or not, a row per seed.
    baseline: `bool[S, N]`, of the same seeds and images.
    labels: integers `[N]`, in 0 .. K - 1.
    num_classes: K.

  Returns:
    `f64[K]`: `gave` and `took`, shares of the class that only the method or
    only the baseline has right, 0 .. 1; `change`, gave - took; `low`, `high` of
    its `student_interval`, each class by itself: where nothing changes, that of
    1 class of 20 leaves out 0.

  Example:
    >>> class_changes([[1, 1, 0]], [[0, 1, 1]], [0, 0, 1], 2)['took'].tolist()
    [0.0, 1.0]
  """
  own, others = np.asarray(method, bool), np.asarray(baseline, bool)
  gave = class_accuracy(own & ~others, labels, num_classes)
  took = class_accuracy(others & ~own, labels, num_classes)
  change, low, high = student_interval(gave - took)
  found = {'gave': gave.mean(0), 'took': took.mean(0)}
  return {**found, 'change': change, 'low': low, 'high': high}
