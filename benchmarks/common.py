"""What the benchmarks share: sizes, a clock that takes turns, a JSON line.

Standard library and NumPy only, so that a peer needs no JAX.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = pathlib.Path(__file__).resolve().parent / 'results'
sys.path.insert(0, str(ROOT))

# A contender does its work once, and waits until the device has done it.
Contenders = dict[str, Callable[[], Any]]


@dataclasses.dataclass(frozen=True)
class Size:
  """A workload; `tiny` checks that a script runs, and measures nothing."""

  image: int  # side as stored
  crop: int  # side the network sees; 0: as stored
  pad: int
  channels: int
  classes: int
  examples: int
  model: str
  stem: str
  width: int
  batch: int
  steps: int  # updates a compiled call

  @property
  def side(self) -> int:
    """Side of the images that the network sees."""
    return self.crop or self.image


SIZES = {
  'tiny': Size(8, 0, 1, 1, 10, 64, 'resnet8', 'cifar', 4, 16, 2),
  'digits': Size(8, 0, 1, 1, 10, 1437, 'resnet8', 'cifar', 16, 32, 44),
  'cifar': Size(32, 0, 4, 3, 100, 50_000, 'resnet18', 'cifar', 64, 128, 39),
  'feed': Size(64, 0, 4, 3, 10, 200_000, 'resnet8', 'cifar', 16, 128, 10),
  '224': Size(256, 224, 0, 3, 120, 12_000, 'resnet18', 'imagenet', 64, 256, 46),
  'imagenet': Size(
    *(256, 224, 0, 3, 1000, 20_000, 'resnet50', 'imagenet', 64, 256, 10)
  ),
}


def arguments(about: str, **more: Any) -> argparse.ArgumentParser:
  """The options that every benchmark has, and `more` with their defaults."""
  parser = argparse.ArgumentParser(description=about)
  parser.add_argument('--size', choices=SIZES, default='cifar')
  parser.add_argument('--batch', type=int, default=0, help="0: the size's")
  parser.add_argument('--steps', type=int, default=0, help="0: the size's")
  parser.add_argument('--examples', type=int, default=0, help="0: the size's")
  parser.add_argument('--rounds', type=int, default=10)
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'))
  parser.add_argument('--no-save', action='store_true')
  for name, default in more.items():
    flag = '--' + name.replace('_', '-')
    parser.add_argument(flag, type=type(default), default=default)
  return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
  """The options, with the size's own numbers where none are given."""
  args = parser.parse_args()
  size = SIZES[args.size]
  for name in ('batch', 'steps', 'examples'):
    setattr(args, name, getattr(args, name) or getattr(size, name))
  small = args.size in ('tiny', 'digits')
  args.dtype = args.dtype or ('float32' if small else 'bfloat16')
  if args.size == 'tiny':
    args.rounds, args.no_save = min(args.rounds, 2), True
  return args


def data(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
  """Random images u8[N, H, W, C] and labels i32[N]: same shapes, same cost."""
  size, rng = SIZES[args.size], np.random.default_rng(0)
  shape = args.examples, size.image, size.image, size.channels
  images = rng.integers(256, size=shape, dtype=np.uint8)
  return images, rng.integers(size.classes, size=shape[0]).astype(np.int32)


def in_turn(contenders: Contenders, rounds: int) -> dict[str, list[float]]:
  """Seconds of each contender in every round, in turn: A B, B A, A B.

  The first, untimed, call of each compiles. What slows the machine down for a
  while slows all contenders of a round.
  """
  for run in contenders.values():
    run()
  seconds = {name: [] for name in contenders}
  order = list(contenders)
  for _ in range(rounds):
    for name in order:
      start = time.perf_counter()
      contenders[name]()
      seconds[name].append(time.perf_counter() - start)
    order.reverse()
  return seconds


def ratio(over: list[float], under: list[float]) -> dict[str, float]:
  """Median of over/under, round by round, and a 95 % bootstrap interval."""
  ratios = np.asarray(over) / np.asarray(under)
  rng = np.random.default_rng(0)
  drawn = rng.choice(ratios, (2000, len(ratios)))
  low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
  return {
    'ratio': round(float(np.median(ratios)), 4),
    'low': round(float(low), 4),
    'high': round(float(high), 4),
  }


def busy_cores(seconds: float = 1.0) -> float:
  """How many cores other processes keep busy: this one sleeps meanwhile."""

  def ticks() -> tuple[int, int]:
    fields = pathlib.Path('/proc/stat').read_text().split('\n', 1)[0].split()
    numbers = [int(field) for field in fields[1:]]
    return sum(numbers[:8]), numbers[3] + numbers[4]

  total, idle = ticks()
  time.sleep(seconds)
  total_after, idle_after = ticks()
  passed = max(1, total_after - total)
  return (1 - (idle_after - idle) / passed) * (os.cpu_count() or 1)


def versions() -> dict[str, str]:
  """Of what this process could import."""
  found = {'python': platform.python_version()}
  for package in ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'torch'):
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def record(
  name: str,
  args: argparse.Namespace,
  device: str,
  figures: dict[str, Any],
  **peers: str,
) -> None:
  """Prints a JSON line, and adds it to `results/NAME.jsonl`.

  `peers` are versions in other processes than this one.
  """
  line = {
    'benchmark': name,
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'device': device,
    'cores': os.cpu_count(),
    'size': args.size,
    'batch': args.batch,
    'dtype': args.dtype,
    'versions': versions() | peers,
    'figures': figures,
  }
  print(json.dumps(line), flush=True)
  if not args.no_save:
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f'{name}.jsonl').open('a') as file:
      file.write(json.dumps(line) + '\n')


def serve(contenders: Contenders, device: str) -> None:
  """Runs the contender named on each line of stdin, and prints its seconds.

  So `compare.py` takes turns between processes. The first line says who is
  here, and of which versions, after all have been compiled.
  """
  for run in contenders.values():
    run()
  hello = {
    'contenders': list(contenders),
    'device': device,
    'versions': versions(),
  }
  print(json.dumps(hello), flush=True)
  for line in sys.stdin:
    start = time.perf_counter()
    contenders[line.strip()]()
    print(json.dumps(time.perf_counter() - start), flush=True)


def run_contenders(
  name: str,
  args: argparse.Namespace,
  device: str,
  contenders: Contenders,
  updates: int,
) -> None:
  """Serves, or measures in turn and records images per second and ratios.

  Args:
    name: of the benchmark.
    args: parsed options, `serve` among them.
    device: in words.
    contenders: each does `updates` updates of `args.batch` images.
    updates: of each call.
  """
  if args.serve:
    serve(contenders, device)
    return
  seconds = in_turn(contenders, args.rounds)
  first = next(iter(contenders))
  figures = {}
  for each, times in seconds.items():
    speed = updates * args.batch / float(np.median(times))
    figures[each] = {'images_per_second': round(speed, 1)}
    if each != first:  # how many times as fast as the first
      figures[each] |= ratio(seconds[first], times)
  record(name, args, device, figures)
