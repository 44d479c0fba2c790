"""What the augmentation of a batch costs: no window, a window, a resized one.

`clean` cuts the middle out and normalises, `window` is the random crop of plain
pixels, `area` the random-resized crop (`augment.crop_area`); the last two flip
too. The ratio is the time beside that of `clean`.

  python benchmarks/augment.py --size=224 --batch=64 --dtype=float32
"""

import jax
import numpy as np

import common
from tsla.data.pipeline import View, clean_view, train_view


def main() -> None:
  """Measures the three, in turn, on the same images."""
  args = common.parse(common.arguments(__doc__))
  size, rng = common.SIZES[args.size], np.random.default_rng(0)
  plain = [0.5] * size.channels
  window = View(size.pad, size.crop, True, plain, plain, args.dtype)
  area = window._replace(pad=0, crop=size.side, crop_area=0.08)
  shape = args.batch, size.image, size.image, size.channels
  images = jax.device_put(rng.integers(256, size=shape, dtype=np.uint8))
  aspects = jax.device_put(rng.uniform(0.5, 2, args.batch).astype(np.float32))
  places = jax.device_put(np.arange(args.batch, dtype=np.int32))
  functions = {
    'clean': jax.jit(lambda i, n, a: clean_view(window, i)),
    'window': jax.jit(lambda i, n, a: train_view(window, i, 0, 0, n)),
    'area': jax.jit(lambda i, n, a: train_view(area, i, 0, 0, n, a)),
  }
  contenders = {
    name: lambda view=view: jax.block_until_ready(view(images, places, aspects))
    for name, view in functions.items()
  }
  seconds, figures = common.in_turn(contenders, args.rounds), {}
  for name, times in seconds.items():
    speed = args.batch / float(np.median(times))
    figures[name] = {'images_per_second': round(speed, 1)}
    figures[name] |= common.ratio(times, seconds['clean'])
  figures['busy_cores'] = round(common.busy_cores(), 2)
  device = jax.devices()[0]
  name = f'{device.device_kind} ({device.platform})'
  common.record('augment', args, name, figures)


if __name__ == '__main__':
  main()
