"""Fetches and builds one of the project's own data sets.

  python -m tsla prepare cifar100 [--archive=FILE]

A set that is already there is only checked.
"""

from collections.abc import Sequence

from tsla.commands.parser import Parser, command
from tsla.data.builders import BUILDERS
from tsla.data.prepare import prepare


@command
def main(argv: Sequence[str]) -> None:
  """Runs the command line."""
  parser = Parser('prepare', __doc__)
  add = parser.add_argument
  add('name', help=', '.join(sorted(BUILDERS)))
  add('--data_dir', default='', help="'' = TFDS's default")
  add('--archive', action='append', help='one fetched by hand; once for each')
  args = parser.parse_args(argv)
  print(prepare(args.name, args.data_dir, args.archive))
