"""The theory page: what is proved, what the simulation shows, where they part.

The numbers are the simulation's, and so is the verdict next to each; the words
are in `page.toml`.
"""

import math
import pathlib
from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from tsla.errors import InputError
from tsla.pages.blocks import (
  Block,
  Cell,
  CodeBlock,
  FigureBlock,
  HeadingBlock,
  ParagraphBlock,
  TableBlock,
)
from tsla.pages.figures import picture, svg_file
from tsla.pages.render import render_html
from tsla.pages.texts import read_texts
from tsla.theory import figures, study, toy_problem
from tsla.theory.study import Curve, Fit, Grid, Iterations, Level

_EPSILON2 = 0.05  # of the example
_text = read_texts(__file__)


def write_page(folder: pathlib.Path, grid: Grid) -> pathlib.Path:
  """Simulates the grid; writes theory.html and its figures into a folder.

  Raises:
    InputError: the folder cannot be written.
  """
  page = folder / 'theory.html'
  try:  # Before a minute of simulation.
    folder.mkdir(parents=True, exist_ok=True)
    page.touch()
  except OSError as error:
    raise InputError(
      f'--out={folder}: {error.strerror}', cure='--out=FOLDER'
    ) from error
  counts, levels = study.iterations(grid), study.levels(grid)
  thetas, curves = study.thetas(grid), study.example(grid, _EPSILON2)

  def figure(name: str, drawn: Figure) -> FigureBlock:
    (folder / f'{name}.svg').write_text(svg_file(drawn, name), 'utf-8')
    delta = counts[-1].delta
    caption = _text(f'{name}_figure', delta=delta, epsilon2=_EPSILON2)
    return FigureBlock(caption, picture(drawn, name))

  blocks = [
    HeadingBlock(_text('title'), 1),
    _paragraph(
      'problem', toy=toy_problem, inverse_mu=1 / toy_problem.MU, grid=grid
    ),
    CodeBlock('python -m tsla theory --out=DIR'),
    *_bounds(counts, [*levels, *thetas], curves),
    figure('example', figures.example(curves, _EPSILON2)),
    *_levels(levels),
    figure('levels', figures.levels(levels)),
    *_iterations(counts),
    figure('iterations', figures.iterations(counts)),
    *_thetas(thetas),
    figure('thetas', figures.thetas(thetas)),
    *_exponents(counts, levels),
  ]
  page.write_text(render_html(blocks), 'utf-8')
  return page


def _paragraph(name: str, **values: object) -> ParagraphBlock:
  return ParagraphBlock(_text(name, **values))


def _bounds(
  counts: list[Iterations], levels: list[Level], curves: list[Curve]
) -> Iterator[Block]:
  compared = {}
  for method in ('SGD', 'TSLA', 'long steps'):
    rows = [row for row in counts if row.method == method]
    compared[f'steps to ε, {method}'] = [r.average / r.bound for r in rows]
  for curve in curves:
    ratios = curve.average / curve.bound
    finite = ratios[np.isfinite(ratios)]
    compared[f'average at every step, {curve.method}'] = finite
  most = {name: max(ratios) for name, ratios in compared.items()}
  name = 'level of LSR, up to 3 standard errors'
  compared[name] = [row.level / row.mse for row in levels]
  most[name] = max((row.level - 3 * row.error) / row.mse for row in levels)
  yield HeadingBlock('Do the bounds hold?')
  yield TableBlock(
    'Each bound, and how much of it the simulation used up.',
    ['bound', 'comparisons', 'simulated / proved', 'holds'],
    [
      [
        name,
        f'{len(ratios):,}',
        f'{min(ratios):.2g} to {max(ratios):.3g}',
        'yes' if most[name] <= 1 else Cell('no', 'above the bound'),
      ]
      for name, ratios in compared.items()
    ],
    'lrrl',
  )
  yield _paragraph('stage_two', times=2 * toy_problem.L / toy_problem.MU)


def _levels(rows: list[Level]) -> Iterator[Block]:
  yield HeadingBlock('Where label smoothing stays')
  of_mse, of_delta = (_pm(_level_fit(rows, name)) for name in ('mse', 'delta'))
  yield _paragraph('levels', of_mse=of_mse, of_delta=of_delta)


def _level_fit(rows: list[Level], factor: str) -> Fit:
  """The exponent of 'delta' or 'mse' in LSR's level, at steps of 1/L."""
  long = [row for row in rows if row.step_size == 1 / toy_problem.L]
  factors = [getattr(row, factor) for row in long]
  return study.fit(factors, steps=[row.level for row in long])


def _iterations(rows: list[Iterations]) -> Iterator[Block]:
  smallest = min(row.epsilon2 for row in rows if row.method == 'SGD')
  delta = max(row.delta for row in rows)
  same = {
    row.method: row
    for row in rows
    if row.delta == delta and math.isclose(row.epsilon2, smallest)
  }
  sgd, long, tsla = (same[name] for name in ('SGD', 'long steps', 'TSLA'))
  closed = [
    row.average * row.epsilon2**2 / (row.mse - row.epsilon2 / 4) * 3 / 4
    for row in study.counted(rows, 'TSLA')
  ]
  yield HeadingBlock('How many steps to ε')
  yield _paragraph('orders', least=min(closed), most=max(closed))
  yield HeadingBlock('What the gain is made of', 3)
  yield _paragraph(
    'gain',
    sgd=sgd,
    long=long,
    tsla=tsla,
    by_steps=sgd.average / long.average,
    by_smoothing=long.average / tsla.average,
    by_error=1 / tsla.mse,
  )
  yield HeadingBlock('The last iterate needs far fewer', 3)
  sgd, tsla = (
    study.exponents(rows, method, 'last') for method in ('SGD', 'TSLA')
  )
  yield _paragraph(
    'last_iterate', sgd=_pm(sgd), tsla=_pm(tsla), tsla_delta=_pm(tsla, 1)
  )


def _thetas(rows: list[Level]) -> Iterator[Block]:
  def stays(row: Level) -> str:
    return f'{row.level:.4f} ± {2 * row.error:.4f}'

  cells = []
  for rho in sorted({row.rho for row in rows}):
    none, *_, paper, best = (row for row in rows if row.rho == rho)
    special = [f'{row.theta:.3f}: {stays(row)}' for row in (paper, best)]
    cells.append([f'{rho:.1f}'.replace('-', '−'), stays(none), *special])
  yield HeadingBlock('Which θ')
  yield _paragraph('thetas')
  yield TableBlock(
    'E‖∇F‖² that stays (± 2 standard errors), δ = 2.',
    ['ρ/σ²', 'θ = 0', 'θ = 1/(1+δ)', 'θ*'],
    cells,
    'lrrr',
  )


def _exponents(
  counts: list[Iterations], levels: list[Level]
) -> Iterator[Block]:
  of_mse = [r._replace(delta=r.mse) for r in counts]
  both = [r._replace(average=r.average + r.steps_one) for r in counts]
  last = study.exponents(counts, 'TSLA', 'last')
  sgd, sgd_last = (
    study.exponents(counts, 'SGD', count) for count in ('average', 'last')
  )
  by_delta, by_mse, total = (
    study.exponents(rows, 'TSLA', 'average') for rows in (counts, of_mse, both)
  )
  yield HeadingBlock('The exponents')
  yield TableBlock(
    'Exponents as the orders say, and as fitted to the simulation.',
    ['exponent', 'expected', 'fitted', 'points', 'expected one is'],
    [
      _reading('SGD, steps: of ε', -4, sgd),
      _reading('TSLA, stage two: of ε', -4, by_delta),
      _reading('TSLA, stage two: of δ', 1, by_delta, 1),
      _reading('TSLA, stage two: of m(θ) in place of δ', 1, by_mse, 1),
      _reading('TSLA, both stages: of ε', -4, total),
      _reading('TSLA, both stages: of δ', 1, total, 1),
      _reading('LSR, level: of δ', 1, _level_fit(levels, 'delta')),
      _reading('SGD, last iterate: of ε', -4, sgd_last),
      _reading('TSLA, last iterate: of ε', -4, last),
      _reading('TSLA, last iterate: of δ', 1, last, 1),
    ],
    'lrrrl',
  )
  yield _paragraph('exponents')


def _reading(
  name: str, expected: float, fit: Fit, index: int = 0
) -> tuple[str, ...]:
  off = abs(fit.exponents[index] - expected)
  return (
    name,
    f'{expected:g}'.replace('-', '−'),
    _pm(fit, index),
    str(fit.points),
    'inside' if off <= fit.half_widths[index] else f'outside, off by {off:.2f}',
  )


def _pm(fit: Fit, index: int = 0) -> str:
  value, width = fit.exponents[index], fit.half_widths[index]
  digits = 2 if width >= 0.005 else 3
  return f'{value:.{digits}f} ± {width:.{digits}f}'.replace('-', '−')
