"""Accuracy class by class, and what a method changes in it over seeds."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95


def student_interval(
  differences: ArrayLike, comparisons: int = 1
) -> tuple[np.ndarray, ...]:
  """Mean and ends of `mean(d) ± t(q, S - 1) std(d) / sqrt(S)`, over axis 0.

  It speaks of other seeds on these test images, not of other test images. With
  `q = 1 - 0.025 / comparisons` so many of them hold at once (Bonferroni). The
  ends are NaN for one seed.
  """
  values = np.asarray(differences, np.float64)
  n, mean = len(values), values.mean(0)
  if n == 1:
    return mean, mean * np.nan, mean * np.nan
  t = stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / comparisons, n - 1)
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
    `i64[K]` `count`, the images; `f64[K]`: `accuracy` of the method, 0 .. 1;
    `gave` and `took`, shares of the class that only the method or only the
    baseline has right; `change`, gave - took; `low`, `high` of its
    `student_interval`, of all classes that have an image at once.

  Example:
    >>> class_changes([[1, 1, 0]], [[0, 1, 1]], [0, 0, 1], 2)['took'].tolist()
    [0.0, 1.0]
  """
  own, others = np.asarray(method, bool), np.asarray(baseline, bool)
  gave = class_accuracy(own & ~others, labels, num_classes)
  took = class_accuracy(others & ~own, labels, num_classes)
  count = np.bincount(labels, minlength=num_classes)
  interval = student_interval(gave - took, np.count_nonzero(count))
  found = {'count': count, 'gave': gave.mean(0), 'took': took.mean(0)}
  found['accuracy'] = class_accuracy(own, labels, num_classes).mean(0)
  return found | dict(zip(('change', 'low', 'high'), interval, strict=True))
