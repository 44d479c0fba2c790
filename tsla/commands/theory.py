"""`python -m tsla theory`: the complexity table, and the page with `--out`."""

import argparse
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from tsla.errors import InputError
from tsla.theory import bounds, page, study
from tsla.theory.bounds import Plan, Problem

_HELP = {
  'L': 'smoothness of F',
  'mu': 'Polyak–Łojasiewicz constant, 2μ(F − F*) ≤ ‖∇F‖²',
  'sigma2': 'σ², mean square error of the gradient against the true label',
  'delta': 'δ, that against the smoothing label in units of σ²',
  'F0': 'F(w_0) − F*',
}


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    raise InputError(message, cure=f'{self.prog} --help')


def table(problem: Problem, epsilon: float) -> str:
  """What is proved of the three methods, as text."""
  sgd, lsr, tsla = (
    method(problem, epsilon) for method in (bounds.sgd, bounds.lsr, bounds.tsla)
  )
  known = {name: x for name, x in problem._asdict().items() if x is not None}
  given = ', '.join(f'{name} = {x:g}' for name, x in known.items())
  head = ('', 'θ', 'η₁', 'T₁', 'η₂', 'T₂', 'steps', 'order')
  orders = ('1/ε⁴', '1/ε²' if lsr.steps < math.inf else 'never', 'δ/ε⁴')
  plans = zip(('SGD', 'LSR', 'TSLA'), (sgd, lsr, tsla), orders, strict=True)
  rows = [head, *(_row(*plan) for plan in plans)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    '  '.join(
      cell.rjust(width) for cell, width in zip(row, widths, strict=True)
    )
    for row in rows
  ]
  mse = bounds.mean_square_error(problem, lsr.theta)
  floor = math.ceil(2 * problem.L * problem.F0 / mse) if mse else math.inf
  return '\n'.join(
    [
      f'{given}; steps until E‖∇F‖² ≤ ε² = {epsilon**2:g}, as proved:',
      '',
      *lines,
      '',
      f"LSR's own level is m(θ) = {mse:.4g}; it takes {_count(floor)} steps to "
      'come down to twice that.',
    ]
  )


def _row(name: str, plan: Plan, order: str) -> tuple[str, ...]:
  one, two = plan.steps_one > 0, plan.steps_two > 0
  return (
    name,
    f'{plan.theta:.4g}',
    f'{plan.step_one:.3g}' if one else '-',
    _count(plan.steps_one),
    f'{plan.step_two:.3g}' if two else '-',
    _count(plan.steps_two),
    _count(plan.steps),
    order,
  )


def _count(steps: float) -> str:
  return '∞' if math.isinf(steps) else f'{steps:,.0f}'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit status, 2 for bad input."""
  parser = _Parser(
    prog='python -m tsla theory',
    description='Prints how many steps SGD, LSR and TSLA need, as proved.',
  )
  # The problem that --out simulates.
  defaults = {'L': 8.0, 'mu': 1 / 32, 'sigma2': 1.0, 'delta': 0.125, 'F0': 9.06}
  for name, value in defaults.items():
    text = f'{_HELP[name]}; default %(default)g'
    parser.add_argument(f'--{name}', type=float, default=value, help=text)
  parser.add_argument(
    '--rho',
    type=float,
    help='ρ, the correlation of the two errors; without it the table holds for '
    'any',
  )
  parser.add_argument(
    '--epsilon',
    type=float,
    default=0.1,
    help='ε of E‖∇F‖² ≤ ε²; default %(default)g',
  )
  parser.add_argument(
    '--out',
    type=pathlib.Path,
    help='also simulate a problem with every constant known (a minute or two, '
    'whatever the flags above) and write theory.html and its figures there',
  )
  try:
    args = vars(parser.parse_args(argv))
    out, epsilon = args.pop('out'), args.pop('epsilon')
    print(table(Problem(**args), epsilon))
    if out is not None:
      print(f'\n{page.write(out, study.Grid())}')
  except InputError as error:
    print(error, file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())
