"""Calibration: whether confidence is the share of right predictions."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from tsla.evaluation.metrics import NUM_BINS


class Scores(NamedTuple):
  """What the predictions were worth, image by image."""

  nll: np.ndarray  # f64[N], nats; inf for a label of probability 0
  brier: np.ndarray  # f64[N], 0 .. 2
  correct: np.ndarray  # bool[N]
  confidence: np.ndarray  # f64[N], the greatest probability, 1/K .. 1


def scores(
  logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0
) -> Scores:
  """Scores each image, with `p = softmax(logits / temperature)`, in float64.

  NLL `-log p_y`; Brier `sum_k (p_k - [k = y])**2`; confidence `max_k p_k`. The
  prediction is the first of the greatest logits, at every temperature.

  Args:
    logits: `[N, K]`; -inf is a class of probability 0.
    labels: integers `[N]`, in 0 .. K - 1.
    temperature: T > 0.

  Raises:
    ValueError: NaN, +inf, only -inf; no image; a label that is no class.

  Example:
    >>> scores([[0.0, np.log(3)]], [1]).confidence.round(6).tolist()
    [0.75]

  Reference:
    Brier, Monthly Weather Review 78 (1950). Guo et al., arXiv 1706.04599.
  """
  rows, own = _below_greatest(logits, labels)
  correct = rows.argmax(1) == labels
  p = np.exp(rows / temperature)
  totals = p.sum(1)
  p /= totals[:, None]
  confidence = p.max(1)
  p[np.arange(len(p)), labels] -= 1
  nll = np.log(totals) - own / temperature
  return Scores(nll, (p**2).sum(1), correct, confidence)


def _below_greatest(
  logits: ArrayLike, labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
  """Logits less the greatest of their image, of all classes and the label."""
  rows = np.asarray(logits, np.float64)
  classes = np.asarray(labels)[:, None] == np.arange(rows.shape[1])
  greatest = rows.max(1, keepdims=True)
  if not (rows.size and np.isfinite(greatest).all() and classes.any(1).all()):
    raise ValueError('logits: NaN, +inf or none; or a label that is no class')
  rows = rows - greatest
  return rows, rows[classes]


def calibration(scores: Scores, num_bins: int = NUM_BINS) -> dict[str, Any]:
  """Errors of calibration, from M bins of confidence.

  ECE is `sum_m |correct_m - confidence_m| / N`, in bins `(m/M, (m + 1)/M]`, or
  of equally many images (equal confidences share a bin). Chance raises it, by 4
  points on 360 images. Comparisons are decided on the squared error, in bins of
  equally many, without that bias: with `d = correct - confidence`, a bin's
  `(E d)**2` is `((sum d)**2 - sum d**2) / (n (n - 1))`, the mean over pairs of
  its images, weighted by n; bins without a pair are left out. Where a bin's
  confidences are equal, this is the debiased estimator of Kumar et al.,
  `(mean d)**2 - a (1 - a) / (n - 1)`, a the bin's accuracy.

  Returns:
    `ece`, `ece_equal_mass`, 0 .. 1; `squared_error`, at most 1, below 0 by
    chance, NaN without a pair; `bins`, `f64[3, M]` of equal width: counts, sums
    of correct and of confidence.

  Example:
    >>> calibration(scores([[0.0, 0.0]] * 2, [0, 1]), 1)['squared_error']
    -0.25

  Reference:
    Guo et al., arXiv 1706.04599, eq. 3; Nixon et al., arXiv 1904.01685; Kumar,
    Liang, Ma, Verified uncertainty calibration, arXiv 1909.10155.
  """
  correct, confidence = scores.correct, scores.confidence
  sums = np.ones(len(correct)), correct, confidence
  edges = np.arange(1, num_bins) / num_bins
  places = np.searchsorted(edges, confidence), _mass_bins(confidence, num_bins)
  width, mass = (
    np.array([np.bincount(place, values, num_bins) for values in sums])
    for place in places
  )
  return {
    'ece': float(np.abs(width[1] - width[2]).sum() / len(correct)),
    'ece_equal_mass': float(np.abs(mass[1] - mass[2]).sum() / len(correct)),
    'squared_error': float(squared_error_shares(scores, num_bins).mean()),
    'bins': width,
  }


def _mass_bins(confidence: np.ndarray, num_bins: int) -> np.ndarray:
  """By image, its bin of equally many; equal confidences share one."""
  ranks = np.searchsorted(np.sort(confidence), confidence)
  size, larger = divmod(len(ranks), num_bins)
  ends = np.cumsum(size + (np.arange(num_bins) < larger))
  return np.searchsorted(ends, ranks + 1)


def squared_error_shares(
  scores: Scores, num_bins: int = NUM_BINS
) -> np.ndarray:
  """What each image adds to the squared error of `calibration`, `f64[N]`.

  Their mean is that error. With `d = correct - confidence` and the sums S of d
  and Q of d² in an image's bin of n, the error of the bin is
  `U = (S² - Q) / (n (n - 1))`, and an image's share its first-order effect on
  it, `2 d (S - d) / (n - 1) - U`. So the spread of the shares over images is
  that of the error. In a bin of one it is 0; NaN if all bins are.

  Example:
    >>> squared_error_shares(scores([[0.0, 0.0]] * 2, [0, 1]), 1).tolist()
    [-0.25, -0.25]

  Reference:
    Hoeffding, A class of statistics with asymptotically normal distribution,
    Annals of Mathematical Statistics 19 (1948).
  """
  d = scores.correct - scores.confidence
  place = _mass_bins(scores.confidence, num_bins)
  n, total, squares = (
    np.bincount(place, values, num_bins)[place]
    for values in (np.ones(len(d)), d, d**2)
  )
  others = np.maximum(n - 1, 1)
  bins = (total**2 - squares) / (n * others)
  shares = np.where(n > 1, 2 * d * (total - d) / others - bins, 0)
  return shares * (len(d) / (np.count_nonzero(n > 1) or np.nan))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
  """Finds the T > 0 that minimises the NLL of `softmax(logits / T)`.

  The NLL is convex in `b = 1 / T`; Brent's method finds, in log b, the zero of
  its slope `mean_i(sum_k p_ik z_ik - z_iy)`, at any scale of logits. Images
  that give their label probability 0 are left out: no T helps. If all V labels
  have the greatest logit, the NLL falls down to T = 0: as with Platt, a label
  then counts (V + 1) / (V + 2), and the other classes share the rest. If it
  falls up to T = inf, T makes predictions uniform to 1e-6. Without any
  difference of logits T is 1.

  Args:
    logits: `[V, K]`, of validation images, neither trained nor tested on.
    labels: integers `[V]`, in 0 .. K - 1.

  Raises:
    ValueError: as `scores`.

  Example:
    >>> round(fit_temperature([[0.0, 2.0]] * 4, [1, 1, 1, 0]), 6)
    1.820478

  Reference:
    Guo et al., arXiv 1706.04599, section 4.2. Platt, Probabilistic outputs for
    support vector machines, Advances in large margin classifiers (1999).
  """
  rows, own = _below_greatest(logits, labels)
  rows, own = rows[np.isfinite(own)], own[np.isfinite(own)]
  finite = np.isfinite(rows)
  span = -rows.min(initial=0, where=finite)
  if span == 0:
    return 1.0
  rows, own = np.where(finite, rows / span, 0), own / span
  if not own.any():
    own = rows.sum(1) / np.maximum(finite.sum(1) - 1, 1) / (len(own) + 2)

  def slope(log_b: float) -> float:
    weights = np.exp(np.exp(log_b) * rows) * finite
    return float(((weights * rows).sum(1) / weights.sum(1) - own).mean())

  low = high = np.log(1e-6)
  if slope(low) >= 0:
    return float(1e6 * span)
  while slope(high) < 0:
    low, high = high, high + 1
  return float(span / np.exp(brentq(slope, low, high)))
