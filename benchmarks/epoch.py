"""The real training path against the bare update, images per second.

python benchmarks/epoch.py --size=cifar --batch=256
"""

import common
import ours


def main() -> None:
  """Measures `real` and `bare` in turn; the goal is a ratio near 1."""
  parser = common.arguments(__doc__)
  parser.add_argument('--serve', action='store_true')
  args = common.parse(parser)
  path = ours.Ours(args)
  contenders = {
    'real': lambda: path.two_late(path.train),
    'bare': lambda: path.two_late(path.bare),
  }
  common.run_contenders('epoch', args, path.device, contenders, 2 * args.steps)


if __name__ == '__main__':
  main()
