"""Where an update's time goes, and what smoothing adds to it.

`forward`, `gradient` and `update` are cumulative. `plain` is the real path with
integer cross-entropy; `uniform`, `cached` and `teacher` are label smoothing
with ŷ uniform, looked up, and predicted from each augmented image.

  python benchmarks/step.py --size=cifar --batch=256
"""

from typing import Any
from unittest import mock

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
  batch = step.Examples(
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


def with_plain_loss(args: Any) -> ours.Ours:
  """The real path whose loss is optax's for integer labels; compiled here."""

  def plain(
    logits: jax.Array, labels: jax.Array, theta: jax.Array, y_hat: Any
  ) -> jax.Array:
    del theta, y_hat
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

  with mock.patch.object(smoothing, 'smoothed_cross_entropy', plain):
    path = ours.Ours(args)
    path.two_late(path.train)
  return path


def main() -> None:
  """Measures all in turn; ratios are to `plain`."""
  args = common.parse(common.arguments(__doc__))
  plain, uniform = with_plain_loss(args), ours.Ours(args)
  classes = common.SIZES[args.size].classes
  cached = ours.Ours(
    args,
    make_y_hat=lambda arrays, images, picked: arrays[picked],
    y_hat=np.full((args.examples, classes), 1 / classes, np.float16),
  )
  variables = {
    'params': uniform.state.params,
    'batch_stats': uniform.state.batch_stats,
  }
  apply = uniform.model.apply
  teacher = ours.Ours(
    args,
    make_y_hat=lambda variables, images, picked: smoothing.teacher(
      apply(variables, images, train=False)
    ),
    y_hat=jax.tree.map(np.asarray, variables),
  )
  contenders = {
    'plain': lambda: plain.two_late(plain.train),
    'uniform': lambda: uniform.two_late(uniform.train),
    'cached': lambda: cached.two_late(cached.train),
    'teacher': lambda: teacher.two_late(teacher.train),
    **parts(uniform),
  }
  seconds = common.in_turn(contenders, args.rounds)
  figures = {}
  for name, times in seconds.items():
    each = float(np.median(times)) / (2 * args.steps)
    figures[name] = {'milliseconds': round(1e3 * each, 4)}
    if name in ('uniform', 'cached', 'teacher'):
      figures[name] |= common.ratio(times, seconds['plain'])
  common.record('step', args, uniform.device, figures)


if __name__ == '__main__':
  main()
