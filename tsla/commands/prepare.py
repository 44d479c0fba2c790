"""Fetches and builds a data set, and decodes it for the runs to come.

  python -m tsla prepare cifar100 [--archive=FILE]
  python -m tsla prepare imagenet2012 --data_dir=DIR --image_size=256
  python -m tsla prepare folder --data_dir=DIR --image_size=256

One of the project's own sets is built; one that is there is only checked. With
--image_size, and of any other data.name, the images are decoded to that size as
a run would do it, so that a damaged one is found before. It may be interrupted
and goes on. ImageNet at 256 pixels takes 262 GB beside the set.
"""

from tsla.commands.parser import Parser, command
from tsla.config.forms import default_config
from tsla.config.schema import FIELDS
from tsla.data import datasets
from tsla.data.builders import BUILDERS
from tsla.data.prepare import data_root, prepare
from tsla.errors import InputError


@command
def main(parser: Parser) -> None:
  """Runs the command line."""
  add = parser.add_argument
  own = ', '.join(sorted(BUILDERS))
  add('name', help=f'{own}, or any data.name whose files are there')
  add('--data_dir', default='', help="as data.path; '' = TFDS's default")
  add('--archive', action='append', help='one fetched by hand; once for each')
  add('--image_size', type=int, default=0, help='as data.image_size')
  add('--skip_corrupt', action='store_true', help='leaves damaged images out')
  args = parser.parse_args()
  size = FIELDS['data.image_size']
  if not size.check(args.image_size):
    problem = f'--image_size={args.image_size}'
    raise InputError(problem, allowed=size.allowed, cure='--image_size=256')
  root = data_root(args.data_dir)
  other = args.name == 'folder' or (root / args.name.replace(':', '/')).is_dir()
  if args.name in BUILDERS or not other:
    print(prepare(args.name, args.data_dir, args.archive or ()))
  if args.image_size or (other and args.name not in BUILDERS):
    data = default_config().data
    data.update(name=args.name, path=args.data_dir)
    data.update(image_size=args.image_size, skip_corrupt=args.skip_corrupt)
    dataset = datasets.load_dataset(data)
    for split, part in dataset.splits.items():
      size = f'{part.images.nbytes / 1e9:.1f} GB'
      print(f'{split}: {len(part.labels):,} images, {size} decoded')
    for note in dataset.notes:
      print(note)
