"""The tables of `variance.md`, from the sweeps of `make variance`.

  python -m docs.variance_tables runs/variance/digits-0 runs/variance/digits-0.2

δ, θ*, m(θ)/σ², the gradients' norms and cosine are means over the seeds, in
brackets the band from the least to the most, a standard error to each side.
Differences to the baseline are those of `docs.methods_table`.
"""

import pathlib
import sys
from collections.abc import Iterator

import numpy as np

from docs import methods_table
from tsla.report import summary
from tsla.report.results import Results, read_results

_EPOCHS = (0, 1, 5, 10, 20)
_PROBED = {
  'delta': 'δ',
  'theta_star': 'θ*',
  'mse_ratio': 'm(θ)/σ²',
  'grad_norm': '‖∇F‖',
  'cosine': 'cosine',
}


def probed(results: Results, number: str) -> Iterator[str]:
  """Lines of a table: a number of the probes of each row at some epochs."""
  last = results.runs[0].epochs
  at = sorted({epoch for epoch in _EPOCHS if epoch < last} | {last})
  yield f'| {_PROBED[number]} at epoch | {" | ".join(map(str, at))} |'
  yield f'|{" --- |" * (1 + len(at))}'
  for name in results.rows:
    curve = summary.probe_curve(results.done(name), number)
    cells = [name]
    for epoch in at:
      places = np.flatnonzero(curve.epochs == epoch)
      if not places.size:
        cells.append('–')
        continue
      mean, low, high = (_text(c[places[0]]) for c in curve[1:])
      told = number != 'delta' or curve.low[places[0]] > 0
      cells.append(f'{mean} ({low} to {high})' if told else 'not told from 0')
    yield f'| {" | ".join(cells)} |'


def _text(value: float) -> str:
  """Two digits, and never an exponent."""
  return f'{float(f"{value:.2g}"):,.10g}'.replace('-', '−')


def main(folders: list[str]) -> None:
  """Prints the tables of each sweep."""
  for results in read_results([pathlib.Path(folder) for folder in folders]):
    seeds = len(results.done(results.rows[0]))
    print(f'\n{results.title}: {seeds} seeds\n')
    for number in _PROBED:
      print(*probed(results, number), sep='\n', end='\n\n')
    print(*methods_table.told(results), sep='\n')


if __name__ == '__main__':
  main(sys.argv[1:])
