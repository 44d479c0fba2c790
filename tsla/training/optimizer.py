"""config → schedules and the optax chain."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tsla import smoothing
from tsla.config.durations import Durations
from tsla.errors import InputError

if TYPE_CHECKING:  # else jax and optax suffice for a step of training
  import ml_collections


class Tables(NamedTuple):
  """θ and the learning rate at every count: schedules as arrays.

  Handed to a compiled function they leave none of their numbers in it, so that
  one compilation serves a whole sweep.
  """

  theta: jax.Array  # f32[T + 1], of a run with T updates
  learning_rate: jax.Array  # f32[T + 1]


def smoothing_schedule(
  config: 'ml_collections.ConfigDict', durations: Durations
) -> optax.Schedule:
  """θ as a function of the update count, from `config.smoothing`."""
  theta, drop_step = config.smoothing.theta, durations.drop_step
  match config.smoothing.schedule:
    case 'none':
      return smoothing.none()
    case 'constant':
      return smoothing.constant(theta)
    case 'two_stage':
      return smoothing.two_stage(theta, drop_step)
    case 'linear':
      return smoothing.linear_decay(theta, drop_step)
    case 'cosine':
      return smoothing.cosine_decay(theta, drop_step)
    case 'reversed':
      return smoothing.piecewise((0.0, theta), (drop_step,))
    case 'rising':
      return smoothing.linear_rise(theta, durations.total_steps)
    case 'auto':  # until a rule decides
      if durations.max_step is None:
        return smoothing.constant(theta)
      return smoothing.two_stage(theta, durations.max_step)
  raise InputError(f'config.smoothing.schedule = {config.smoothing.schedule!r}')


def learning_rate_schedule(
  config: 'ml_collections.ConfigDict', durations: Durations
) -> optax.Schedule:
  """The learning rate as a function of the update count.

  A warm-up multiplies whichever schedule is chosen by (count + 1) / warm-up
  updates, so the first update already moves and milestones keep their place.
  """
  peak = config.optimizer.learning_rate
  match config.optimizer.schedule:
    case 'constant':
      main = optax.constant_schedule(peak)
    case 'step':
      factor = config.optimizer.decay_factor
      main = optax.piecewise_constant_schedule(
        peak, {step: factor for step in durations.milestones}
      )
    case 'cosine':
      main = optax.cosine_decay_schedule(peak, durations.total_steps)
    case unknown:
      raise InputError(f'config.optimizer.schedule = {unknown!r}')
  warmup = durations.warmup_steps
  if not warmup:
    return main
  return lambda count: main(count) * jnp.minimum(1.0, (count + 1) / warmup)


def tabulate(
  config: 'ml_collections.ConfigDict', durations: Durations
) -> Tables:
  """The schedules of a run at counts 0 to its last update, and after it."""
  theta = smoothing_schedule(config, durations)
  rate = learning_rate_schedule(config, durations)

  @jax.jit
  def at(counts: jax.Array) -> Tables:
    columns = Tables(jax.vmap(theta)(counts), jax.vmap(rate)(counts))
    return jax.tree.map(lambda c: c.astype(jnp.float32), columns)

  return at(jnp.arange(durations.total_steps + 1))


def create(
  config: 'ml_collections.ConfigDict', durations: Durations
) -> tuple[optax.GradientTransformationExtraArgs, optax.Schedule]:
  """The transformation that applies a gradient, and the learning rate it uses.

  What owns θ comes first and sees the raw gradient: `label_smoothing`, or in a
  run that is probed `observed_smoothing`. SGD is
  PyTorch's: weight decay is added to the gradient before the momentum buffer,
  `d = ∇F + λ w`, `v ← m v + d`, `w ← w − η v` (with Nesterov `w ← w − η (d +
  m v)`), on every parameter. AdamW and LAMB decouple the decay.

  Args:
    config: a validated config.
    durations: its durations in updates.

  Returns:
    The chained transformation and the learning-rate schedule.
  """
  rate = learning_rate_schedule(config, durations)
  return _chain(config, smoothing_schedule(config, durations), rate), rate


def from_tables(
  config: 'ml_collections.ConfigDict', tables: Tables
) -> tuple[optax.GradientTransformationExtraArgs, optax.Schedule]:
  """What `create` returns, with its schedules read from traced `tables`."""

  def rate(count: jax.Array) -> jax.Array:
    return tables.learning_rate[count]

  return _chain(config, theta_of(tables), rate), rate


def theta_of(tables: Tables) -> optax.Schedule:
  """θ as a function of the update count, from traced `tables`."""
  return lambda count: tables.theta[count]


def _chain(
  config: 'ml_collections.ConfigDict',
  theta: optax.Schedule,
  rate: optax.Schedule,
) -> optax.GradientTransformationExtraArgs:
  options = config.optimizer
  match options.name:
    case 'sgd':
      base = optax.chain(
        optax.add_decayed_weights(options.weight_decay),
        optax.sgd(rate, options.momentum, options.nesterov),
      )
    case 'adamw':
      base = optax.adamw(rate, weight_decay=options.weight_decay)
    case 'lamb':
      base = optax.lamb(rate, weight_decay=options.weight_decay)
    case unknown:
      raise InputError(f'config.optimizer.name = {unknown!r}')
  owner = (
    smoothing.observed_smoothing(theta)
    if config.variance.every_epochs
    else smoothing.label_smoothing(theta)
  )
  tx = optax.chain(owner, base)
  return smoothing.reset_momentum(tx) if config.smoothing.reset_momentum else tx
