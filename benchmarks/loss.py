"""The methods' losses and their gradients beside optax's, for many classes.

`kept` is what the compiled gradient writes down beside its result, in units of
the logits' size. A loss whose target learns takes its ŷ from it, and what the
target learns of a batch is measured by itself, as NAME_update; both are left
out where the target refuses so many classes.

  python benchmarks/loss.py --classes=32768 --batch=4096
  python benchmarks/loss.py --classes=1000 --batch=256 --dtype=float32
  python benchmarks/loss.py --classes=32000 --batch=64 --dtype=float32

A batch of 8,191 rows, a prime, shows whether the rows are taken in parts:

  python benchmarks/loss.py --classes=1000 --batch=8191 --dtype=float32
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import common
from tsla import smoothing

# A function of z, y, θ and the state of a target, and that state.
Measured = tuple[Callable[..., Any], Any]


def main() -> None:
  """Measures value and gradient of each loss, in turn."""
  args = common.parse(common.arguments(__doc__, classes=32768))
  classes = 64 if args.size == 'tiny' else args.classes
  dtype = jnp.dtype(args.dtype)
  z = jax.random.normal(jax.random.key(0), (args.batch, classes), dtype)
  y = jax.random.randint(jax.random.key(1), (args.batch,), 0, classes)
  task = smoothing.Task(classes, args.examples, None)
  measured = {'integer': gradient(integer), 'smooth_labels': gradient(of_optax)}
  for name, make in smoothing.METHODS.items():
    measured |= dict(of_method(name, make(), task))
  compiled = {
    name: jax.jit(of).lower(z, y, 0.1, state).compile()
    for name, (of, state) in measured.items()
  }
  contenders = {
    name: lambda name=name: jax.block_until_ready(
      compiled[name](z, y, 0.1, measured[name][1])
    )
    for name in measured
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


def gradient(loss: Callable[..., jax.Array], state: Any = ()) -> Measured:
  """The mean of a loss over the batch, with its gradient."""
  return jax.value_and_grad(lambda *args: loss(*args).mean()), state


def integer(z: jax.Array, y: jax.Array, theta: Any, state: Any) -> jax.Array:
  """Plain cross-entropy: what all are compared with."""
  del theta, state
  return optax.softmax_cross_entropy_with_integer_labels(
    z.astype(jnp.float32), y
  )


def of_optax(z: jax.Array, y: jax.Array, theta: Any, state: Any) -> jax.Array:
  """Label smoothing with optax."""
  del state
  target = optax.smooth_labels(jax.nn.one_hot(y, z.shape[-1]), theta)
  return optax.softmax_cross_entropy(z.astype(jnp.float32), target)


def of_method(
  name: str, method: smoothing.Method, task: smoothing.Task
) -> Iterator[tuple[str, Measured]]:
  """Its loss, and the update of its target if it has one."""
  target = smoothing.Target(lambda arrays, state, seen: None)
  if method.target is not None:
    try:
      target = method.target(task)
    except ValueError:  # too many classes
      return

  def loss(z: jax.Array, y: jax.Array, theta: Any, state: Any) -> jax.Array:
    y_hat = target.y_hat(target.arrays, state, smoothing.Seen(y, y))
    return method.loss(z, y, theta, y_hat)

  def update(z: jax.Array, y: jax.Array, theta: Any, state: Any) -> Any:
    del theta
    return target.update(state, smoothing.Seen(y, y, logits=z))

  yield name, gradient(loss, target.state)
  if target.update is not None:
    yield f'{name}_update', (update, target.state)


if __name__ == '__main__':
  main()
