"""The theory page: what is proved, what the simulation shows, where they part.

The numbers are the simulation's, and so is the verdict next to each.
"""

import math
import pathlib
from collections.abc import Sequence

import numpy as np

from tsla.errors import InputError
from tsla.theory import figures, study
from tsla.theory import toy_problem as sandbox
from tsla.theory.study import Curve, Fit, Grid, Iterations, Level

_EPSILON2 = 0.05  # of the example
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>TSLA: theory</title><style>
body { max-width: 60em; margin: 2em auto; padding: 0 1em;
  font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: left; }
figure { margin: 2em 0; } figure svg { width: 100%; height: auto; }
figcaption { color: #555; }
</style></head><body>
<h1>SGD, label smoothing and TSLA: the bounds against a simulation</h1>
"""


def write(folder: pathlib.Path, grid: Grid) -> pathlib.Path:
  """Simulates the whole grid; writes the figures and the page that holds them.

  Args:
    folder: made if missing; gets theory.html and an .svg file for each figure.
    grid: what to simulate.

  Returns:
    The page's path.

  Raises:
    InputError: the folder cannot be written, or matplotlib is missing.
  """
  page = folder / 'theory.html'
  with figures.style():
    try:  # Before a minute of simulation.
      folder.mkdir(parents=True, exist_ok=True)
      page.touch()
    except OSError as error:
      raise InputError(
        f'--out={folder}: {error.strerror}', cure='--out=FOLDER'
      ) from error
    counts, levels = study.iterations(grid), study.levels(grid)
    thetas, curves = study.thetas(grid), study.example(grid, _EPSILON2)
    drawn = {
      'example': figures.example(curves, _EPSILON2),
      'levels': figures.levels(levels),
      'iterations': figures.iterations(counts),
      'thetas': figures.thetas(thetas),
    }
    svgs = {name: figures.to_svg(figure) for name, figure in drawn.items()}
  for name, svg in svgs.items():
    (folder / f'{name}.svg').write_text(svg, encoding='utf-8')
  sections = [
    _problem(grid),
    _bounds(counts, [*levels, *thetas], curves),
    _figure(
      svgs['example'],
      f'E‖∇F‖² on the way, δ = {counts[-1].delta:g}, ε² = {_EPSILON2:g}. LSR '
      'comes down fast and stays; TSLA follows it, then leaves its level.',
    ),
    _levels(levels),
    _figure(svgs['levels'], 'E‖∇F‖² where smoothing is kept on.'),
    _iterations(counts),
    _figure(
      svgs['iterations'],
      'Steps to ε. Long steps: the two step sizes of TSLA without smoothing, '
      f'at the T₁ of δ = {counts[-1].delta:g}.',
    ),
    _thetas(thetas),
    _figure(svgs['thetas'], 'δ = 2, steps of 1/L: E‖∇F‖² against θ.'),
    _exponents(counts, levels),
  ]
  page.write_text(
    _HEAD + '\n'.join(sections) + '\n</body></html>\n', encoding='utf-8'
  )
  return page


def _problem(grid: Grid) -> str:
  return f"""<p>F(w) = w² + 3 sin²(w), from w₀ = {sandbox.START:g}, is not
convex, has L = {sandbox.L:g}, satisfies 2μ(F − F*) ≤ ‖∇F‖² for
μ = 1/{1 / sandbox.MU:g}, and its gradients are seen through Gaussian errors of
known σ² = 1, δ and ρ. {grid.trajectories:,} trajectories each, seed
{grid.seed}. SGD takes steps of ε²/(2Lσ²); LSR takes steps of 1/L with
θ = 1/(1+δ) to the end; TSLA does so for T₁ steps and goes on like SGD. This
page: <code>python -m tsla theory --out=DIR</code>.</p>"""


def _bounds(
  counts: Sequence[Iterations],
  levels: Sequence[Level],
  curves: Sequence[Curve],
) -> str:
  rows = []
  for method in ('SGD', 'TSLA', 'long steps'):
    ratios = [r.average / r.bound for r in counts if r.method == method]
    rows.append((f'steps to ε, {method}', ratios, ratios))
  for curve in curves:
    ratios = curve.average / curve.bound
    ratios = ratios[np.isfinite(ratios)]
    rows.append((f'average at every step, {curve.method}', ratios, ratios))
  ratios = [r.level / r.mse for r in levels]
  least = [(r.level - 3 * r.error) / r.mse for r in levels]
  rows.append(('level of LSR, up to 3 standard errors', ratios, least))
  cells = [
    (
      name,
      f'{len(ratios):,}',
      f'{min(ratios):.2g} to {max(ratios):.3g}',
      'yes' if max(least) <= 1 else '<b>no</b>',
    )
    for name, ratios, least in rows
  ]
  return (
    '<h2>Do the bounds hold?</h2>'
    + _table(('bound', 'comparisons', 'simulated / proved', 'holds'), cells)
    + f"""<p>The bound on TSLA’s stage two is far from tight: it allows for a
gap of up to m/μ where stage one ends. Near the minimum the curvature is L, and
the gap is m/(2L), up to 2L/μ = {2 * sandbox.L / sandbox.MU:g} times smaller.
For the same reason the proved T₁ is longer than the figure shows to be
necessary.</p>"""
  )


def _levels(rows: Sequence[Level]) -> str:
  long = [row for row in rows if row.step_size == 1 / sandbox.L]
  delta = study.fit([r.delta for r in long], steps=[r.level for r in long])
  mse = study.fit([r.mse for r in long], steps=[r.level for r in long])
  return f"""<h2>Where label smoothing stays</h2><p>With steps of 1/L, E‖∇F‖²
stays at m(θ) = δσ²/(1+δ), which is δσ² for a small δ: it goes like
(δ/(1+δ)){_power(mse)} and, over these two decades, like δ{_power(delta)}.
Shorter steps average the noise out, but not the bias of ŷ: θ²‖b‖² stays.</p>"""


def _iterations(rows: Sequence[Iterations]) -> str:
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
  return f"""<h2>How many steps to ε</h2>
<p>By the average of E‖∇F‖² over the iterates (one of them drawn at random, what
the bounds speak of) SGD takes a number of steps of order 1/ε⁴, and TSLA’s stage
two one of order δ/ε⁴. A quadratic of curvature L would take
4/3·(m(θ) − ε²/4)·σ²/ε⁴, and TSLA took {min(closed):.2f} to {max(closed):.2f}
times that. So its exponents are not exactly −4 and 1: m(θ) = δσ²/(1+δ) grows
more slowly than δ, and the ε²/4 that remains at the end counts a little.</p>
<p><b>What the gain is made of.</b> At ε² = {smallest:g} and δ = {delta:g} SGD
took {sgd.average:,.0f} steps, the two step sizes without smoothing
{long.average:,.0f} in stage two, TSLA {tsla.average:,.0f} (after T₁ =
{tsla.steps_one}). So the long steps of stage one save a factor of
{sgd.average / long.average:.0f}, and smoothing one of
{long.average / tsla.average:.1f} on top; σ²/m(θ) is {1 / tsla.mse:.1f}.</p>
<p><b>The last iterate needs far fewer.</b> On this problem SGD’s last iterate
gets there in a number of steps that goes like ε{_power(last_sgd)}, TSLA’s in
one like ε{_power(last_tsla)} δ{_power(last_tsla, 1)}, not like 1/ε⁴ and δ/ε⁴.
Under the Polyak–Łojasiewicz condition the gap shrinks geometrically, in 1/(ημ)
steps times a logarithm, and η is of order ε². The order 1/ε⁴ is that of an
average which still holds the first iterates; by the last iterate δ counts only
inside the logarithm.</p>"""


def _thetas(rows: Sequence[Level]) -> str:
  cells = []
  for rho in sorted({row.rho for row in rows}):
    some = [row for row in rows if row.rho == rho]
    none, paper, best = some[0], some[-2], some[-1]
    cells.append(
      (
        f'{rho:.1f}'.replace('-', '−'),
        f'{none.level:.4f} ± {2 * none.error:.4f}',
        f'{paper.theta:.3f}: {paper.level:.4f} ± {2 * paper.error:.4f}',
        f'{best.theta:.3f}: {best.level:.4f} ± {2 * best.error:.4f}',
      )
    )
  head = ('ρ/σ²', 'θ = 0', 'θ = 1/(1+δ)', 'θ*')
  return (
    '<h2>Which θ</h2><p>E‖∇F‖² that stays (± 2 standard errors), δ = 2. With '
    'ρ = 0 the paper’s θ is the best; otherwise '
    'θ* = (σ² − ρ)/(σ² + δσ² − 2ρ) is, and for a large ρ the paper’s θ can be '
    'worse than none. That the points lie below m(θ) where it is large is F’s '
    'doing: it is flatter away from its minimum.</p>' + _table(head, cells)
  )


def _exponents(counts: Sequence[Iterations], levels: Sequence[Level]) -> str:
  sgd, tsla = (study.counted(counts, name) for name in ('SGD', 'TSLA'))
  epsilon = [row.epsilon2**0.5 for row in tsla]
  average = [row.average for row in tsla]
  by_delta = study.fit(epsilon, [row.delta for row in tsla], steps=average)
  by_mse = study.fit(epsilon, [row.mse for row in tsla], steps=average)
  total = study.fit(
    epsilon,
    [row.delta for row in tsla],
    steps=[row.average + row.steps_one for row in tsla],
  )
  long = [row for row in levels if row.step_size == 1 / sandbox.L]
  level = study.fit([r.delta for r in long], steps=[r.level for r in long])
  baseline = study.exponents(sgd, 'average')
  last = study.exponents(tsla, 'last')
  cells = [
    ('SGD, steps: of ε', *_reading(-4, baseline)),
    ('TSLA, stage two: of ε', *_reading(-4, by_delta)),
    ('TSLA, stage two: of δ', *_reading(1, by_delta, 1)),
    ('TSLA, stage two: of m(θ) in place of δ', *_reading(1, by_mse, 1)),
    ('TSLA, both stages: of ε', *_reading(-4, total)),
    ('TSLA, both stages: of δ', *_reading(1, total, 1)),
    ('LSR, level: of δ', *_reading(1, level)),
    ('SGD, last iterate: of ε', *_reading(-4, study.exponents(sgd, 'last'))),
    ('TSLA, last iterate: of ε', *_reading(-4, last)),
    ('TSLA, last iterate: of δ', *_reading(1, last, 1)),
  ]
  head = ('exponent', 'expected', 'fitted', 'points', 'expected one is')
  return f"""<h2>The exponents</h2>{_table(head, cells)}
<p>Least squares in logarithms; 95 % intervals by Student’s t from residuals,
each point from trajectories of its own. They cover chance, not curvature: an
interval that misses by a few hundredths shows that no power law is exact.
TSLA’s points are those with ε² ≤ m(θ)/4, where stage two has something to do.
T₁ grows with log(1/δ) only, so both stages together look flatter as long as T₂
is not much longer. For the last iterate the expectation is what 1/ε⁴ and δ/ε⁴
would say of it; they are proved of the average.</p>"""


def _reading(expected: float, fit: Fit, index: int = 0) -> tuple[str, ...]:
  off = abs(fit.exponents[index] - expected)
  inside = off <= fit.half_widths[index]
  return (
    f'{expected:g}'.replace('-', '−'),
    _pm(fit, index),
    str(fit.points),
    'inside' if inside else f'outside, off by {off:.2f}',
  )


def _power(fit: Fit, index: int = 0) -> str:
  return f'<sup>{_pm(fit, index)}</sup>'


def _pm(fit: Fit, index: int = 0) -> str:
  value, width = fit.exponents[index], fit.half_widths[index]
  digits = 2 if width >= 0.005 else 3
  return f'{value:.{digits}f} ± {width:.{digits}f}'.replace('-', '−')


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  def line(cells: Sequence[str], tag: str) -> str:
    return '<tr>' + ''.join(f'<{tag}>{c}</{tag}>' for c in cells) + '</tr>'

  body = '\n'.join(line(row, 'td') for row in rows)
  return f'<table>{line(head, "th")}\n{body}</table>'


def _figure(svg: str, caption: str) -> str:
  return f'<figure>{svg}<figcaption>{caption}</figcaption></figure>'
