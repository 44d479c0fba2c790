"""Says what a finished run is worth on a split: test, validation, train, all.

  python -m tsla evaluate RUN
  python -m tsla evaluate RUN --data.path=FILE.npz
  python -m tsla evaluate RUN --data.path=DIR --split=all

Of its own test and validation split a run keeps its predictions, so that its
data need not be there. The classes of another set are found by their names; it
may be an .npz without training arrays, and nothing is written where it lies. Of
a folder without test/, a fifth is the test split.
"""

import contextlib
import sys

import numpy as np

from tsla.commands.parser import Parser, command
from tsla.config.schema import Section
from tsla.data import datasets, sources
from tsla.data.datasets import Split
from tsla.errors import InputError
from tsla.evaluation import card
from tsla.report.comparison import FIGURES, METRICS
from tsla.runs.directory import RunRecord, read_run
from tsla.runs.environment import keep_compiled
from tsla.runs.predictions import Predictions, scores
from tsla.training import finished


@command
def main(parser: Parser) -> int:
  """Runs the command line; returns the exit code."""
  add = parser.add_argument
  add('run', help='the directory of a finished run')
  add('--data.name', dest='name', help="another set; default: the run's own")
  add('--data.path', dest='path', default='', help='where it lies')
  add('--split', default='test', help='default: test')
  args = parser.parse_args()
  run = read_run(args.run, args.run)
  temperature, data = run.network(args.run)['temperature'], run.config.data
  if not (own := not (args.name or args.path)):
    data.update(path=args.path, validation=0.0, label_noise=0.0)
    data.name = args.name or _name_of(args.path, data.name)
    data.download &= not args.path
  where = f'data.name = {data.name!r}, data.path = {data.path!r}'
  predicted = run.predictions(args.split) if own else None
  predicted = predicted or _predict(run, data, where, own, args.split)
  found = f'{args.split}, {len(predicted["labels"])} images'
  print(f'{args.run}: {found}' + f' of {where}' * (not own))
  if (noise := data.label_noise) and args.split != 'test':
    print(f'data.label_noise: {noise:g} of train and validation labels wrong')
  ways = {1.0: 'as trained'}
  ways.setdefault(temperature, f'temperature {temperature:.3f}')
  found = [card.figures(scores(predicted, divisor)) for divisor in ways]
  print(f'{"":27}', *(f'{way:>17}' for way in ways.values()))
  for metric in (METRICS[0], *FIGURES):
    if metric.name in found[0]:
      texts = (metric.text(values[metric.name]) for values in found)
      print(f'{metric.label:27}', *(f'{text:>17}' for text in texts))
  return 0


def _name_of(path: str, known: str) -> str:
  """The `data.name` of what lies there: images, or the `known` prepared set."""
  if path.endswith('.npz'):
    return 'npz'
  with contextlib.suppress(InputError, OSError):
    sources.find_tfds(known, path, download=False)
    return known
  return 'folder'


def _predict(
  run: RunRecord, data: Section, where: str, own: bool, split: str
) -> Predictions:
  """What a run predicts of a split of its own data, or another set's."""
  keep_compiled()
  network = finished.load(run.path, str(run.path))
  description = network.description
  names, shape = description['class_names'], description['image_shape']
  if not own:  # as the images that it was trained on
    data.image_size = shape[0] if shape[0] == shape[1] else 0
  dataset = datasets.load_dataset(data, to_train=False)
  for note in dataset.notes:  # such as which images are the test set
    print(f'{where}: {note}', file=sys.stderr)
  splits, there = dataset.splits, [*dataset.class_names]
  picked = splits if split == 'all' else {split: splits.get(split)}
  changed = own and dataset.fingerprint != run.fingerprint
  if there == names:  # nothing is mapped, and several may have one name
    there = names = [*range(len(names))]
  vague = [n for n in there if {names.count(n), there.count(n)} != {1}]
  for problem, allowed in (
    (vague, f'classes of {names}, no name twice; not {vague[:3]}'),
    (dataset.image_shape != tuple(shape), f'images of (H, W, C) = {shape}'),
    (None in picked.values(), f'--split of {", ".join([*splits, "all"])}'),
    (changed, f'the data of the run, with SHA-256 {run.fingerprint[:12]}…'),
  ):
    if problem:
      raise InputError(f'{where} does not fit the run', allowed=allowed)
  labels = np.array([names.index(n) for n in there], np.int32)
  mapped = {k: Split(s.images, labels[s.labels]) for k, s in picked.items()}
  found = [*network.predict(mapped, run.config.eval_batch_size).values()]
  return {k: np.concatenate([p[k] for p in found]) for k in found[0]}
