"""The figures of the theory page; one colour a method."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tsla.pages import figures
from tsla.theory import bounds, study, toy_problem
from tsla.theory.study import Curve, Iterations, Level

COLOURS = {
  'SGD': figures.COLOURS[1],
  'LSR': figures.COLOURS[2],
  'TSLA': figures.COLOURS[3],
  'long steps': '#7f7f7f',
}
_RAISED = str.maketrans('-.0123456789', '⁻·⁰¹²³⁴⁵⁶⁷⁸⁹')


@figures.styled
def example(curves: Sequence[Curve], epsilon2: float) -> Figure:
  """E‖∇F‖² on the way: of the iterate, and averaged with its bound."""
  figure, (left, right) = figures.panels(1, 2, 4.4)
  for curve in curves:
    colour = COLOURS[curve.method]
    width = 4 if curve.method == 'LSR' else 1.5  # TSLA lies on it at first
    look = {'color': colour, 'label': curve.method}
    left.loglog(*_thinned(curve.iterate), lw=width, **look)
    right.loglog(*_thinned(curve.average), **look)
    right.loglog(*_thinned(curve.bound), color=colour, ls='--', lw=1)
    if curve.steps_one:
      left.axvline(curve.steps_one, color=colour, lw=1, ls=':')
      place = curve.steps_one * 0.85, epsilon2 / 5
      text = 'from here θ = 0\nand shorter steps'
      left.annotate(text, place, color=colour, ha='right')
  for axes in (left, right):
    axes.axhline(epsilon2, color='black', lw=0.8)
    axes.text(1.2, epsilon2 * 1.1, 'ε²')
    axes.set(xlabel='step t', xlim=(1, None), ylim=(epsilon2 / 6, 60))
    _label_powers(axes.xaxis, axes.yaxis)
  left.set(ylabel='E‖∇F‖² at w_t', title='At the iterate')
  title = 'Averaged (TSLA: stage two); dashed: proved'
  right.set(ylabel='E‖∇F‖², averaged up to t', title=title)
  left.legend(loc='upper right')
  return figure


@figures.styled
def levels(rows: Sequence[Level]) -> Figure:
  """Where LSR stays, against δ."""
  figure, (axes,) = figures.panels(1, 1, 4.4)
  colour = COLOURS['LSR']
  delta = np.geomspace(min(r.delta for r in rows), max(r.delta for r in rows))
  mse, bias2 = delta / (1 + delta), delta / 2 / (1 + delta) ** 2
  axes.loglog(delta, mse, color=colour, label='m(θ) = δσ²/(1+δ)')
  label = 'θ²‖b‖², the bias alone'
  axes.loglog(delta, bias2, color=colour, ls=':', label=label)
  for divisor, face in ((1, colour), (16, 'white')):
    step_size = 1 / (divisor * toy_problem.L)
    some = [row for row in rows if row.step_size == step_size]
    x, y = [row.delta for row in some], [row.level for row in some]
    label = f'LSR, η = 1/{1 / step_size:.0f}, simulated'
    look = {'fmt': 'o', 'color': colour, 'mfc': face, 'label': label}
    axes.errorbar(x, y, [2 * row.error for row in some], **look)
  sgd = {'color': COLOURS['SGD']}
  axes.axhline(1, **sgd)
  axes.text(delta[0], 0.9, 'σ²: SGD with steps of 1/L', va='top', **sgd)
  xlabel = 'δ (σ² = 1, half of δσ² is bias, ρ = 0)'
  axes.set(xlabel=xlabel, ylabel='E‖∇F‖² that stays')
  _label_powers(axes.xaxis, axes.yaxis)
  axes.legend(loc='lower right')
  return figure


@figures.styled
def iterations(rows: Sequence[Iterations]) -> Figure:
  """Steps to ε: by the average of the iterates, and by the last one."""
  figure, panels = figures.panels(1, 2, 5.0)
  for axes, count in zip(panels, ('average', 'last'), strict=True):
    for method in ('SGD', 'long steps', 'TSLA'):
      _draw_steps(axes, rows, method, count)
    axes.set(xlabel='ε', xlim=(0.02, 0.6), ylim=(5, 5e8))
    axes.set_xticks(ticks := [0.05, 0.1, 0.2, 0.4], [str(x) for x in ticks])
    axes.minorticks_off()
    _label_powers(axes.yaxis)
    axes.legend(loc='upper right')
  panels[0].set_ylabel('steps (but SGD: of stage two)')
  panels[0].set_title('Average of the iterates; dashed: proved')
  panels[1].set_title('Last iterate')
  return figure


@figures.styled
def thetas(rows: Sequence[Level]) -> Figure:
  """LSR's level against θ, a panel for each ρ."""
  rhos = sorted({row.rho for row in rows})
  figure, panels = figures.panels(1, len(rhos), 3.8)
  grid = np.linspace(0, 1, 201)
  colour = COLOURS['LSR']
  for axes, rho in zip(panels, rhos, strict=True):
    some = [row for row in rows if row.rho == rho]
    noise = toy_problem.Noise(sigma2=1, delta=some[0].delta)
    problem = toy_problem.problem(noise)._replace(rho=rho)
    curve = [bounds.mean_square_error(problem, theta) for theta in grid]
    axes.plot(grid, curve, color=colour, label='m(θ)')
    x, y = [row.theta for row in some], [row.level for row in some]
    axes.plot(x, y, 'o', color=colour, ms=4, label='E‖∇F‖², simulated')
    paper, best = bounds.theta_paper(problem), bounds.theta_star(problem)
    axes.axvline(paper, color='black', lw=1, label='θ = 1/(1+δ)')
    axes.axvline(best, color='black', lw=1.5, ls=':', label='θ*')
    title = f'ρ = {rho:.1f} σ²'.replace('-', '−')
    axes.set(title=title, xlabel='θ', ylim=(0, 2.1))
  panels[0].set_ylabel('E‖∇F‖² that stays')
  panels[-1].legend(loc='lower right')
  return figure


def _label_powers(*logarithmic: Axis) -> None:
  """Labels the powers of ten of an axis, without mathtext."""

  def label(value: float, _: int) -> str:
    return '10' + str(round(math.log10(value))).translate(_RAISED)

  for axis in logarithmic:
    axis.set_major_formatter(FuncFormatter(label))
    axis.set_minor_formatter(NullFormatter())


def _draw_steps(
  axes: Axes, rows: Sequence[Iterations], method: str, count: str
) -> None:
  """Steps against ε, a line for each δ, and below an average what is proved."""
  fit = study.exponents(rows, method, count)
  powers = zip('εδ', fit.exponents, strict=False)
  law = ' '.join(name + f'{x:.2f}'.translate(_RAISED) for name, x in powers)
  look, counted = {'color': COLOURS[method]}, study.counted(rows, method)
  deltas = sorted({row.delta for row in counted})
  for delta in deltas:
    some = [row for row in counted if row.delta == delta]
    epsilon = [row.epsilon2**0.5 for row in some]
    steps = [getattr(row, count) for row in some]
    last = delta == deltas[-1]
    label = f'{method}: {law}' if last else None
    axes.loglog(epsilon, steps, 'o-', label=label, **look)
    if last and count == 'average':
      axes.loglog(epsilon, [row.bound for row in some], '--', lw=1, **look)
    if method == 'TSLA' and (last or delta == deltas[0]):
      text, end = f'δ = 1/{1 / delta:.0f}', (epsilon[-1], steps[-1])
      place = {'xytext': (-8, 6 if last else -6), 'ha': 'right', 'va': 'center'}
      axes.annotate(text, end, textcoords='offset points', **place, **look)


def _thinned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Means over 30 bins a decade of t = 1, 2, …, for a logarithmic axis."""
  count = len(values)
  edges = np.geomspace(1, count + 1, math.ceil(30 * math.log10(count + 1)))
  edges = np.unique(edges.astype(int))
  starts = edges[:-1] - 1
  sums = np.add.reduceat(values, starts)
  widths = np.diff(np.append(starts, count))
  return starts + (widths + 1) / 2, sums / widths
