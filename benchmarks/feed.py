"""A set on the device against one on the disk, images per second, in turn.

Both train the same network on the same 200,000 images of 64 pixels, which the
benchmark writes first (2.5 GB, gone at its end): `resident` gathers a batch
where the images lie, `mapped` reads what each call needs from the file while
the last one is computed, with the device's memory set to 1 GB. The goal is a
ratio of 0.95 or more. On a GPU a trace of `mapped` says how much of the copying
went on while a kernel ran. Then, without updates, what three epochs leave in
memory, and the seconds to the first batch of a run and of one that goes on in
the middle of an epoch.

  python benchmarks/feed.py --size=feed --dtype=float32
  python benchmarks/feed.py --size=imagenet --device-memory=16000000000
"""

import argparse
import os
import pathlib
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import common
import ours
from tsla.data.datasets import Dataset, Split
from tsla.training import feeds, step

_STARTS = 7  # the median of so many
_TRACED = 4  # times two calls


def write(args: argparse.Namespace, path: pathlib.Path) -> np.ndarray:
  """Random images in a file, mapped from it."""
  size, rng = common.SIZES[args.size], np.random.default_rng(0)
  row = size.image**2 * size.channels
  with path.open('wb') as file:
    for first in range(0, args.examples, 1000):
      count = min(1000, args.examples - first)
      file.write(rng.integers(256, size=(count, row), dtype=np.uint8))
  shape = args.examples, size.image, size.image, size.channels
  return np.asarray(np.memmap(path, np.uint8, 'r', shape=shape))


def megabytes() -> float:
  """What this process holds in memory of its own, without mapped files."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  values = dict(line.split(':', 1) for line in lines)
  return int(values['RssAnon'].split()[0]) / 1e3


def main() -> None:
  """Measures all of it, in one process."""
  parser = common.arguments(__doc__, epochs=3, device_memory=10**9)
  args = common.parse(parser)
  os.environ['TSLA_DEVICE_MEMORY'] = str(args.device_memory)
  with tempfile.TemporaryDirectory() as folder:
    images = write(args, pathlib.Path(folder) / 'images')
    classes, rng = common.SIZES[args.size].classes, np.random.default_rng(1)
    labels = rng.integers(classes, size=args.examples, dtype=np.int32)
    measure(args, images, labels)


def measure(
  args: argparse.Namespace, images: np.ndarray, labels: np.ndarray
) -> None:
  """As the module says."""
  resident = ours.Ours(args, data=(images, labels))
  split = Split(images, labels)
  dataset = Dataset('feed', split, split, (), '')

  def new_feeds() -> feeds.Feeds:
    return feeds.Feeds(
      *('mapped', dataset, resident.devices),
      seed=0,
      batch_size=args.batch,
      at_most=args.steps,
      total_steps=10**9,
    )

  feed, per_epoch = new_feeds(), resident.steps_per_epoch
  mapped = {'state': jax.tree.map(jnp.copy, resident.state), 'step': 0}
  inputs = resident.inputs._replace(
    examples=step.Examples(None, resident.inputs.examples.labels)
  )

  def train(length: int) -> step.TrainMetrics:
    fed = feed.updates(mapped['step'], length)
    mapped['state'], row = resident.chunk(mapped['state'], inputs, fed, length)
    mapped['step'] += length
    return row

  args.steps = feed.longest
  contenders = {
    'mapped': lambda: resident.two_late(train),
    'resident': lambda: resident.two_late(resident.train),
  }
  busy = [round(common.busy_cores(), 2)]
  seconds = common.in_turn(contenders, args.rounds)
  updates, figures = 2 * args.steps, {}
  for name, times in seconds.items():
    speed = updates * args.batch / float(np.median(times))
    figures[name] = {'images_per_second': round(speed, 1)}
  # How many times as fast as resident.
  figures['mapped'] |= common.ratio(seconds['resident'], seconds['mapped'])
  figures |= copying(trace(contenders['mapped']))

  feed, held, count = new_feeds(), [], 0
  start = time.perf_counter()
  while count < args.epochs * per_epoch:
    length = feeds.length_at(count, per_epoch, feed.longest)
    jax.block_until_ready(feed.updates(count, length))
    count += length
    if count % per_epoch == 0:
      held.append(round(megabytes(), 1))
  rate = count * args.batch / (time.perf_counter() - start)
  figures['reading'] = {'images_per_second': round(rate, 1)}
  figures['megabytes_after_epochs'] = held
  figures['first_batch'] = first_batches(new_feeds, per_epoch)
  figures['busy_cores'] = [*busy, round(common.busy_cores(), 2)]
  common.record('feed', args, resident.device, figures)


def trace(run: Callable[[], None]) -> jax.profiler.ProfileData:
  """What the profiler saw of a few calls."""
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      for _ in range(_TRACED):
        run()
    (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
    return jax.profiler.ProfileData.from_file(str(path))


def copying(data: jax.profiler.ProfileData) -> dict[str, dict[str, float]]:
  """Milliseconds of a trace in which GPUs were copied to and computed.

  `hidden` is the share of the copying during which a kernel of the same GPU
  ran. Empty for a trace without a GPU.
  """
  copied, computed, hidden, seen = 0.0, 0.0, 0.0, False
  for plane in data.planes:
    if not plane.name.startswith('/device:GPU'):
      continue
    seen = True
    events = [
      (event.name, event.start_ns, event.start_ns + event.duration_ns)
      for line in plane.lines
      if line.name.startswith('Stream')  # others say the same another way
      for event in line.events
    ]
    copies = [e[1:] for e in events if e[0].startswith('MemcpyH2D')]
    kernels = [e[1:] for e in events if not e[0].startswith(('Memcpy', 'Mems'))]
    times, busy = busy_until(np.array(kernels or [(0, 0)]))
    spans = np.array(copies or [(0, 0)])
    copied += float(np.diff(spans).sum())
    computed += float(busy[-1])
    hidden += float(np.diff(np.interp(spans, times, busy)).sum())
  if not seen:
    return {}
  share = round(hidden / copied, 4) if copied else 0.0
  milliseconds = {'copied': round(copied / 1e6, 2), 'hidden': share}
  return {'trace': milliseconds | {'computed': round(computed / 1e6, 2)}}


def busy_until(spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Times, and how long until each at least one of the spans has run.

  `spans` are begin and end, `[N, 2]`, in any order; between the times it is
  linear.
  """
  spans = spans[np.argsort(spans[:, 0], kind='stable')]
  ends = np.maximum.accumulate(spans[:, 1])
  begins = np.maximum(spans[:, 0], np.concatenate([spans[:1, 0], ends[:-1]]))
  busy = np.cumsum(lengths := ends - begins)
  columns = [begins, ends], [busy - lengths, busy]
  times, busy = (np.stack(each, axis=1).ravel() for each in columns)
  return times, busy


def first_batches(new_feeds: object, per_epoch: int) -> dict[str, float]:
  """Milliseconds until the first batch lies there, at two places of a run."""
  found = {'fresh': [], 'resumed': []}
  steps = {'fresh': 0, 'resumed': 7 * per_epoch + per_epoch // 2}
  for _ in range(_STARTS):
    for name, at in steps.items():
      start = time.perf_counter()
      feed = new_feeds()
      jax.block_until_ready(
        feed.updates(at, feeds.length_at(at, per_epoch, feed.longest))
      )
      found[name].append(1e3 * (time.perf_counter() - start))
  result = {n: round(float(np.median(t)), 2) for n, t in found.items()}
  return result | common.ratio(found['resumed'], found['fresh'])


if __name__ == '__main__':
  main()
