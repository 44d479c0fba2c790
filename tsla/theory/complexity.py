"""What is proved of the three methods, as a table of text."""

import math

from tsla.theory import bounds
from tsla.theory.bounds import Plan, Problem


def complexity_table(problem: Problem, epsilon: float) -> str:
  """Steps of SGD, LSR and TSLA until E‖∇F‖² ≤ ε², and LSR's own level."""
  sgd, lsr, tsla = (
    method(problem, epsilon) for method in (bounds.sgd, bounds.lsr, bounds.tsla)
  )
  rows = [
    ('', 'θ', 'η₁', 'T₁', 'η₂', 'T₂', 'steps', 'order'),
    ('SGD', *_cells(sgd), '1/ε⁴'),
    ('LSR', *_cells(lsr), '1/ε²' if lsr.steps < math.inf else 'never'),
    ('TSLA', *_cells(tsla), 'δ/ε⁴'),
  ]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = ['  '.join(map(str.rjust, row, widths)) for row in rows]
  known = {name: x for name, x in problem._asdict().items() if x is not None}
  given = ', '.join(f'{name} = {x:g}' for name, x in known.items())
  mse = bounds.mean_square_error(problem, lsr.theta)
  floor = math.ceil(2 * problem.L * problem.F0 / mse) if mse else math.inf
  head = f'{given}; steps until E‖∇F‖² ≤ ε² = {epsilon**2:g}, as proved:\n'
  down = f'it takes {_count(floor)} steps to come down to twice that.'
  tail = f"\nLSR's own level is m(θ) = {mse:.4g}; {down}"
  return '\n'.join([head, *lines, tail])


def _cells(plan: Plan) -> tuple[str, ...]:
  stages = (plan.step_one, plan.steps_one), (plan.step_two, plan.steps_two)
  cells = [f'{plan.theta:.4g}']
  for size, steps in stages:
    cells += [f'{size:.3g}' if steps else '-', _count(steps)]
  return (*cells, _count(plan.steps))


def _count(steps: float) -> str:
  return '∞' if math.isinf(steps) else f'{steps:,.0f}'
