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
  right.set_ylabel('E‖∇F‖², averaged up to t')
  right.set_title('Averaged (TSLA: stage two); dashed: proved')
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
  axes.set_xlabel('δ (σ² = 1, half of δσ² is bias, ρ = 0)')
  axes.set_ylabel('E‖∇F‖² that stays')
  _label_powers(axes.xaxis, axes.yaxis)
  axes.legend(loc='lower right')
  return figure


@figures.styled
def iterations(rows: Sequence[Iterations]) -> Figure:
  """Steps to ε: by the average of the iterates, and by the last one."""
  figure, panels = figures.panels(1, 2, 5.0)
  deltas = sorted({row.delta for row in rows})
  for axes, count in zip(panels, ('average', 'last'), strict=True):
    for method in ('SGD', 'long steps', 'TSLA'):
      counted = study.counted(rows, method)
      law = _power_law(study.exponents(rows, method, count))
      for delta in deltas:
        some = [row for row in counted if row.delta == delta]
        label = f'{method}: {law}' if delta == deltas[-1] else None
        _draw_steps(axes, some, count, label)
        if method == 'TSLA' and delta in (deltas[0], deltas[-1]):
          text = f'δ = 1/{1 / delta:.0f}'
          end = some[-1].epsilon2 ** 0.5, getattr(some[-1], count)
          beside = (-8, 6 if delta == deltas[-1] else -6)
          look = {'color': COLOURS[method], 'ha': 'right', 'va': 'center'}
          axes.annotate(text, end, beside, textcoords='offset points', **look)
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
    problem = bounds.Problem(
      L=toy_problem.L, mu=1, sigma2=1, delta=some[0].delta, F0=1, rho=rho
    )
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


def _power_law(fit: study.Fit) -> str:
  """The fit as a label, such as ε⁻⁴·⁰² δ⁰·⁹⁸."""
  parts = zip('εδ', fit.exponents, strict=False)
  return ' '.join(name + f'{x:.2f}'.translate(_RAISED) for name, x in parts)


def _label_powers(*logarithmic: Axis) -> None:
  """Labels the powers of ten of an axis, without mathtext."""

  def label(value: float, _: int) -> str:
    return '10' + str(round(math.log10(value))).translate(_RAISED)

  for axis in logarithmic:
    axis.set_major_formatter(FuncFormatter(label))
    axis.set_minor_formatter(NullFormatter())


def _draw_steps(
  axes: Axes, rows: Sequence[Iterations], count: str, label: str | None
) -> None:
  """One line of steps against ε, and under an average what is proved of it."""
  if not rows:
    return
  epsilon = [row.epsilon2**0.5 for row in rows]
  colour = COLOURS[rows[0].method]
  steps = [getattr(row, count) for row in rows]
  axes.loglog(epsilon, steps, 'o-', color=colour, label=label)
  if count == 'average' and label:
    axes.loglog(epsilon, [row.bound for row in rows], '--', color=colour, lw=1)


def _thinned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Means over 30 bins a decade of t = 1, 2, …, for a logarithmic axis."""
  count = len(values)
  edges = np.geomspace(1, count + 1, math.ceil(30 * math.log10(count + 1)))
  edges = np.unique(edges.astype(int))
  starts = edges[:-1] - 1
  sums = np.add.reduceat(values, starts)
  widths = np.diff(np.append(starts, count))
  return starts + (widths + 1) / 2, sums / widths
