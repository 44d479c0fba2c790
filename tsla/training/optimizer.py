"""Sections of a config → schedules, their tables, and the optax chain."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tsla import smoothing
from tsla.config import tables
from tsla.smoothing.rules import Rule

if TYPE_CHECKING:  # else jax, flax and optax suffice for a step of training
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


def tabulate(schedules: Schedules, total_steps: int) -> Tables:
  """The schedules at counts 0 to the run's last update, and after it."""

  @jax.jit
  def at(counts: jax.Array) -> Tables:
    columns = Tables(*(jax.vmap(schedule)(counts) for schedule in schedules))
    return jax.tree.map(lambda c: c.astype(jnp.float32), columns)

  tables = at(np.arange(total_steps + 1, dtype=np.int32))
  if tables.theta.ndim != 1:
    shape = tables.theta.shape[1:]
    raise ValueError(f'theta is of shape {shape} at a count, not one number')
  return tables


def end_of_smoothing(tables: Tables) -> int:
  """The update from which on θ stays 0; one that no run comes to, if never."""
  smoothed = np.flatnonzero(np.asarray(tables.theta))
  return int(smoothed[-1]) + 1 if len(smoothed) else 0


def from_tables(tables: Tables) -> Schedules:
  """The schedules again, read from `tables`, which may be traced."""
  return Schedules(
    lambda count: tables.theta[count], lambda count: tables.learning_rate[count]
  )


def create(
  options: 'Section',
  schedules: Schedules,
  *,
  rules: Mapping[str, Rule] | None = None,
  reset_momentum: bool = False,
) -> optax.GradientTransformationExtraArgs:
  """The transformation that applies a gradient.

  What owns θ comes first and sees the raw gradient; with `rules` θ may be
  decided by what probes observe. SGD is PyTorch's: weight decay is added to the
  gradient before the momentum buffer, `d = ∇F + λ w`, `v ← m v + d`, `w ← w −
  η v` (with Nesterov `w ← w − η (d + m v)`), on every parameter. AdamW and LAMB
  decouple the decay. With `reset_momentum` momentum begins anew where smoothing
  ends.
  """
  base = tables.OPTIMIZERS[options.name].make(options, schedules.learning_rate)
  owner = smoothing.label_smoothing(schedules.theta)
  if rules is not None:
    owner = smoothing.adaptive_smoothing(schedules.theta, rules)
  tx = optax.chain(owner, base)
  return smoothing.reset_momentum(tx) if reset_momentum else tx
