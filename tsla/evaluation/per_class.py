"""Accuracy class by class, and what a method changes in it over seeds."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tsla.evaluation.two_way import two_way


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
) -> dict[str, Any]:
  """What a method gave and took, class by class, as means over paired seeds.

  Args:
    method: `bool[S, N]`, correct or not, a row per seed.
    baseline: `bool[S, N]`, of the same seeds and images.
    labels: integers `[N]`, in 0 .. K - 1.
    num_classes: K.

  Returns:
    `i64[K]` `count`, the images; `f64[K]`: `accuracy` of the method, 0 .. 1;
    `gave` and `took`, shares of the class that only the method or only the
    baseline has right; and by class `change`, gave - took, as `two_way` tells
    it over seeds and the images of the class.

  Example:
    >>> class_changes([[1, 1, 0]], [[0, 1, 1]], [0, 0, 1], 2)['took'].tolist()
    [0.0, 1.0]
  """
  own, others = np.asarray(method, bool), np.asarray(baseline, bool)
  gave = class_accuracy(own & ~others, labels, num_classes)
  took = class_accuracy(others & ~own, labels, num_classes)
  count = np.bincount(labels, minlength=num_classes)
  change = np.subtract(own, others, dtype=np.float64)
  tables = np.split(change[:, np.argsort(labels)], np.cumsum(count)[:-1], 1)
  return {
    'count': count,
    'accuracy': class_accuracy(own, labels, num_classes).mean(0),
    'gave': gave.mean(0),
    'took': took.mean(0),
    'change': [two_way(table) for table in tables],
  }
