"""Sections of a config → schedules, their tables, and the optax chain."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tsla import smoothing
from tsla.config.durations import Durations
from tsla.errors import InputError

if TYPE_CHECKING:  # else jax and optax suffice for a step of training
  from tsla.config.schema import Section


class Schedules(NamedTuple):
  """What changes over a run, as functions of the update count."""

  theta: optax.Schedule
  learning_rate: optax.Schedule


class Tables(NamedTuple):
  """θ and the learning rate at every count: schedules as arrays.

  Handed to a compiled function they leave none of their numbers in it, so that
  one compilation serves a whole sweep.
  """

  theta: jax.Array  # f32[T + 1], of a run with T updates
  learning_rate: jax.Array  # f32[T + 1]


def create_schedules(
  smoothing_options: 'Section',
  optimizer_options: 'Section',
  durations: Durations,
) -> Schedules:
  """The schedules that the sections `smoothing` and `optimizer` name."""
  return Schedules(
    smoothing_schedule(smoothing_options, durations),
    learning_rate_schedule(optimizer_options, durations),
  )


def smoothing_schedule(
  options: 'Section', durations: Durations
) -> optax.Schedule:
  """θ as a function of the update count, from the section `smoothing`."""
  theta, drop_step = options.theta, durations.drop_step
  match options.schedule:
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
  raise InputError(f'config.smoothing.schedule = {options.schedule!r}')


def learning_rate_schedule(
  options: 'Section', durations: Durations
) -> optax.Schedule:
  """The learning rate as a function of the update count.

  A warm-up multiplies whichever schedule is chosen by (count + 1) / warm-up
  updates, so the first update already moves and milestones keep their place.
  """
  peak = options.learning_rate
  match options.schedule:
    case 'constant':
      main = optax.constant_schedule(peak)
    case 'step':
      factor = options.decay_factor
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


def tabulate(schedules: Schedules, total_steps: int) -> Tables:
  """The schedules at counts 0 to the run's last update, and after it."""

  @jax.jit
  def at(counts: jax.Array) -> Tables:
    columns = Tables(*(jax.vmap(schedule)(counts) for schedule in schedules))
    return jax.tree.map(lambda c: c.astype(jnp.float32), columns)

  return at(jnp.arange(total_steps + 1))


def from_tables(tables: Tables) -> Schedules:
  """The schedules again, read from `tables`, which may be traced."""
  return Schedules(
    lambda count: tables.theta[count], lambda count: tables.learning_rate[count]
  )


def create(
  options: 'Section',
  schedules: Schedules,
  *,
  probed: bool = False,
  reset_momentum: bool = False,
) -> optax.GradientTransformationExtraArgs:
  """The transformation that applies a gradient.

  What owns θ comes first and sees the raw gradient: `label_smoothing`, or in a
  run that is probed `adaptive_smoothing`. SGD is
  PyTorch's: weight decay is added to the gradient before the momentum buffer,
  `d = ∇F + λ w`, `v ← m v + d`, `w ← w − η v` (with Nesterov `w ← w − η (d +
  m v)`), on every parameter. AdamW and LAMB decouple the decay.

  In a run that is `probed` θ may be decided by what probes observe; with
  `reset_momentum` momentum begins anew where smoothing ends.
  """
  rate = schedules.learning_rate
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
  owner = smoothing.adaptive_smoothing if probed else smoothing.label_smoothing
  tx = optax.chain(owner(schedules.theta), base)
  return smoothing.reset_momentum(tx) if reset_momentum else tx
