"""The smoothed loss and its gradient beside optax's, for many classes.

`kept` is what the compiled gradient writes down beside its result, in units of
the logits' size.

  python benchmarks/loss.py --classes=32768 --batch=4096
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import common
from tsla import smoothing


def main() -> None:
  """Measures value and gradient of each loss, in turn."""
  args = common.parse(common.arguments(__doc__, classes=32768))
  classes = 64 if args.size == 'tiny' else args.classes
  dtype = jnp.dtype(args.dtype)
  z = jax.random.normal(jax.random.key(0), (args.batch, classes), dtype)
  y = jax.random.randint(jax.random.key(1), (args.batch,), 0, classes)

  def ours(z: jax.Array, y: jax.Array, theta: jax.Array) -> jax.Array:
    return smoothing.smoothed_cross_entropy(z, y, theta).mean()

  def integer(z: jax.Array, y: jax.Array, theta: jax.Array) -> jax.Array:
    del theta
    return optax.softmax_cross_entropy_with_integer_labels(
      z.astype(jnp.float32), y
    ).mean()

  def smooth_labels(z: jax.Array, y: jax.Array, theta: jax.Array) -> jax.Array:
    target = optax.smooth_labels(jax.nn.one_hot(y, classes), theta)
    return optax.softmax_cross_entropy(z.astype(jnp.float32), target).mean()

  compiled = {
    of.__name__: jax.jit(jax.value_and_grad(of)).lower(z, y, 0.1).compile()
    for of in (integer, ours, smooth_labels)
  }
  contenders = {
    name: lambda call=call: jax.block_until_ready(call(z, y, 0.1))
    for name, call in compiled.items()
  }
  seconds = common.in_turn(contenders, args.rounds)
  figures = {'classes': classes}
  for name, times in seconds.items():
    kept = compiled[name].memory_analysis().temp_size_in_bytes / z.nbytes
    figures[name] = {
      'milliseconds': round(1e3 * float(np.median(times)), 3),
      'kept': round(kept, 3),
    } | common.ratio(times, seconds['integer'])
  device = jax.devices()[0]
  common.record(
    'loss', args, f'{device.device_kind} ({device.platform})', figures
  )


if __name__ == '__main__':
  main()
