"""Differences between methods, over other seeds and over other images.

Runs of two methods, paired by seed and judged on the same images, give a table
of differences, a row per seed, a column per image. Its mean has the noise of
both: an interval over seeds alone speaks of these images only, and its error
for other images grows with the seeds.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ALPHA = 0.05  # of false claims, all told
POWER = 0.8  # at which a difference counts as one that can be told
_FEW_SEEDS = 10  # below it Satterthwaite's degrees of freedom err in the tails
_ALIKE = 1e-9  # an error that is less of the mean is rounding
_MOST_SEEDS = 2**14


class Estimate(NamedTuple):
  """The mean of a table of differences, and its noise."""

  mean: float
  error: float  # standard error for other seeds and images; NaN if unknown
  freedom: float  # degrees of freedom of Student's t
  seeds: int
  images: int
  seed_variance: float  # A: of the mean over these images, from seed to seed
  image_variance: float  # C: what no number of seeds removes

  @property
  def known(self) -> bool:
    """Whether there is noise to compare the mean with."""
    return self.error > _ALIKE * abs(self.mean)

  @property
  def p_value(self) -> float:
    """Of mean 0, from both sides; 1 where the noise is not known."""
    if not self.known:
      return 1.0
    return float(2 * stats.t.sf(abs(self.mean) / self.error, self.freedom))

  def interval(self, level: float = ALPHA) -> tuple[float, float]:
    """The ends that miss the true mean with probability `level`.

    Without known noise they are infinite.
    """
    if not self.known:
      return -math.inf, math.inf
    half = float(stats.t.isf(level / 2, self.freedom)) * self.error
    return self.mean - half, self.mean + half

  def error_with(self, seeds: ArrayLike) -> Any:
    """The standard error of so many seeds on as many images.

    `√(A/N + C)`, or more where chance of a seed and image exceeds A: of as many
    seeds as there are it is `error`.
    """
    reduced = self.seeds * (self.error**2 - self.image_variance)
    return np.sqrt(np.divide(reduced, seeds) + self.image_variance)


def two_way(differences: ArrayLike) -> Estimate:
  """Estimates the mean of seeds × images that were both drawn at random.

  With mean squares `MS_s` between seeds, `MS_i` between images and `MS_e` of
  what is left, `V = max(MS_s + MS_i - MS_e, MS_s, MS_i) / (n m)` is the
  variance of the mean: unbiased where the first is largest, and never below
  that of seeds or images alone. Its degrees of freedom are Satterthwaite's, or
  those of the mean square that is largest; n - 1 below 10 seeds; at most m - 1
  where images have a part in it.

  Args:
    differences: `[n, m]`, of n seeds on m images.

  Returns:
    The estimate. Without two seeds and two images, or with a number that is
    not finite, its noise is NaN and its p-value 1.

  Example:
    >>> estimate = two_way([[0, 1, 0, 1], [1, 1, 0, 1], [0, 1, 1, 1]])
    >>> round(estimate.mean, 3), round(estimate.error, 3)
    (0.667, 0.192)

  Reference:
    Satterthwaite, An approximate distribution of estimates of variance
    components, Biometrics Bulletin 2 (1946).
  """
  d = np.asarray(differences, np.float64)
  n, m = d.shape
  if min(n, m) < 2 or not np.isfinite(d).all():
    mean = float(d.mean()) if np.isfinite(d).all() and d.size else math.nan
    return Estimate(mean, math.nan, math.nan, n, m, math.nan, math.nan)
  mean, rows, columns = d.mean(), d.mean(1), d.mean(0)
  rest = ((d - rows[:, None] - columns + mean) ** 2).sum() / ((n - 1) * (m - 1))
  by_seed, by_image = m * rows.var(ddof=1), n * columns.var(ddof=1)
  both = by_seed + by_image - rest
  if both > max(by_seed, by_image):
    spread = by_seed**2 / (n - 1) + by_image**2 / (m - 1)
    spread += rest**2 / ((n - 1) * (m - 1))
    freedom = both**2 / spread
  else:
    both, freedom = max((by_seed, n - 1), (by_image, m - 1))
  freedom = max(freedom, n - 1) if n >= _FEW_SEEDS else n - 1
  if both > by_seed:  # images have a part in it
    freedom = min(freedom, m - 1)
  error, left = math.sqrt(both / (n * m)), max(0.0, by_image - rest) / (n * m)
  return Estimate(float(mean), error, float(freedom), n, m, by_seed / m, left)


def spending(looks: Sequence[int], alpha: float = ALPHA) -> np.ndarray:
  """The levels of some looks at a growing number of seeds; their sum is alpha.

  Each is what O'Brien and Fleming's spending `2 Φ(-z_{1-α/2} / √(n/N))` adds
  since the look before. As levels add up, no correlation between looks is
  assumed: the noise of the images is common to all of them.

  Example:
    >>> spending((6, 10, 16)).round(4).tolist()
    [0.0014, 0.0118, 0.0368]

  Reference:
    Lan and DeMets, Discrete sequential boundaries for clinical trials,
    Biometrika 70 (1983).
  """
  share = np.array(looks) / looks[-1]
  spent = 2 * stats.norm.sf(stats.norm.isf(alpha / 2) / np.sqrt(share))
  return np.diff(spent, prepend=0)


def detectable(estimate: Estimate, seeds: ArrayLike, level: float) -> Any:
  """The least true difference that so many seeds tell in 80 of 100 cases."""
  t = stats.t(np.subtract(seeds, 1))
  return (t.isf(level / 2) + t.ppf(POWER)) * estimate.error_with(seeds)


def seeds_needed(estimate: Estimate, worth: float, level: float) -> int | None:
  """How many seeds tell a difference of `worth`; None if no number of them."""
  if not estimate.known:
    return None
  seeds = np.arange(2, _MOST_SEEDS + 1)
  enough = seeds[detectable(estimate, seeds, level) <= worth]
  return int(enough[0]) if enough.size else None


def images_needed(estimate: Estimate, worth: float, level: float) -> int:
  """About how many images tell it, with seeds without end."""
  quantiles = stats.norm.isf(level / 2) + stats.norm.ppf(POWER)
  noise = estimate.images * estimate.image_variance
  return math.ceil(noise * (quantiles / worth) ** 2)


def futile(estimate: Estimate, seeds: int, level: float) -> bool:
  """Whether going on to so many seeds would hardly tell a difference.

  Even the upper 80 % end of what the mean may become stays below what is then
  told, by `√(A/N + C)`: where the error is larger it is not given up early.
  """
  if not estimate.known:
    return True
  left = max(0, 1 / estimate.seeds - 1 / seeds)
  change = stats.norm.ppf(POWER) * math.sqrt(left * estimate.seed_variance)
  error = math.sqrt(estimate.seed_variance / seeds + estimate.image_variance)
  told = stats.t.isf(level / 2, seeds - 1) * error
  return bool(abs(estimate.mean) + change < told)
