"""Says of which class images are, and how sure a finished run is of it.

  python -m tsla predict RUN IMAGE... | FOLDER | FILE.npz [--out=FILE]

An .npz holds `images`, or the `test_images` of a set. An .npz that is written
holds all probabilities too. Images that cannot be read are named and left out.
A name that several classes have is followed by the label's number.

Exit codes: 0 all were read, 1 some were left out, 2 bad input.
"""

import collections
import csv
import io
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from tsla import files
from tsla.commands.parser import Parser, command
from tsla.data import images, npz
from tsla.data.folders import SUFFIXES
from tsla.errors import InputError
from tsla.runs.environment import keep_compiled
from tsla.training import finished

_BATCH = 32  # always: one program, which the next call finds compiled
_TOP = 5
_FORMS = ('.csv', '.jsonl', '.npz')


@command
def main(parser: Parser) -> int:
  """Runs the command line; returns the exit code."""
  add = parser.add_argument
  add('run', help='the directory of a finished run')
  add('images', nargs='+', type=pathlib.Path, help='images, folders, .npz')
  add('--out', type=pathlib.Path, help=f'a file: {", ".join(_FORMS)}')
  args = parser.parse_args()
  if args.out and args.out.suffix not in _FORMS:
    raise InputError(f'--out={args.out}', allowed=', '.join(_FORMS))
  if missing := [str(path) for path in args.images if not os.path.exists(path)]:
    some = ', '.join(missing[:_TOP]) + ', …' * (len(missing) > _TOP)
    raise InputError(f'not found, or not readable: {some}')
  keep_compiled()
  network = finished.load(args.run, args.run)
  description, ids, parts = network.description, [], []
  logits_of, left_out = network.compiled(), []
  found = _read(args.images, tuple(description['image_shape']), left_out)
  while part := list(itertools.islice(found, _BATCH)):
    names, pixels = zip(*part, strict=True)
    ids += names
    parts.append(finished.in_batches(logits_of, np.stack(pixels), _BATCH))
  if not ids:
    raise InputError('no image that can be read', allowed=', '.join(SUFFIXES))
  logits = np.concatenate(parts).astype(np.float64)
  p = softmax(logits / description['temperature'], axis=1)
  times = collections.Counter(names := description['class_names'])
  names = [n if times[n] == 1 else f'{n} ({k})' for k, n in enumerate(names)]
  with files.untrusted(f'--out={args.out}'):
    _show(args.out, ids, p, names)
  return int(bool(left_out))


def _read(
  paths: Sequence[pathlib.Path], shape: tuple[int, ...], left_out: list[str]
) -> Iterator[tuple[str, np.ndarray]]:
  """Names and pixels as the network takes them; says what is left out."""
  side = shape[0] if shape[0] == shape[1] else 0
  for path in paths:
    if path.suffix == '.npz':
      stored = npz.read_images(path)
      names = [f'{path}[{index}]' for index in range(len(stored))]
      found = (images.convert(i, shape[2], side) for i in stored)
    else:
      below = sorted(path.rglob('*')) if path.is_dir() else [path]
      below = [f for f in below if f == path or f.suffix.lower() in SUFFIXES]
      names = [str(file) for file in below]
      encoded = zip(names, below, strict=True)
      decoded = images.decode_all(encoded, channels=shape[2], size=side)
      found = (pixels for pixels, _ in decoded)
    for name, pixels in zip(names, found, strict=True):
      if getattr(pixels, 'shape', ()) == shape:
        yield name, pixels
        continue
      left_out.append(name)
      why = getattr(pixels, 'problem', f'{name}: not of shape {shape}')
      print(f'{why}; left out', file=sys.stderr)


def _show(
  out: pathlib.Path | None,
  ids: Sequence[str],
  p: np.ndarray,
  class_names: Sequence[str],
) -> None:
  """Prints the most probable classes, or writes them to a file."""
  # Equal ones in the order of the classes, as top-1 is counted.
  best = np.argsort(-p, axis=1, kind='stable')[:, :_TOP]
  columns: dict[str, Any] = {'image': ids}
  for n, label in enumerate(best.T):
    rank = f'_{n + 1}' if n else ''
    columns[f'class{rank}'] = [class_names[k] for k in label]
    columns[f'confidence{rank}'] = p[np.arange(len(p)), label].tolist()
  rows = list(zip(*columns.values(), strict=True))
  if out is None:
    wide = max(map(len, ids))
    for name, *top in rows:
      texts = [v if isinstance(v, str) else f'{v:.4f}' for v in top]
      print(f'{name:{wide}}  {"  ".join(texts)}')
  elif out.suffix == '.npz':
    np.savez(file := io.BytesIO(), **columns, probabilities=p)
    files.write_whole(out, file.getvalue())
  elif out.suffix == '.csv':
    csv.writer(text := io.StringIO()).writerows([columns, *rows])
    files.write_whole(out, text.getvalue())
  else:
    lines = [json.dumps(dict(zip(columns, r, strict=True))) for r in rows]
    files.write_whole(out, '\n'.join([*lines, '']))
  if out:
    print(f'{out}: {len(rows):,} images')
