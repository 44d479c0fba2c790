"""Runs become numbers: means, differences, curves, and what they cost."""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from tsla.evaluation.two_way import Estimate, two_way
from tsla.report.results import RunResult, Runs
from tsla.runs.log import is_number


class Curve(NamedTuple):
  """A number over the epochs: the mean of the seeds, the least, the most."""

  epochs: np.ndarray  # f64[T], epochs done
  mean: np.ndarray  # f64[T]
  low: np.ndarray  # f64[T]
  high: np.ndarray  # f64[T]


def measured(runs: Iterable[RunResult], metric: str) -> dict[int, float]:
  """By seed, of the last evaluation; an older version has not every metric."""
  values = {r.seed: r.test.get(metric, r.card.get(metric)) for r in runs}
  return {seed: v for seed, v in values.items() if is_number(v)}


def pairs(runs: Runs, baseline: Runs) -> list[tuple[RunResult, RunResult]]:
  """Each run with the baseline's of its seed, where there is one."""
  others = {run.seed: run for run in baseline}
  return [(run, others[run.seed]) for run in runs if run.seed in others]


def difference(runs: Runs, baseline: Runs, metric: str) -> Estimate | None:
  """Mean of the paired differences to the baseline; None without a pair.

  Over seeds and images where all pairs tell the metric image by image, of the
  same images. Else over seeds only, as Student: its `images` are then 0, and
  it speaks of these images and no others.
  """
  cards = [run.card for pair in pairs(runs, baseline) for run in pair]
  name, images = f'{metric}_by_image', {card.get('images') for card in cards}
  if len(images) == 1 and all(name in card for card in cards):
    tables = np.array([card[name] for card in cards], np.float64)
    estimate = two_way(tables[::2] - tables[1::2])
    if math.isfinite(estimate.mean):
      return estimate
  own, others = measured(runs, metric), measured(baseline, metric)
  values = [own[seed] - others[seed] for seed in own if seed in others]
  if not values:
    return None
  n, mean = len(values), float(np.mean(values))
  variance = float(np.var(values, ddof=1)) if n > 1 else math.nan
  return Estimate(mean, math.sqrt(variance / n), n - 1, n, 0, variance, 0.0)


def evaluation_curve(runs: Runs, metric: str) -> Curve:
  """A metric of the evaluations, at the epochs that every run evaluated.

  They are on the validation split where the test set has no curve.
  """
  split = all(r.rows('validation') and len(r.rows('eval')) < 2 for r in runs)
  kind = 'validation' if split else 'eval'
  return _curve(_points(run, kind, metric) for run in runs)


def risk_curve(runs: Runs, name: str) -> Curve:
  """A card's risk over coverage, both in %, at 200 points from 5 % on."""
  risks = [run.card[name] for run in runs if name in run.card]
  n = len(risks[0]) if risks else 0
  at = np.unique(np.linspace(n // 20, n - 1, 200).astype(int)) if n else ()
  return _curve({100 * (k + 1) / n: 100 * r[k] for k in at} for r in risks)


def probe_curve(runs: Runs, name: str) -> Curve:
  """A number of the probes; the band holds one standard error to each side."""

  def shifted(run: RunResult, by: int) -> dict[float, float]:
    values = _points(run, 'probe', name)
    errors = _points(run, 'probe', f'{name}_error')
    return {at: values[at] + by * errors[at] for at in values if at in errors}

  low, mean, high = (_curve(shifted(r, by) for r in runs) for by in (-1, 0, 1))
  return mean._replace(low=low.low, high=high.high)


def first_firing(run: RunResult, rule: str) -> float | None:
  """The epoch at which a rule had fired as often in a row as it must.

  It is inf if it never had, None if it was not asked.
  """
  patience = run.record.fields.get('smoothing.patience', 1)
  counts = _points(run, 'probe', f'rule_{rule}')
  fired = (at for at, count in counts.items() if count >= patience)
  return next(fired, math.inf) if counts else None


def training_curve(runs: Iterable[RunResult], name: str) -> Curve:
  """A number of the training rows, as the mean over the updates of an epoch."""
  return _curve(_epoch_means(run, name) for run in runs)


def schedule(run: RunResult, name: str) -> tuple[np.ndarray, np.ndarray]:
  """Epochs done, and 'theta' or 'learning_rate' as the last update used it.

  Where smoothing ended θ has two points, of before and of after.
  """
  points = np.array([*_points(run, 'train', name).items()]).reshape(-1, 2)
  for epoch in run.switches if name == 'theta' else ():
    k = int(np.searchsorted(points[:, 0], epoch, 'right'))
    known = run.record.fields.get('smoothing.theta', 0)
    before = points[k - 1, 1] if k else known
    points = np.insert(points, k, [(epoch, before), (epoch, 0)], 0)
  return tuple(points.T)


def _points(run: RunResult, kind: str, name: str) -> dict[float, float]:
  """{epochs done: value} of the log's rows of a kind that have the number."""
  return {
    row['step'] / run.steps_per_epoch: row[name]
    for row in run.rows(kind)
    if is_number(row.get(name))
  }


def _epoch_means(run: RunResult, name: str) -> dict[float, float]:
  sums, weights = defaultdict(float), defaultdict(int)
  before = 0
  for row in run.rows('train'):
    updates, before = row['step'] - before, row['step']
    if is_number(row.get(name)):
      epoch = -(-row['step'] // run.steps_per_epoch)  # a row lies within one
      sums[epoch] += updates * row[name]
      weights[epoch] += updates
  return {float(epoch): sums[epoch] / weights[epoch] for epoch in sums}


def _curve(by_run: Iterable[dict[float, float]]) -> Curve:
  series = list(by_run)
  epochs = sorted(set.intersection(*map(set, series))) if series else []
  values = np.array([[s[epoch] for epoch in epochs] for s in series])
  if not epochs:
    return Curve(*np.zeros((4, 0)))
  return Curve(np.array(epochs), values.mean(0), values.min(0), values.max(0))


def cost(runs: Iterable[RunResult]) -> list[float]:
  """Of runs, done or not: epochs, epochs taken over, seconds, those taken over.

  The time is without compilation, evaluation and saving; NaN if a log does not
  tell.
  """
  total = np.zeros(4)
  for run in runs:
    rows, per_epoch = run.rows('train'), run.steps_per_epoch
    begin = run.first_epoch * (per_epoch or 0)
    own = [row for row in rows if row['step'] > begin]
    if per_epoch is None or not own:
      continue
    size = run.record.fields['batch_size']
    shared = [row for row in rows if row['step'] <= begin]
    epochs = own[-1]['step'] / per_epoch - run.first_epoch, run.first_epoch
    total += (*epochs, _seconds(own, begin, size), _seconds(shared, 0, size))
  return total.tolist()


def _seconds(rows: list[dict[str, Any]], begin: int, batch_size: int) -> float:
  """The time of rows that follow update `begin`; NaN if none has a rate.

  A row without one, as that which compiled, gets the median.
  """
  if not rows:
    return 0.0
  found = [row.get('images_per_second') for row in rows]
  rates = np.array([r if is_number(r) and r > 0 else np.nan for r in found])
  if np.isnan(rates).all():
    return np.nan
  rates[np.isnan(rates)] = np.nanmedian(rates)
  steps = np.array([begin] + [row['step'] for row in rows])
  return float((np.diff(steps) * batch_size / rates).sum())
