"""Converts the weights of a ResNet to .safetensors in float32.

  python -m tsla weights --in FILE --out FILE.safetensors

Prints what went where.
"""

from collections.abc import Sequence

from tsla.commands.parser import Parser, command
from tsla.errors import InputError
from tsla.models import pretrained
from tsla.models.weight_files import FORMATS


@command
def main(argv: Sequence[str]) -> None:
  """Runs the command line."""
  parser = Parser('weights', __doc__)
  parser.add_argument('--in', dest='source', required=True, help=FORMATS)
  parser.add_argument('--out', required=True, help='the file to write')
  args = parser.parse_args(argv)
  _, variables, rows = pretrained.load_network(args.source, field='in')
  state_dict = pretrained.to_state_dict(variables)
  try:
    pretrained.write_safetensors(args.out, state_dict)
  except (OSError, ValueError) as error:
    raise InputError(f'--out={args.out}: {error}') from error
  for row in rows:
    print(f'{row.name:43}{row.shape!s:20}{row.path or "-":44}{row.action}')
