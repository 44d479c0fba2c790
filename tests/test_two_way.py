"""Differences over seeds and images, against plain sums and SciPy's tests."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from tsla.evaluation.calibration import Scores, squared_error_shares
from tsla.evaluation.two_way import (
  Estimate,
  detectable,
  futile,
  images_needed,
  seeds_needed,
  spending,
  two_way,
)


def anova(table):
  """Mean squares of seeds, images and the rest, from loops over the cells."""
  n, m = len(table), len(table[0])
  mean = math.fsum(x for row in table for x in row) / (n * m)
  rows = [math.fsum(row) / m for row in table]
  columns = [math.fsum(row[j] for row in table) / n for j in range(m)]
  seed = m * math.fsum((r - mean) ** 2 for r in rows) / (n - 1)
  image = n * math.fsum((c - mean) ** 2 for c in columns) / (m - 1)
  rest = math.fsum(
    (table[i][j] - rows[i] - columns[j] + mean) ** 2
    for i, j in itertools.product(range(n), range(m))
  )
  return mean, seed, image, rest / ((n - 1) * (m - 1))


def crossed(rng, n, m, seed=0.0, image=0.0, rest=1.0):
  return (
    seed * rng.standard_normal((n, 1))
    + image * rng.standard_normal((1, m))
    + rest * rng.standard_normal((n, m))
  )


@pytest.mark.parametrize('n', [3, 9, 10, 16])
@pytest.mark.parametrize('noise', [(1, 1), (0, 0), (3, 0), (0, 3)])
def test_mean_error_and_freedom_are_those_of_the_mean_squares(n, noise):
  m = 14
  d = 0.3 + crossed(np.random.default_rng(n), n, m, *noise)
  mean, by_seed, by_image, rest = anova(d.tolist())
  both = by_seed + by_image - rest
  if both > max(by_seed, by_image):
    parts = (by_seed, n - 1), (by_image, m - 1), (rest, (n - 1) * (m - 1))
    freedom = both**2 / sum(part**2 / df for part, df in parts)
  else:
    both = max(by_seed, by_image)
    freedom = n - 1 if by_seed == both else m - 1
  freedom = n - 1 if n < 10 else max(freedom, n - 1)
  if both > by_seed:  # else few images would pass for many
    freedom = min(freedom, m - 1)
  found = two_way(d)
  assert (found.seeds, found.images) == (n, m)
  error = math.sqrt(both / (n * m))
  assert found[:3] == pytest.approx((mean, error, freedom), rel=1e-12)
  expected = 2 * stats.t.cdf(-abs(mean) / error, freedom)
  assert found.p_value == pytest.approx(expected, rel=1e-12)
  ends = stats.t(freedom, mean, error).interval(0.9)
  assert found.interval(0.1) == pytest.approx(ends, rel=1e-12)
  # Of the mean of this many seeds on these images, and of other images.
  assert found.seed_variance == pytest.approx(by_seed / m, rel=1e-12)
  left = max(0, by_image - rest) / (n * m)
  assert found.image_variance == pytest.approx(left, rel=1e-12, abs=1e-18)
  # Of as many seeds it is the error itself; more of them reduce all but C.
  assert found.error_with(n) == pytest.approx(error, rel=1e-12)
  reduced = max(by_seed, min(by_image, rest)) / m
  more = math.sqrt(reduced / 40 + left)
  assert found.error_with(40) == pytest.approx(more, rel=1e-12)


@pytest.mark.parametrize('n', [2, 5, 12])
def test_of_columns_that_are_alike_it_is_the_paired_t(n):
  x, y = np.random.default_rng(n).standard_normal((2, n, 1))
  expected = stats.ttest_rel(x[:, 0], y[:, 0])
  found = two_way(np.repeat(x - y, 7, axis=1))
  assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
  ends = expected.confidence_interval(0.95)
  assert found.interval() == pytest.approx((ends.low, ends.high), rel=1e-9)


def test_of_rows_that_are_alike_images_are_the_noise():
  column = np.random.default_rng(0).standard_normal(25)
  found = two_way(np.repeat(column[None], 12, axis=0))
  expected = stats.ttest_1samp(column, 0)
  assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
  assert found.seed_variance == pytest.approx(0, abs=1e-15)


def test_to_swap_the_sides_swaps_the_sign_only():
  d = crossed(np.random.default_rng(3), 11, 30, 0.2, 0.2)
  one, other = two_way(d), two_way(-d)
  assert other.mean == -one.mean
  assert other[1:] == one[1:]
  assert other.interval() == tuple(-end for end in reversed(one.interval()))


@pytest.mark.parametrize('n', [5, 10, 20])
def test_the_variance_of_right_and_wrong_is_that_of_the_mean(n):
  """0/1 outcomes of new seeds on new images, 2 % of them discordant."""
  rng, m, draws = np.random.default_rng(n), 360, 800
  means, variances = [], []
  for _ in range(draws):
    image = np.clip(0.05 * rng.standard_normal(m), -0.01, 0.01) / 2
    lean = image + 0.002 * rng.standard_normal((n, 1))
    u = rng.random((n, m))
    d = (u < 0.01 + lean).astype(float) - (u > 0.99 + lean)
    found = two_way(d)
    means.append(found.mean)
    variances.append(found.error**2)
  # The variance of 800 means is known to 5 %.
  assert 0.95 - 0.15 < np.mean(variances) / np.var(means) < 1.3 + 0.15


@pytest.mark.parametrize(
  'table',
  [
    np.zeros((6, 1)),  # one image
    np.ones((1, 9)),  # one seed
    np.ones((1, 1)),
    np.zeros((6, 0)),
    np.zeros((6, 9)),
    np.full((6, 9), 0.1),  # rounding is no noise
    np.full((10, 9), np.nan),
    np.where(np.arange(54).reshape(6, 9) == 7, -np.inf, 0.5),
  ],
)
def test_without_known_noise_nothing_is_told(table):
  found = two_way(table)
  assert not found.known
  assert found.p_value == 1
  assert found.interval(0.01) == (-math.inf, math.inf)
  assert futile(found, 16, 0.04)
  assert seeds_needed(found, 0.005, 0.04) is None


def test_the_levels_of_looks_add_up():
  normal = NormalDist()
  root = [normal.inv_cdf(0.975) / math.sqrt(n / 16) for n in (6, 10, 16)]
  spent = [2 * (1 - normal.cdf(z)) for z in root]
  expected = [spent[0], spent[1] - spent[0], spent[2] - spent[1]]
  assert np.round(expected, 4).tolist() == [0.0014, 0.0118, 0.0368]
  assert spending((6, 10, 16)) == pytest.approx(expected, rel=1e-9)
  for looks in ((6, 10, 16), (4, 6, 9), (12,)):
    for alpha in (0.05, 0.05 / 3):
      assert sum(spending(looks, alpha)) == pytest.approx(alpha, rel=1e-12)
      assert (spending(looks, alpha) > 0).all()


def estimate(a=1e-4, c=1e-6, mean=0.0, seeds=6, m=360):
  return Estimate(mean, math.sqrt(a / seeds + c), seeds - 1, seeds, m, a, c)


def test_what_seeds_tell_they_tell_in_80_of_100():
  """Drawn: a mean of that size, of 16 seeds, passes the t test so often."""
  known, level = estimate(a=1.0, c=0.0), 0.0368
  true = detectable(known, 16, level)
  x = true + np.random.default_rng(0).standard_normal((20_000, 16))
  told = stats.ttest_1samp(x, 0, axis=1).pvalue <= level
  assert told.mean() == pytest.approx(0.8, abs=0.02)


def test_a_difference_that_could_have_been_told_is_more_than_half_an_interval():
  """Also where seeds differ less than chance would have it."""
  d = crossed(np.random.default_rng(0), 5, 200, image=0.5)
  d -= 0.9 * (d.mean(1, keepdims=True) - d.mean())
  found = two_way(d)
  assert found.seed_variance / 5 + found.image_variance < 0.9 * found.error**2
  low, high = found.interval(0.01)
  told = (stats.t.isf(0.005, 4) + stats.t.ppf(0.8, 4)) * found.error
  assert (high - low) / 2 < told
  assert detectable(found, 5, 0.01) == pytest.approx(told, rel=1e-12)


def test_the_least_number_of_seeds_that_tells_it():
  known, level = estimate(), 0.0368
  for worth in (0.004, 0.005, 0.01, 0.1):
    tells = (n for n in range(2, 500) if detectable(known, n, level) <= worth)
    least = next(tells)
    assert seeds_needed(known, worth, level) == least
  # √C is 0.001: no number of seeds tells 2.8 times that.
  assert seeds_needed(known, 0.0028, level) is None
  assert seeds_needed(known, 0.0, level) is None


def test_images_that_would_tell_it():
  # 2.8 standard errors, at 5 % and 80 %: Φ⁻¹(0.975) + Φ⁻¹(0.8).
  assert images_needed(estimate(), 0.005, 0.05) == math.ceil(
    360 * 1e-6 * (2.801585 / 0.005) ** 2
  )


@pytest.mark.parametrize(
  ('mean', 'hopeless'), [(0.0, True), (0.4, False), (-0.4, False), (1, False)]
)
def test_futile_is_what_even_a_lucky_end_would_not_tell(mean, hopeless):
  """With A = 1: 2.289 √(1/16) is told, 0.842 √(1/6 - 1/16) may come."""
  known = estimate(a=1.0, c=0.0, mean=mean)
  told = stats.t.isf(0.0368 / 2, 15) / 4
  change = 0.8416 * math.sqrt(1 / 6 - 1 / 16)
  assert hopeless == (abs(mean) + change < told)
  assert futile(known, 16, 0.0368) == hopeless
  # At the last look nothing is left that may come.
  assert futile(known._replace(seeds=16), 16, 0.0368) == (abs(mean) < told)


def drawn(confidence, correct):
  nothing = np.zeros(0)
  return Scores(nothing, nothing, np.asarray(correct), np.asarray(confidence))


def test_shares_of_the_squared_error_against_the_sum_over_pairs():
  """Mean: all pairs of a bin; share: what the pairs with an image give."""
  rng = np.random.default_rng(4)
  confidence = rng.uniform(0.4, 1, 37)
  correct = rng.random(37) < 0.8
  found = squared_error_shares(drawn(confidence, correct), 5)
  expected = np.empty(37)
  for bin_ in np.array_split(np.argsort(confidence), 5):
    d = {i: correct[i] - confidence[i] for i in bin_}
    own = {i: np.mean([d[i] * d[j] for j in bin_ if j != i]) for i in bin_}
    total = np.mean(list(own.values()))
    for i in bin_:
      expected[i] = 2 * own[i] - total
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(('bins', 'most'), [(1, 1.12), (15, 1.5)])
def test_the_spread_of_shares_is_that_of_the_squared_error(bins, most):
  """Over new images, of a network that is too sure by 10 points.

  To the first order: of few images a bin it is too wide, never too narrow.
  """
  rng, m = np.random.default_rng(5), 360
  means, errors = [], []
  for _ in range(1500):
    confidence = rng.uniform(0.6, 1, m)
    correct = rng.random(m) < confidence - 0.1
    shares = squared_error_shares(drawn(confidence, correct), bins)
    means.append(shares.mean())
    errors.append(shares.var(ddof=1) / m)
  assert np.mean(means) == pytest.approx(0.01, abs=5e-4)
  assert 0.9 < np.mean(errors) / np.var(means) < most


def test_calibrated_draws_have_shares_around_0():
  rng = np.random.default_rng(6)
  means = []
  for _ in range(800):
    confidence = rng.uniform(0.4, 1, 360)
    correct = rng.random(360) < confidence
    means.append(squared_error_shares(drawn(confidence, correct)).mean())
  assert abs(np.mean(means)) < 3 * np.std(means) / math.sqrt(800)
