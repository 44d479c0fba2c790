"""A network's 3×3 convolutions and their gradients on one core, beside torch's.

They are 98 % of a ResNet-18's work, so a CPU's step gains on PyTorch's, or
falls behind it, about as these do: XLA and oneDNN each bring their own. In
float32; XLA also pays for an addition and two sums a layer, a percent or two.

  python benchmarks/convolutions.py --batch=32 \
    --torch-python=OTHER/bin/python
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator

import numpy as np

import common
import compare

_STAGES = {'resnet8': (1, 1, 1), 'resnet18': (2, 2, 2, 2)}


def layers(size: common.Size) -> Iterator[tuple[int, int, int, int, int]]:
  """Side and channels before, channels after, stride and number of each."""
  side, before = size.side, size.width
  for stage, blocks in enumerate(_STAGES[size.model]):
    if stage:
      yield side, before, 2 * before, 2, 1
      side, before = side // 2, 2 * before
    yield side, before, before, 1, 2 * blocks - (stage > 0)


def drawn(args: argparse.Namespace) -> Iterator[tuple[np.ndarray, ...]]:
  """Images f[B, H, W, C] and kernel f[3, 3, C, O], stride and number."""
  rng = np.random.default_rng(0)
  for side, before, after, stride, number in layers(common.SIZES[args.size]):
    images = rng.normal(size=(args.batch, side, side, before))
    kernel = rng.normal(size=(3, 3, before, after)) / np.sqrt(9 * before)
    yield images.astype('f'), kernel.astype('f'), stride, number


def of_xla(args: argparse.Namespace) -> Callable[[], object]:
  """All of them as the training path runs them, within a loop."""
  import jax
  import jax.numpy as jnp

  from tsla.models.convolution import conv_general_dilated

  def layer(x: jax.Array, w: jax.Array, stride: int, number: int) -> jax.Array:
    def step(total: jax.Array, _: None) -> tuple[jax.Array, None]:
      y, backward = jax.vjp(
        lambda x, w: conv_general_dilated(
          x,
          w,
          (stride, stride),
          ((1, 1), (1, 1)),
          dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        ),
        x + 0 * total,  # else one would serve all
        w,
      )
      dx, dw = backward(y)
      return total + dx.sum() + dw.sum(), None

    return jax.lax.scan(step, jnp.float32(0), length=number)[0]

  layer = jax.jit(layer, static_argnums=(2, 3))
  work = [(jnp.array(x), jnp.array(w), *rest) for x, w, *rest in drawn(args)]
  return lambda: jax.block_until_ready([layer(*each) for each in work])


def of_torch(args: argparse.Namespace) -> Callable[[], object]:
  """All of them as PyTorch runs them eagerly, channels last."""
  import torch

  torch.set_num_threads(1)

  def prepared(array: np.ndarray, *axes: int) -> torch.Tensor:
    tensor = torch.from_numpy(array).permute(*axes)
    tensor = tensor.contiguous(memory_format=torch.channels_last)
    return tensor.requires_grad_()

  work = [
    (prepared(x, 0, 3, 1, 2), prepared(w, 3, 2, 0, 1), *rest)
    for x, w, *rest in drawn(args)
  ]

  def run() -> None:
    for x, w, stride, number in work:
      for _ in range(number):
        x.grad = w.grad = None
        y = torch.nn.functional.conv2d(x, w, stride=stride, padding=1)
        y.backward(y.detach())

  return run


def main() -> None:
  """Measures both in turn; a ratio above 1: XLA is faster."""
  parser = common.arguments(__doc__, torch_python=sys.executable)
  parser.add_argument('--serve', action='store_true', help='as the peer')
  args = common.parse(parser)
  if args.size == '224':
    parser.error('--size=224: its stem shrinks the images; not written')
  args.dtype = 'float32'  # all that is drawn
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  device = f'one core ({platform.machine()})'
  if args.serve:
    common.serve({'torch': of_torch(args)}, device)
    return
  with compare.contenders_of(
    'convolutions.py', args, python=args.torch_python
  ) as (peer, here):
    seconds = common.in_turn({'xla': of_xla(args)} | peer, args.rounds)
  figures = {
    name: {'milliseconds': round(1e3 * float(np.median(times)), 1)}
    for name, times in seconds.items()
  }
  figures['torch'] |= common.ratio(seconds['torch'], seconds['xla'])
  common.record(
    'convolutions', args, device, figures, torch=here['versions']['torch']
  )


if __name__ == '__main__':
  main()
