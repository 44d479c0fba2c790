"""Fetches and builds one of the project's own data sets.

  python -m tsla prepare cifar100 [--archive=FILE]

A set that is already there is only checked.
"""

from tsla.commands.parser import Parser, command
from tsla.data.builders import BUILDERS
from tsla.data.prepare import prepare


@command
def main(parser: Parser) -> None:
  """Runs the command line."""
  add = parser.add_argument
  add('name', help=', '.join(sorted(BUILDERS)))
  add('--data_dir', default='', help="'' = TFDS's default")
  add('--archive', action='append', help='one fetched by hand; once for each')
  args = parser.parse_args()
  print(prepare(args.name, args.data_dir, args.archive or ()))
