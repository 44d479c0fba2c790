"""Prints what is proved of SGD, LSR and TSLA; with `--out`, writes the page."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from tsla.errors import InputError
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


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    raise InputError(message, cure=f'{self.prog} --help')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit status, 2 for bad input."""
  parser = _Parser(
    prog='python -m tsla theory',
    description='Prints how many steps SGD, LSR and TSLA need, as proved.',
  )
  add = parser.add_argument
  for name, (default, meaning) in _FLAGS.items():
    text = f'{meaning}; default %(default)g'
    add(f'--{name}', type=float, default=default, help=text)
  add(
    '--rho',
    type=float,
    help='ρ, the correlation of the two errors; without it the table holds for '
    'any',
  )
  add(
    '--out',
    type=pathlib.Path,
    help='also simulate a problem with every constant known (a minute or two, '
    'whatever the flags above) and write theory.html and its figures there',
  )
  try:
    args = vars(parser.parse_args(argv))
    out, epsilon = args.pop('out'), args.pop('epsilon')
    print(complexity_table(Problem(**args), epsilon))
    if out is not None:
      print(f'\n{_write_page(out)}')
  except InputError as error:
    print(error, file=sys.stderr)
    return 2
  return 0


def _write_page(folder: pathlib.Path) -> pathlib.Path:
  try:  # The table needs jax and optax alone.
    from tsla.theory.page import write_page
  except ImportError as error:
    raise InputError(
      f'--out={folder}: {error}',
      cure=f'pip install {error.name}, or -r requirements.txt',
    ) from error
  return write_page(folder, Grid())
