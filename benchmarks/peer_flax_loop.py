"""The usual flax loop on the same work: pmap, fed and augmented by the host.

Plain `nn.Conv` and `nn.BatchNorm`, a step for each Python call, NumPy batches
put on the devices as they come, the loss read every 50 updates.

  python benchmarks/peer_flax_loop.py --size=cifar --batch=256
"""

import argparse
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import common


class Network(nn.Module):
  """A ResNet of basic blocks, as one would write it."""

  size: common.Size
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits of a training batch f[B, H, W, C]."""
    conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      nn.BatchNorm, use_running_average=False, momentum=0.9, dtype=self.dtype
    )
    width = self.size.width
    if self.size.stem == 'imagenet':
      x = nn.relu(norm()(conv(width, (7, 7), 2)(x)))
      x = nn.max_pool(x, (3, 3), (2, 2), 'SAME')
    else:
      x = nn.relu(norm()(conv(width, (3, 3))(x)))
    blocks = {'resnet8': (1, 1, 1), 'resnet18': (2, 2, 2, 2)}[self.size.model]
    for stage, number in enumerate(blocks):
      for i in range(number):
        features, stride = width * 2**stage, 2 if stage and not i else 1
        y = nn.relu(norm()(conv(features, (3, 3), stride)(x)))
        y = norm()(conv(features, (3, 3))(y))
        if y.shape != x.shape:
          x = norm()(conv(features, (1, 1), stride)(x))
        x = nn.relu(x + y)
    x = x.mean((1, 2)).astype(jnp.float32)
    return nn.Dense(self.size.classes)(x)


class Loop:
  """The state, replicated, and the loop over host batches."""

  def __init__(self, args: argparse.Namespace):
    self.args, self.size = args, common.SIZES[args.size]
    self.images, self.labels = common.data(args)
    self.rng = np.random.default_rng(0)
    model = Network(self.size, jnp.dtype(args.dtype))
    side = self.size.side
    variables = jax.jit(model.init)(
      jax.random.key(0), jnp.zeros((1, side, side, self.size.channels))
    )
    tx = optax.chain(
      optax.add_decayed_weights(5e-4), optax.sgd(0.01, momentum=0.9)
    )
    stats, params = variables['batch_stats'], variables['params']
    state = params, stats, tx.init(params)
    self.devices = jax.local_device_count()
    self.state = jax.tree.map(
      lambda leaf: jnp.stack([leaf] * self.devices), state
    )

    def update(
      state: Any, images: jax.Array, labels: jax.Array
    ) -> tuple[Any, jax.Array]:
      params, stats, opt_state = state

      def loss_fn(params: Any) -> tuple[jax.Array, Any]:
        logits, new = model.apply(
          {'params': params, 'batch_stats': stats},
          images,
          mutable=['batch_stats'],
        )
        target = optax.smooth_labels(
          jax.nn.one_hot(labels, self.size.classes), 0.1
        )
        loss = optax.softmax_cross_entropy(logits, target).mean()
        return loss, new['batch_stats']

      (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
      grads, stats, loss = jax.lax.pmean((grads, stats, loss), 'batch')
      updates, opt_state = tx.update(grads, opt_state, params)
      return (optax.apply_updates(params, updates), stats, opt_state), loss

    self.update = jax.pmap(update, axis_name='batch', donate_argnums=0)

  def batch(self) -> tuple[np.ndarray, np.ndarray]:
    """A batch cropped, flipped and normalised by NumPy, split by device."""
    size = self.size
    picked = self.rng.integers(len(self.labels), size=self.args.batch)
    images = self.images[picked]
    if size.pad:
      pads = (0, 0), (size.pad, size.pad), (size.pad, size.pad), (0, 0)
      images = np.pad(images, pads)
    room = images.shape[1] - size.side + 1
    out = np.empty((len(picked), size.side, size.side, size.channels), np.uint8)
    corners = self.rng.integers(room, size=(len(picked), 2))
    flips = self.rng.random(len(picked)) < 0.5
    for i, (row, column) in enumerate(corners):
      window = images[i, row : row + size.side, column : column + size.side]
      out[i] = window[:, ::-1] if flips[i] else window
    x = (out.astype(np.float32) / 255 - 0.5) / 0.25
    split = self.devices, -1
    return x.reshape(*split, *x.shape[1:]), self.labels[picked].reshape(split)

  def run(self) -> None:
    """The updates of a call."""
    for i in range(2 * self.args.steps):
      self.state, loss = self.update(self.state, *self.batch())
      if i % 50 == 49:
        np.asarray(loss)
    jax.block_until_ready(self.state)


def main() -> None:
  """Measures the loop."""
  parser = common.arguments(__doc__)
  parser.add_argument('--serve', action='store_true')
  args = common.parse(parser)
  device = jax.devices()[0]
  common.run_contenders(
    'peer_flax_loop',
    args,
    f'{jax.device_count()} × {device.device_kind} ({device.platform})',
    {'flax_loop': Loop(args).run},
    2 * args.steps,
  )


if __name__ == '__main__':
  main()
