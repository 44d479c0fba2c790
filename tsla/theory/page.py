"""The theory page: what is proved, what the simulation shows, where they part.

The numbers are the simulation's, and so is the verdict next to each.
"""

import math
import pathlib
from collections.abc import Iterator, Sequence

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
from tsla.theory import figures, study, toy_problem
from tsla.theory.study import Curve, Fit, Grid, Iterations, Level

_TITLE = 'SGD, label smoothing and TSLA: the bounds against a simulation'
_EPSILON2 = 0.05  # of the example


def write_page(folder: pathlib.Path, grid: Grid) -> pathlib.Path:
  """Simulates the whole grid; writes the figures and the page that holds them.

  Args:
    folder: made if missing; gets theory.html and an .svg file for each figure.
    grid: what to simulate.

  Returns:
    The page's path.

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

  def figure(name: str, drawn: Figure, caption: str) -> FigureBlock:
    (folder / f'{name}.svg').write_text(svg_file(drawn, name), 'utf-8')
    return FigureBlock(caption, picture(drawn, name))

  delta = counts[-1].delta
  blocks = [
    HeadingBlock(_TITLE, 1),
    *_problem(grid),
    *_bounds(counts, [*levels, *thetas], curves),
    figure(
      'example',
      figures.example(curves, _EPSILON2),
      f'E‖∇F‖² on the way, δ = {delta:g}, ε² = {_EPSILON2:g}. LSR comes down '
      'fast and stays; TSLA follows it, then leaves its level.',
    ),
    *_levels(levels),
    figure(
      'levels', figures.levels(levels), 'E‖∇F‖² where smoothing is kept on.'
    ),
    *_iterations(counts),
    figure(
      'iterations',
      figures.iterations(counts),
      'Steps to ε. Long steps: the two step sizes of TSLA without smoothing, '
      f'at the T₁ of δ = {delta:g}.',
    ),
    *_thetas(thetas),
    figure(
      'thetas',
      figures.thetas(thetas),
      'δ = 2, steps of 1/L: E‖∇F‖² against θ.',
    ),
    *_exponents(counts, levels),
  ]
  page.write_text(render_html(blocks), 'utf-8')
  return page


def _problem(grid: Grid) -> Iterator[Block]:
  yield ParagraphBlock(
    f'F(w) = w² + 3 sin²(w), from w₀ = {toy_problem.START:g}, is not convex, '
    f'has L = {toy_problem.L:g}, satisfies 2μ(F − F*) ≤ ‖∇F‖² for '
    f'μ = 1/{1 / toy_problem.MU:g}, and its gradients are seen through '
    f'Gaussian errors of known σ² = 1, δ and ρ. {grid.trajectories:,} '
    f'trajectories each, seed {grid.seed}. SGD takes steps of ε²/(2Lσ²); LSR '
    'takes steps of 1/L with θ = 1/(1+δ) to the end; TSLA does so for T₁ steps '
    'and goes on like SGD. This page:'
  )
  yield CodeBlock('python -m tsla theory --out=DIR')


def _bounds(
  counts: Sequence[Iterations],
  levels: Sequence[Level],
  curves: Sequence[Curve],
) -> Iterator[Block]:
  compared = {
    f'steps to ε, {method}': [
      row.average / row.bound for row in counts if row.method == method
    ]
    for method in ('SGD', 'TSLA', 'long steps')
  }
  for curve in curves:
    ratios = curve.average / curve.bound
    name = f'average at every step, {curve.method}'
    compared[name] = ratios[np.isfinite(ratios)]
  name = 'level of LSR, up to 3 standard errors'
  compared[name] = [row.level / row.mse for row in levels]
  least = {name: [(row.level - 3 * row.error) / row.mse for row in levels]}
  yield HeadingBlock('Do the bounds hold?')
  yield TableBlock(
    'Each bound, and how much of it the simulation used up.',
    ['bound', 'comparisons', 'simulated / proved', 'holds'],
    [
      [
        name,
        f'{len(ratios):,}',
        f'{min(ratios):.2g} to {max(ratios):.3g}',
        'yes'
        if max(least.get(name, ratios)) <= 1
        else Cell('no', 'above the bound'),
      ]
      for name, ratios in compared.items()
    ],
    'lrrl',
  )
  yield ParagraphBlock(
    'The bound on TSLA’s stage two is far from tight: it allows for a gap of '
    'up to m/μ where stage one ends. Near the minimum the curvature is L, and '
    'the gap is m/(2L), up to 2L/μ = '
    f'{2 * toy_problem.L / toy_problem.MU:g} times smaller. For the same '
    'reason the proved T₁ is longer than the figure shows to be necessary.'
  )


def _levels(rows: Sequence[Level]) -> Iterator[Block]:
  long = [row for row in rows if row.step_size == 1 / toy_problem.L]
  level = [row.level for row in long]
  delta = study.fit([row.delta for row in long], steps=level)
  mse = study.fit([row.mse for row in long], steps=level)
  yield HeadingBlock('Where label smoothing stays')
  yield ParagraphBlock(
    'With steps of 1/L, E‖∇F‖² stays at m(θ) = δσ²/(1+δ), which is δσ² for a '
    f'small δ: it goes like δ/(1+δ) to the power {_pm(mse)} and, over these '
    f'two decades, like δ to the {_pm(delta)}. Shorter steps average the noise '
    'out, but not the bias of ŷ: θ²‖b‖² stays.'
  )


def _iterations(rows: Sequence[Iterations]) -> Iterator[Block]:
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
  last_sgd, last_tsla = (
    study.exponents(study.counted(rows, name), 'last')
    for name in ('SGD', 'TSLA')
  )
  yield HeadingBlock('How many steps to ε')
  yield ParagraphBlock(
    'By the average of E‖∇F‖² over the iterates (one of them drawn at random, '
    'what the bounds speak of) SGD takes a number of steps of order 1/ε⁴, and '
    'TSLA’s stage two one of order δ/ε⁴. A quadratic of curvature L would take '
    '4/3·(m(θ) − ε²/4)·σ²/ε⁴, and TSLA took '
    f'{min(closed):.2f} to {max(closed):.2f} times that. So its exponents are '
    'not exactly −4 and 1: m(θ) = δσ²/(1+δ) grows more slowly than δ, and the '
    'ε²/4 that remains at the end counts a little.'
  )
  yield HeadingBlock('What the gain is made of', 3)
  yield ParagraphBlock(
    f'At ε² = {smallest:g} and δ = {delta:g} SGD took {sgd.average:,.0f} '
    f'steps, the two step sizes without smoothing {long.average:,.0f} in stage '
    f'two, TSLA {tsla.average:,.0f} (after T₁ = {tsla.steps_one}). So the long '
    f'steps of stage one save a factor of {sgd.average / long.average:.0f}, '
    f'and smoothing one of {long.average / tsla.average:.1f} on top; σ²/m(θ) '
    f'is {1 / tsla.mse:.1f}.'
  )
  yield HeadingBlock('The last iterate needs far fewer', 3)
  yield ParagraphBlock(
    'On this problem SGD’s last iterate gets there in a number of steps that '
    f'goes like ε to the {_pm(last_sgd)}, TSLA’s in one like ε to the '
    f'{_pm(last_tsla)} times δ to the {_pm(last_tsla, 1)}, not like 1/ε⁴ and '
    'δ/ε⁴. Under the Polyak–Łojasiewicz condition the gap shrinks '
    'geometrically, in 1/(ημ) steps times a logarithm, and η is of order ε². '
    'The order 1/ε⁴ is that of an average which still holds the first '
    'iterates; by the last iterate δ counts only inside the logarithm.'
  )


def _thetas(rows: Sequence[Level]) -> Iterator[Block]:
  cells = []
  for rho in sorted({row.rho for row in rows}):
    some = [row for row in rows if row.rho == rho]
    none, paper, best = some[0], some[-2], some[-1]
    cells.append(
      [
        f'{rho:.1f}'.replace('-', '−'),
        f'{none.level:.4f} ± {2 * none.error:.4f}',
        f'{paper.theta:.3f}: {paper.level:.4f} ± {2 * paper.error:.4f}',
        f'{best.theta:.3f}: {best.level:.4f} ± {2 * best.error:.4f}',
      ]
    )
  yield HeadingBlock('Which θ')
  yield ParagraphBlock(
    'With ρ = 0 the paper’s θ is the best; otherwise '
    'θ* = (σ² − ρ)/(σ² + δσ² − 2ρ) is, and for a large ρ the paper’s θ can be '
    'worse than none. That the points lie below m(θ) where it is large is F’s '
    'doing: it is flatter away from its minimum.'
  )
  yield TableBlock(
    'E‖∇F‖² that stays (± 2 standard errors), δ = 2.',
    ['ρ/σ²', 'θ = 0', 'θ = 1/(1+δ)', 'θ*'],
    cells,
    'lrrr',
  )


def _exponents(
  counts: Sequence[Iterations], levels: Sequence[Level]
) -> Iterator[Block]:
  sgd, tsla = (study.counted(counts, name) for name in ('SGD', 'TSLA'))
  by_delta = study.exponents(tsla, 'average')
  by_mse = study.exponents([r._replace(delta=r.mse) for r in tsla], 'average')
  total = study.exponents(
    [r._replace(average=r.average + r.steps_one) for r in tsla], 'average'
  )
  long = [row for row in levels if row.step_size == 1 / toy_problem.L]
  level = study.fit([r.delta for r in long], steps=[r.level for r in long])
  last_sgd, last = (study.exponents(rows, 'last') for rows in (sgd, tsla))
  yield HeadingBlock('The exponents')
  yield TableBlock(
    'Exponents as the orders say, and as fitted to the simulation.',
    ['exponent', 'expected', 'fitted', 'points', 'expected one is'],
    [
      _reading('SGD, steps: of ε', -4, study.exponents(sgd, 'average')),
      _reading('TSLA, stage two: of ε', -4, by_delta),
      _reading('TSLA, stage two: of δ', 1, by_delta, 1),
      _reading('TSLA, stage two: of m(θ) in place of δ', 1, by_mse, 1),
      _reading('TSLA, both stages: of ε', -4, total),
      _reading('TSLA, both stages: of δ', 1, total, 1),
      _reading('LSR, level: of δ', 1, level),
      _reading('SGD, last iterate: of ε', -4, last_sgd),
      _reading('TSLA, last iterate: of ε', -4, last),
      _reading('TSLA, last iterate: of δ', 1, last, 1),
    ],
    'lrrrl',
  )
  yield ParagraphBlock(
    'Least squares in logarithms; 95 % intervals by Student’s t from '
    'residuals, each point from trajectories of its own. They cover chance, '
    'not curvature: an interval that misses by a few hundredths shows that no '
    'power law is exact. TSLA’s points are those with ε² ≤ m(θ)/4, where stage '
    'two has something to do. T₁ grows with log(1/δ) only, so both stages '
    'together look flatter as long as T₂ is not much longer. For the last '
    'iterate the expectation is what 1/ε⁴ and δ/ε⁴ would say of it; they are '
    'proved of the average.'
  )


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
