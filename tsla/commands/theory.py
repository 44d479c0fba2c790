"""Prints what is proved of SGD, LSR and TSLA; with --out, writes the page."""

import math
import pathlib

from tsla.commands.parser import Parser, command
from tsla.theory import bounds
from tsla.theory.bounds import Problem
from tsla.theory.study import Grid

# Defaults: the problem that --out simulates.
_FLAGS = {
  'L': (8.0, 'smoothness of F'),
  'mu': (1 / 32, 'Polyak–Łojasiewicz constant, 2μ(F − F*) ≤ ‖∇F‖²'),
  'sigma2': (1.0, 'σ², mean square error of the gradient of the true label'),
  'delta': (0.125, 'δ, that of the smoothing label in units of σ²'),
  'F0': (9.06, 'F(w_0) − F*'),
  'epsilon': (0.1, 'ε of E‖∇F‖² ≤ ε²'),
}


@command
def main(parser: Parser) -> None:
  """Runs the command line."""
  add = parser.add_argument
  for name, (default, meaning) in _FLAGS.items():
    text = f'{meaning}; default %(default)g'
    add(f'--{name}', type=float, default=default, help=text)
  text = 'ρ, correlation of the two errors; default: any'
  add('--rho', type=float, help=text)
  text = 'also simulate the problem of the defaults and write theory.html there'
  add('--out', type=pathlib.Path, help=f'{text} (a minute or two)')
  args = vars(parser.parse_args())
  out, epsilon = args.pop('out'), args.pop('epsilon')
  print(_table(Problem(**args), epsilon))
  if out is not None:
    from tsla.theory.page import write_page  # needs more than jax and optax

    print(f'\n{write_page(out, Grid())}')


def _table(problem: Problem, epsilon: float) -> str:
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


def _cells(plan: bounds.Plan) -> tuple[str, ...]:
  stages = (plan.step_one, plan.steps_one), (plan.step_two, plan.steps_two)
  cells = [f'{plan.theta:.4g}']
  for size, steps in stages:
    cells += [f'{size:.3g}' if steps else '-', _count(steps)]
  return (*cells, _count(plan.steps))


def _count(steps: float) -> str:
  return '∞' if math.isinf(steps) else f'{steps:,.0f}'
