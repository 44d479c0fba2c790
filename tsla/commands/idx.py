r"""Sets in the form of MNIST, four .gz files, become one .npz file.

  python -m tsla idx --folder=/usr/share/datasets/fashion-mnist \
    --out=data/fashion_mnist.npz

That folder is the one of Debian's package dataset-fashion-mnist; MNIST, KMNIST
and EMNIST come in the same form. Then `--config.data.name=npz
--config.data.path=data/fashion_mnist.npz` trains on it.
"""

import pathlib

from tsla.commands.parser import Parser, command
from tsla.data import idx


@command
def main(parser: Parser) -> None:
  """Runs the command line."""
  add = parser.add_argument
  add('--folder', required=True, type=pathlib.Path, help='of the .gz files')
  add('--out', required=True, type=pathlib.Path, help='the .npz file to write')
  add('--train', type=int, metavar='N', help='the first N only')
  args = parser.parse_args()
  for name, array in idx.convert(args.folder, args.out, args.train).items():
    print(f'{name}: {array.dtype}{list(array.shape)}')
