"""Prints what is proved of SGD, LSR and TSLA; with --out, writes the page."""

import pathlib
from collections.abc import Sequence

from tsla.commands.parser import Parser, command
from tsla.theory.bounds import Problem
from tsla.theory.complexity import complexity_table
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
def main(argv: Sequence[str]) -> int:
  """Runs the command line; returns the exit code."""
  parser = Parser('theory', __doc__)
  add = parser.add_argument
  for name, (default, meaning) in _FLAGS.items():
    text = f'{meaning}; default %(default)g'
    add(f'--{name}', type=float, default=default, help=text)
  text = 'ρ, correlation of the two errors; default: any'
  add('--rho', type=float, help=text)
  text = 'also simulate the problem of the defaults and write theory.html there'
  add('--out', type=pathlib.Path, help=f'{text} (a minute or two)')
  args = vars(parser.parse_args(argv))
  out, epsilon = args.pop('out'), args.pop('epsilon')
  print(complexity_table(Problem(**args), epsilon))
  if out is not None:
    from tsla.theory.page import write_page  # needs more than jax and optax

    print(f'\n{write_page(out, Grid())}')
  return 0
