"""Converts the weights of a ResNet to .safetensors in float32.

  python -m tsla weights --in FILE --out FILE.safetensors

Prints what went where.
"""

from tsla.commands.parser import Parser, command
from tsla.files import untrusted
from tsla.models import pretrained
from tsla.models.weight_files import FORMATS


@command
def main(parser: Parser) -> None:
  """Runs the command line."""
  parser.add_argument('--in', dest='source', required=True, help=FORMATS)
  parser.add_argument('--out', required=True, help='the file to write')
  args = parser.parse_args()
  _, variables, rows = pretrained.load_network(args.source, field='in')
  state_dict = pretrained.to_state_dict(variables)
  with untrusted(f'--out={args.out}'):
    pretrained.write_safetensors(args.out, state_dict)
  for row in rows:
    print(f'{row.name:43}{row.shape!s:20}{row.path or "-":44}{row.action}')
