"""What the device could do at most: work by layer, and measured ceilings.

The serial roofline lets the convolutions run at the speed of a large matrix
product and moves everything else at the speed of a copy, one after the other.
A BatchNorm passes its activations eight times in training (statistics, output;
two sums and the gradient), an addition of a shortcut twice.

  python benchmarks/roofline.py --size=cifar --batch=256
"""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

import common
import ours


def layers(path: ours.Ours) -> list[dict[str, Any]]:
  """Work of each layer for one training image."""
  size = common.SIZES[path.args.size]
  width = jnp.dtype(path.args.dtype).itemsize
  rows = []

  def note(
    call: Callable[..., Any], args: Any, kwargs: Any, context: Any
  ) -> Any:
    out = call(*args, **kwargs)
    module = context.module
    if context.method_name != '__call__':
      return out
    name = '/'.join(module.path)
    if isinstance(module, nn.Conv):
      x, y = math.prod(args[0].shape), math.prod(out.shape)
      taps = math.prod(module.kernel_size) * args[0].shape[-1]
      first = not rows  # no gradient with respect to the images
      rows.append(
        {
          'layer': name,
          'gigaflop': (4 if first else 6) * y * taps / 1e9,
          'megabyte': ((2 if first else 3) * (x + y)) * width / 1e6,
          'convolution': True,
        }
      )
    elif isinstance(module, nn.BatchNorm):
      passes = 8 * math.prod(out.shape)
      if module.name in ('bn2', 'bn3') and module.path[:-1]:
        passes += 2 * math.prod(out.shape)
      rows.append(
        {
          'layer': name,
          'gigaflop': 0.0,
          'megabyte': passes * width / 1e6,
          'convolution': False,
        }
      )
    return out

  variables = {
    'params': path.state.params,
    'batch_stats': path.state.batch_stats,
  }
  model = path.model.clone(axis_name=None)
  image = jnp.zeros((1, size.side, size.side, size.channels))
  with nn.intercept_methods(note):
    jax.eval_shape(
      lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats']),
      variables,
      image,
    )
  return rows


def fastest(call: Callable[[], Any], rounds: int) -> float:
  """Seconds of the fastest of several calls."""
  jax.block_until_ready(call())
  times = []
  for _ in range(rounds):
    start = time.perf_counter()
    jax.block_until_ready(call())
    times.append(time.perf_counter() - start)
  return min(times)


def main() -> None:
  """Counts, measures both ceilings, and records images per second."""
  args = common.parse(common.arguments(__doc__, matrix=8192, copy_mb=1024))
  if args.size == 'tiny':
    args.matrix, args.copy_mb = 256, 4
  path = ours.Ours(args)
  dtype = jnp.dtype(args.dtype)
  a = jnp.ones((args.matrix, args.matrix), dtype)
  product = jax.jit(lambda a: a @ a)
  flops = 2 * args.matrix**3 / fastest(lambda: product(a), args.rounds)
  b = jnp.zeros(args.copy_mb * 2**20 // 4, jnp.float32)
  add = jax.jit(lambda b: b + 1)
  bandwidth = 2 * b.nbytes / fastest(lambda: add(b), args.rounds)

  rows = layers(path)
  for row in rows:
    print(
      f'{row["layer"]:24}{row["gigaflop"]:9.4f} GFLOP{row["megabyte"]:9.4f} MB'
    )
  work = 1e9 * sum(row['gigaflop'] for row in rows)
  outside = 1e6 * sum(row['megabyte'] for row in rows if not row['convolution'])
  figures = {
    'gigaflop_per_image': round(work / 1e9, 4),
    'megabyte_per_image': round(sum(row['megabyte'] for row in rows), 3),
    'megabyte_outside_convolutions': round(outside / 1e6, 3),
    'teraflops_measured': round(flops / 1e12, 3),
    'gigabytes_per_second_measured': round(bandwidth / 1e9, 2),
    'serial_images_per_second': round(
      1 / (work / flops + outside / bandwidth), 1
    ),
  }
  common.record('roofline', args, path.device, figures)


if __name__ == '__main__':
  main()
