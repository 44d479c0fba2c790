"""A whole run, evaluated after each epoch: its seconds, and a sweep's.

The table of one seed costs three times a CIFAR run's epochs, as TSLA(s) for
four s share the trunk: 200 + 200 + (80 + 60 + 40 + 20) epochs.

  python benchmarks/sweep_time.py --size=cifar --epochs=200
"""

import time

import numpy as np

import common
import ours


def main() -> None:
  """Trains `--epochs` epochs; the first, which compiles, is timed apart."""
  args = common.parse(
    common.arguments(__doc__, epochs=200, test_examples=10_000)
  )
  if args.size == 'tiny':
    args.epochs = min(args.epochs, 4)
  path = ours.Ours(args, epochs=args.epochs)
  test = path.first(min(args.test_examples, args.examples))
  seconds, training = [], []
  for _ in range(args.epochs):
    start = time.perf_counter()
    path.epoch()
    training.append(time.perf_counter() - start)
    path.evaluate(test)
    seconds.append(time.perf_counter() - start)
  steady, images = seconds[1:], path.steps_per_epoch * args.batch
  per_epoch = float(np.median(steady))
  figures = {
    'epochs': args.epochs,
    'seconds': round(sum(seconds), 2),
    'first_epoch_seconds': round(seconds[0], 2),
    'epoch_seconds': round(per_epoch, 4),
    'images_per_second': round(images / float(np.median(training[1:])), 1),
    'table_seconds': round(3 * args.epochs * per_epoch, 1),
  }
  common.record('sweep_time', args, path.device, figures)


if __name__ == '__main__':
  main()
