"""Where an update's time goes, and what smoothing adds to it.

`forward`, `gradient` and `update` are cumulative. `plain` is the real path with
integer cross-entropy; `uniform`, `cached` and `teacher` are label smoothing
with ŷ uniform, looked up, and predicted from each augmented image; the other
methods have their own names.

  python benchmarks/step.py --size=cifar --batch=256
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import common
import ours
from tsla import smoothing
from tsla.training import optimizer, step


def parts(path: ours.Ours) -> common.Contenders:
  """Forward pass, with backward pass, with update; a call for each step."""
  examples = path.inputs.examples
  side = common.SIZES[path.args.size].side
  images = examples.images[: path.args.batch, :side, :side]
  batch = step.Batch(
    (images / 255 - 0.5).astype(path.args.dtype),
    examples.labels[: path.args.batch],
  )
  model = path.model.clone(axis_name=None)
  state = jax.tree.map(jnp.array, path.state)
  schedules = optimizer.from_tables(path.inputs.tables)
  tx = path.make_optimizer(schedules)

  def forward(params: Any, state: step.TrainState) -> jax.Array:
    logits, _ = model.apply(
      {'params': params, 'batch_stats': state.batch_stats},
      batch.images,
      train=True,
      mutable=['batch_stats'],
    )
    theta = smoothing.current_theta(state.opt_state)
    return smoothing.smoothed_cross_entropy(logits, batch.labels, theta).mean()

  functions = {
    'forward': jax.jit(lambda state: forward(state.params, state)),
    'gradient': jax.jit(lambda state: jax.grad(forward)(state.params, state)),
    'update': jax.jit(
      lambda state: step.train_step(
        state, batch, model.apply, tx, schedules.learning_rate
      )
    ),
  }

  def repeat(call: Any) -> None:
    for _ in range(2 * path.args.steps):
      result = call(state)
    jax.block_until_ready(result)

  return {
    name: lambda call=call: repeat(call) for name, call in functions.items()
  }


def plain(
  logits: jax.Array, labels: jax.Array, theta: Any, y_hat: Any
) -> jax.Array:
  """Optax's loss for integer labels: a method without smoothing."""
  del theta, y_hat
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def main() -> None:
  """Measures all in turn; ratios are to `plain`."""
  args = common.parse(common.arguments(__doc__))
  uniform = ours.Ours(args)
  classes = common.SIZES[args.size].classes
  rows = np.full((args.examples, classes), 1 / classes, np.float16)
  variables = {
    'params': uniform.state.params,
    'batch_stats': uniform.state.batch_stats,
  }
  apply = uniform.model.apply
  paths = {
    'plain': ours.Ours(args, method=smoothing.Method(plain)),
    'uniform': uniform,
    'cached': ours.Ours(
      args,
      target=smoothing.Target(lambda rows, _, seen: rows[seen.indices], rows),
    ),
    'teacher': ours.Ours(
      args,
      target=smoothing.Target(
        lambda variables, _, seen: smoothing.teacher(
          apply(variables, seen.images, train=False)
        ),
        jax.tree.map(np.asarray, variables),
      ),
    ),
    **{
      name: ours.Ours(args, method=make())
      for name, make in smoothing.METHODS.items()
      if name != 'label_smoothing'
    },
  }
  contenders = {
    **{
      name: functools.partial(path.two_late, path.train)
      for name, path in paths.items()
    },
    **parts(uniform),
  }
  seconds = common.in_turn(contenders, args.rounds)
  figures = {}
  for name, times in seconds.items():
    each = float(np.median(times)) / (2 * args.steps)
    figures[name] = {'milliseconds': round(1e3 * each, 4)}
    if name in paths and name != 'plain':
      figures[name] |= common.ratio(times, seconds['plain'])
  common.record('step', args, uniform.device, figures)


if __name__ == '__main__':
  main()
