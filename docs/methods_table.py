"""The tables of `methods.md`, from the sweeps that its commands trained.

  python -m docs.methods_table runs/digits-methods

Differences to the baseline are paired by seed and image; all intervals of a
column hold together 95 times of 100 (Bonferroni over the table's rows), over
other seeds and other images. Bold: the interval excludes 0.
"""

import pathlib
import sys
from collections.abc import Iterator

import numpy as np

from tsla.evaluation.two_way import ALPHA
from tsla.report import summary
from tsla.report.comparison import METRICS, SQUARED, Metric
from tsla.report.results import Results, read_results

_NLL = Metric('nll', 'NLL, nats', 1, 3)
_TOLD = (
  next(metric for metric in METRICS if metric.name == 'top1'),
  _NLL,
  _NLL._replace(name='calibrated_nll', label='NLL with a temperature'),
  SQUARED,
)
_MOST = 1000.0  # beyond it a run collapsed, or R is 0 and any θ the best


def told(results: Results) -> Iterator[str]:
  """Lines of a table: each row against the first."""
  baseline, *names = results.rows
  yield f'| | {" | ".join(metric.label for metric in _TOLD)} |'
  yield f'|{" --- |" * (1 + len(_TOLD))}'
  others = results.done(baseline)
  yield (
    f'| {baseline} | '
    + ' | '.join(
      m.text(float(np.mean([*summary.measured(others, m.name).values()])))
      for m in _TOLD
    )
    + ' |'
  )
  for name in names:
    cells = [name]
    for metric in _TOLD:
      found = summary.difference(results.done(name), others, metric.name)
      if found is None or abs(found.mean) > _MOST:
        cells.append('collapsed' if found else '–')
        continue
      low, high = found.interval(ALPHA / len(names))
      if metric.text(low) == metric.text(high) or not found.known:
        cells.append(
          'equal' if metric.text(found.mean) == metric.text(0) else '–'
        )
        continue
      ends = f'[{metric.text(low, "+")}, {metric.text(high, "+")}]'
      text = f'{metric.text(found.mean, "+")} {ends}'
      cells.append(f'**{text}**' if low > 0 or high < 0 else text)
    yield f'| {" | ".join(cells)} |'


def errors(results: Results, shares: tuple[float, ...]) -> Iterator[str]:
  """Lines of a table: m(θ)/σ² and θ* after shares of the epochs."""
  for name in results.rows[1:]:
    if '(' in name:  # dropped: until then it is the row above
      continue
    runs, numbers = results.done(name), ('mse_ratio', 'theta_star')
    curves = [summary.probe_curve(runs, number) for number in numbers]
    cells = [name]
    for share in shares:
      epoch = round(share * results.runs[0].epochs)
      # A curve lacks the epochs at which a number was not known.
      ratio, star = (curve.mean[curve.epochs == epoch] for curve in curves)
      best = f'{star[0]:.2g}' if (abs(star) < _MOST).any() else '–'
      cells.append(f'{ratio[0]:.3g} ({best})' if ratio.size else '–')
    yield f'| {" | ".join(cells)} |'


def main(folders: list[str]) -> None:
  """Prints both tables of each sweep."""
  for results in read_results([pathlib.Path(folder) for folder in folders]):
    seeds = len(results.done(results.rows[0]))
    print(f'\n{results.title}: {seeds} seeds\n')
    print(*told(results), sep='\n')
    print('\n| m(θ)/σ² (θ*) |  |  |  |\n| --- | --- | --- | --- |')
    print(*errors(results, (0.1, 0.3, 0.6)), sep='\n')


if __name__ == '__main__':
  main(sys.argv[1:])
