"""Tries a smoothing method on small batches, before it trains a network.

  python -m tsla check-method max_suppression
  python -m tsla check-method mine.py:margin --options=m=5

A line for each promise of a method; where it isn't kept, what is wrong and what
to do. It runs on the CPU.

Exit codes: 0 all are kept, 1 one is not, 2 there is no such method.
"""

import jax

from tsla import programs
from tsla.commands.parser import Parser, command
from tsla.config import forms, tables
from tsla.smoothing.method_checks import examine


@command
def main(parser: Parser) -> int:
  """Runs the command line; returns the exit code."""
  names = ', '.join(tables.METHODS)
  parser.add_argument('method', help=f'{names}, or FILE.py:name')
  parser.add_argument('--options', default='', help='as m=5, temperature=2.0')
  args = parser.parse_args()
  if not (args.method in tables.METHODS or programs.is_own(args.method)):
    parser.error(f'{args.method!r}: no method; there are {names}, FILE.py:name')
  smoothing = forms.default_config().smoothing
  smoothing.update(target='', schedule='', **vars(args))
  method = tables.method_of(smoothing)
  jax.config.update('jax_platforms', 'cpu')
  shown = set()
  for name, wrong in examine(method):
    text = f'WRONG {name}: {"as above" if wrong in shown else wrong}'
    print(text if wrong else f'ok    {name}', flush=True)
    shown.add(wrong)
  return int(shown != {''})
