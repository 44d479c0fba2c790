"""The theory page: what is proved, what the simulation shows, where they part.

The numbers are the simulation's, and so is the verdict next to each; the words
are in `page.toml`.
"""

import math
import pathlib
from collections.abc import Iterator

from matplotlib.figure import Figure

from tsla.errors import InputError
from tsla.pages import blocks
from tsla.pages.blocks import Block, FigureBlock, read_texts
from tsla.pages.figures import picture
from tsla.pages.render import render_html
from tsla.theory import figures, study, toy_problem
from tsla.theory.study import Curve, Fit, Grid, Iterations, Level

_EPSILON2 = 0.05  # of the example
_text = read_texts(__file__)


def write_page(folder: pathlib.Path, grid: Grid) -> pathlib.Path:
  """Simulates the grid; writes theory.html and its figures into a folder."""
  page = folder / 'theory.html'
  try:  # Before a minute of simulation.
    folder.mkdir(parents=True, exist_ok=True)
    page.touch()
  except OSError as error:
    problem = f'--out={folder}: {error.strerror}'
    raise InputError(problem, cure='--out=FOLDER') from error
  counts, levels = study.iterations(grid), study.levels(grid)
  thetas, curves = study.thetas(grid), study.example(grid, _EPSILON2)
  of_mse, of_delta = (_level_fit(levels, name) for name in ('mse', 'delta'))

  def figure(name: str, drawn: Figure) -> FigureBlock:
    delta, shown = counts[-1].delta, picture(drawn, name)
    (folder / f'{name}.svg').write_bytes(dict(shown.files)['svg'])
    caption = _text(f'{name}_figure', delta=delta, epsilon2=_EPSILON2)
    return FigureBlock(caption, shown)

  known = {'toy': toy_problem, 'inverse_mu': 1 / toy_problem.MU}
  content = [
    blocks.HeadingBlock(_text('title'), 1),
    _paragraph('problem', grid=grid, **known),
    blocks.CodeBlock('python -m tsla theory --out=DIR'),
    *_bounds(counts, [*levels, *thetas], curves),
    figure('example', figures.example(curves, _EPSILON2)),
    blocks.HeadingBlock('Where label smoothing stays'),
    _paragraph('levels', of_mse=_pm(of_mse), of_delta=_pm(of_delta)),
    figure('levels', figures.levels(levels)),
    *_iterations(counts),
    figure('iterations', figures.iterations(counts)),
    *_thetas(thetas),
    figure('thetas', figures.thetas(thetas)),
    *_exponents(counts, of_delta),
  ]
  page.write_text(render_html(content), 'utf-8')
  return page


def _paragraph(name: str, **values: object) -> blocks.ParagraphBlock:
  return blocks.ParagraphBlock(_text(name, **values))


def _bounds(
  counts: list[Iterations], levels: list[Level], curves: list[Curve]
) -> Iterator[Block]:
  compared = {}
  for method in ('SGD', 'TSLA', 'long steps'):
    rows = [row for row in counts if row.method == method]
    compared[f'steps to ε, {method}'] = [r.average / r.bound for r in rows]
  for curve in curves:
    ratios = (curve.average / curve.bound)[curve.steps_one :]
    compared[f'average at every step, {curve.method}'] = ratios
  most = {name: max(ratios) for name, ratios in compared.items()}
  name = 'level of LSR, up to 3 standard errors'
  compared[name] = [row.level / row.mse for row in levels]
  most[name] = max((row.level - 3 * row.error) / row.mse for row in levels)
  rows = []
  for name, ratios in compared.items():
    span = f'{min(ratios):.2g} to {max(ratios):.3g}'
    no = blocks.Cell('no', 'above the bound')
    holds = 'yes' if most[name] <= 1 else no
    rows.append([name, f'{len(ratios):,}', span, holds])
  yield blocks.HeadingBlock('Do the bounds hold?')
  caption = 'Each bound, and how much of it the simulation used up.'
  header = ['bound', 'comparisons', 'simulated / proved', 'holds']
  yield blocks.TableBlock(caption, header, rows, 'lrrl')
  yield _paragraph('stage_two', times=2 * toy_problem.L / toy_problem.MU)


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
  yield blocks.HeadingBlock('How many steps to ε')
  yield _paragraph('orders', least=min(closed), most=max(closed))
  yield blocks.HeadingBlock('What the gain is made of', 3)
  factors = {
    'by_steps': sgd.average / long.average,
    'by_smoothing': long.average / tsla.average,
    'by_error': 1 / tsla.mse,
  }
  yield _paragraph('gain', sgd=sgd, long=long, tsla=tsla, **factors)
  yield blocks.HeadingBlock('The last iterate needs far fewer', 3)
  sgd, tsla = (study.exponents(rows, m, 'last') for m in ('SGD', 'TSLA'))
  values = {'sgd': _pm(sgd), 'tsla': _pm(tsla), 'tsla_delta': _pm(tsla, 1)}
  yield _paragraph('last_iterate', **values)


def _thetas(rows: list[Level]) -> Iterator[Block]:
  def stays(row: Level) -> str:
    return f'{row.level:.4f} ± {2 * row.error:.4f}'

  cells = []
  for rho in sorted({row.rho for row in rows}):
    none, *_, paper, best = (row for row in rows if row.rho == rho)
    special = [f'{row.theta:.3f}: {stays(row)}' for row in (paper, best)]
    cells.append([f'{rho:.1f}'.replace('-', '−'), stays(none), *special])
  yield blocks.HeadingBlock('Which θ')
  yield _paragraph('thetas')
  caption = 'E‖∇F‖² that stays (± 2 standard errors), δ = 2.'
  header = ['ρ/σ²', 'θ = 0', 'θ = 1/(1+δ)', 'θ*']
  yield blocks.TableBlock(caption, header, cells, 'lrrr')


def _exponents(counts: list[Iterations], level: Fit) -> Iterator[Block]:
  of_mse = [r._replace(delta=r.mse) for r in counts]
  both = [r._replace(average=r.average + r.steps_one) for r in counts]
  by_delta, by_mse, total = (
    study.exponents(rows, 'TSLA', 'average') for rows in (counts, of_mse, both)
  )
  sgd = study.exponents(counts, 'SGD', 'average')
  sgd_last, last = (study.exponents(counts, m, 'last') for m in ('SGD', 'TSLA'))
  yield blocks.HeadingBlock('The exponents')
  rows = [
    _reading('SGD, steps: of ε', -4, sgd),
    _reading('TSLA, stage two: of ε', -4, by_delta),
    _reading('TSLA, stage two: of δ', 1, by_delta, 1),
    _reading('TSLA, stage two: of m(θ) in place of δ', 1, by_mse, 1),
    _reading('TSLA, both stages: of ε', -4, total),
    _reading('TSLA, both stages: of δ', 1, total, 1),
    _reading('LSR, level: of δ', 1, level),
    _reading('SGD, last iterate: of ε', -4, sgd_last),
    _reading('TSLA, last iterate: of ε', -4, last),
    _reading('TSLA, last iterate: of δ', 1, last, 1),
  ]
  caption = 'Exponents as the orders say, and as fitted to the simulation.'
  header = ['exponent', 'expected', 'fitted', 'points', 'expected one is']
  yield blocks.TableBlock(caption, header, rows, 'lrrrl')
  yield _paragraph('exponents')


def _reading(name: str, expected: float, fit: Fit, index: int = 0) -> tuple:
  off = abs(fit.exponents[index] - expected)
  inside = off <= fit.half_widths[index]
  verdict = 'inside' if inside else f'outside, off by {off:.2f}'
  said = f'{expected:g}'.replace('-', '−')
  return name, said, _pm(fit, index), str(fit.points), verdict


def _pm(fit: Fit, index: int = 0) -> str:
  value, width = fit.exponents[index], fit.half_widths[index]
  digits = 2 if width >= 0.005 else 3
  return f'{value:.{digits}f} ± {width:.{digits}f}'.replace('-', '−')
