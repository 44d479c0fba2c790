"""The figures of the theory page; one colour a method."""

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tsla.errors import InputError
from tsla.theory import bounds, study
from tsla.theory import toy_problem as sandbox
from tsla.theory.study import Curve, Iterations, Level

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

COLORS = {
  'SGD': '#0072b2',
  'LSR': '#d55e00',
  'TSLA': '#009e73',
  'long steps': '#7f7f7f',
}
_STYLE = {
  'font.size': 10,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.grid': True,
  'grid.color': '#e6e6e6',
  'legend.frameon': False,
  'svg.hashsalt': 'tsla',  # for the names of its parts, else random
}


@contextlib.contextmanager
def style() -> Iterator[None]:
  """What all figures share; draw them inside.

  Raises:
    InputError: matplotlib is not installed.
  """
  try:
    import matplotlib
  except ImportError as error:
    raise InputError(
      'matplotlib is not installed: it draws the figures',
      cure='pip install matplotlib',
    ) from error
  with matplotlib.rc_context(_STYLE):
    yield


def to_svg(figure: 'Figure') -> str:
  """The figure as one <svg> element; the same numbers give the same text."""
  text = io.StringIO()
  figure.savefig(text, format='svg', metadata={'Date': None})
  return text.getvalue()[text.getvalue().index('<svg') :]


def example(curves: Sequence[Curve], epsilon2: float) -> 'Figure':
  """E‖∇F‖² on the way: of the iterate, and averaged with its bound."""
  figure, (left, right) = _panels(2, 4.4)
  for curve in curves:
    color = COLORS[curve.method]
    width = 4 if curve.method == 'LSR' else 1.5  # TSLA lies on it at first
    look = {'color': color, 'label': curve.method}
    left.loglog(*_thinned(curve.iterate), lw=width, **look)
    right.loglog(*_thinned(curve.average), **look)
    right.loglog(*_thinned(curve.bound), color=color, ls='--', lw=1)
    if curve.steps_one:
      left.axvline(curve.steps_one, color=color, lw=1, ls=':')
      left.text(
        *(curve.steps_one * 0.85, epsilon2 / 5),
        'from here θ = 0\nand shorter steps',
        color=color,
        ha='right',
      )
  for axis in (left, right):
    axis.axhline(epsilon2, color='black', lw=0.8)
    axis.text(1.2, epsilon2 * 1.1, 'ε²')
    axis.set_xlabel('step t')
    axis.set_xlim(1, None)
    axis.set_ylim(epsilon2 / 6, 60)
  left.set_ylabel('E‖∇F(w$_t$)‖²')
  left.set_title('At the iterate')
  right.set_ylabel('E‖∇F‖², averaged up to t')
  right.set_title('Averaged (TSLA: stage two); dashed: proved')
  left.legend(loc='upper right')
  return figure


def levels(rows: Sequence[Level]) -> 'Figure':
  """Where LSR stays, against δ."""
  figure, (axis,) = _panels(1, 4.4)
  color = COLORS['LSR']
  delta = np.geomspace(min(r.delta for r in rows), max(r.delta for r in rows))
  axis.loglog(delta, delta / (1 + delta), color=color, label='m(θ) = δσ²/(1+δ)')
  axis.loglog(
    delta,
    delta / 2 / (1 + delta) ** 2,
    color=color,
    ls=':',
    label='θ²‖b‖², the bias alone',
  )
  for step_size, face in (
    (1 / sandbox.L, color),
    (1 / 16 / sandbox.L, 'white'),
  ):
    some = [row for row in rows if row.step_size == step_size]
    axis.errorbar(
      [row.delta for row in some],
      [row.level for row in some],
      [2 * row.error for row in some],
      ls='',
      marker='o',
      color=color,
      mfc=face,
      label=f'LSR, η = 1/{1 / step_size:.0f}, simulated',
    )
  axis.axhline(1, color=COLORS['SGD'])
  axis.text(
    delta[0], 0.9, 'σ²: SGD with steps of 1/L', color=COLORS['SGD'], va='top'
  )
  axis.set_xlabel('δ (σ² = 1, half of δσ² is bias, ρ = 0)')
  axis.set_ylabel('E‖∇F‖² that stays')
  axis.legend(loc='lower right')
  return figure


def iterations(rows: Sequence[Iterations]) -> 'Figure':
  """Steps to ε: by the average of the iterates, and by the last one."""
  figure, axes = _panels(2, 5.0)
  deltas = sorted({row.delta for row in rows})
  for axis, count in zip(axes, ('average', 'last'), strict=True):
    for method in ('SGD', 'long steps', 'TSLA'):
      counted = study.counted(rows, method)
      label = f'{method}: {power_law(study.exponents(counted, count))}'
      for delta in deltas:
        some = [row for row in counted if row.delta == delta]
        _steps(axis, some, count, label if delta == deltas[-1] else None)
        if method == 'TSLA' and delta in (deltas[0], deltas[-1]):
          above = 1 if delta == deltas[-1] else -1
          axis.annotate(
            f'δ = 1/{1 / delta:.0f}',
            (some[-1].epsilon2 ** 0.5, getattr(some[-1], count)),
            xytext=(-8, 6 * above),
            textcoords='offset points',
            ha='right',
            va='center',
            color=COLORS[method],
          )
    axis.set_xlabel('ε')
    axis.set_xlim(0.02, 0.6)
    axis.set_xticks(ticks := [0.05, 0.1, 0.2, 0.4], [str(x) for x in ticks])
    axis.minorticks_off()
    axis.set_ylim(5, 5e8)
    axis.legend(loc='upper right')
  axes[0].set_ylabel('steps (but SGD: of stage two)')
  axes[0].set_title('Average of the iterates; dashed: proved')
  axes[1].set_title('Last iterate')
  return figure


def thetas(rows: Sequence[Level]) -> 'Figure':
  """LSR's level against θ, a panel for each ρ."""
  rhos = sorted({row.rho for row in rows})
  figure, axes = _panels(len(rhos), 3.8)
  grid = np.linspace(0, 1, 201)
  color = COLORS['LSR']
  for axis, rho in zip(axes, rhos, strict=True):
    some = [row for row in rows if row.rho == rho]
    problem = bounds.Problem(
      L=sandbox.L, mu=sandbox.MU, sigma2=1, delta=some[0].delta, F0=1, rho=rho
    )
    curve = [bounds.mean_square_error(problem, theta) for theta in grid]
    axis.plot(grid, curve, color=color, label='m(θ)')
    axis.plot(
      [row.theta for row in some],
      [row.level for row in some],
      'o',
      color=color,
      ms=4,
      label='E‖∇F‖², simulated',
    )
    paper, best = bounds.theta_paper(problem), bounds.theta_star(problem)
    axis.axvline(paper, color='black', lw=1, label='θ = 1/(1+δ)')
    axis.axvline(best, color='black', lw=1.5, ls=':', label='θ*')
    axis.set_title(f'ρ = {rho:.1f} σ²'.replace('-', '−'))
    axis.set_xlabel('θ')
    axis.set_ylim(0, 2.1)
  axes[0].set_ylabel('E‖∇F‖² that stays')
  axes[-1].legend(loc='lower right', fontsize=9)
  return figure


def power_law(fit: study.Fit) -> str:
  """The fit as a label."""
  parts = zip('εδ', fit.exponents, strict=False)
  return ' '.join(f'{name}$^{{{x:.2f}}}$' for name, x in parts)


def _panels(columns: int, height: float) -> 'tuple[Figure, list[Axes]]':
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9.5, height), layout='constrained')
  return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _steps(
  axis: 'Axes', rows: Sequence[Iterations], count: str, label: str | None
) -> None:
  """One line of steps against ε, and under an average what is proved of it."""
  if not rows:
    return
  epsilon = [row.epsilon2**0.5 for row in rows]
  color = COLORS[rows[0].method]
  steps = [getattr(row, count) for row in rows]
  axis.loglog(epsilon, steps, 'o-', color=color, label=label)
  if count == 'average' and label:
    axis.loglog(epsilon, [row.bound for row in rows], '--', color=color, lw=1)


def _thinned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Means over 30 bins a decade of t = 1, 2, …, for a logarithmic axis."""
  count = len(values)
  edges = np.geomspace(1, count + 1, math.ceil(30 * math.log10(count + 1)))
  edges = np.unique(edges.astype(int))
  starts = edges[:-1] - 1
  sums = np.add.reduceat(values, starts)
  widths = np.diff(np.append(starts, count))
  return starts + (widths + 1) / 2, sums / widths
