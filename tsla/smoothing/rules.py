"""What may end the smoothing: each rule looks at a measurement and says so.

Every rule is asked each time, whichever is in force, so one run that smooths to
the end tells when each of them would have ended it. The state that they move is
that of `tsla.smoothing.auto`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from tsla.smoothing.estimates import GradientStatistics

# Of the gradients against y and against the smoothed label: below, they have
# parted company.
FLOOR_COSINE = 0.5


class Observation(NamedTuple):
  """What the rules look at."""

  statistics: GradientStatistics  # at the θ in use, at the batch size in use
  # f32[], cross-entropy against the true labels of examples that are not
  # trained on; NaN where there are none
  held_out_loss: ArrayLike = float('nan')


class Memory(NamedTuple):
  """What the observations so far left behind; every number is finite."""

  lowest_norm: jax.Array  # f32[], of ‖∇F_smoothed‖
  lowest_loss: jax.Array  # f32[], of the held-out loss
  firings: dict[str, jax.Array]  # i32[], how often in a row each rule fired
  drop_step: jax.Array  # i32[], first update without smoothing, once decided
  follows: jax.Array  # bool[], whether `followed` is in the schedule's place
  followed: jax.Array  # f32[], θ, that is θ* of an observation


def delta(seen: Observation, memory: Memory) -> jax.Array:
  """δ > 1: the smoothing label's gradient errs more than the true one's."""
  return seen.statistics.delta.value > 1


def mse(seen: Observation, memory: Memory) -> jax.Array:
  """m(θ) > σ²: the smoothed gradient errs more than the plain one."""
  return seen.statistics.mse_ratio.value > 1


def floor(seen: Observation, memory: Memory) -> jax.Array:
  """‖∇F_smoothed‖ stands still, and points elsewhere than ∇F.

  That is where smoothing cannot go further: it did not fall by more than its
  standard error below the lowest so far, and the cosine between the two is
  below `FLOOR_COSINE`.
  """
  norm, error = seen.statistics.smoothed_grad_norm
  stands = norm > memory.lowest_norm - error
  return stands & (seen.statistics.cosine.value < FLOOR_COSINE)


def plateau(seen: Observation, memory: Memory) -> jax.Array:
  """The held-out loss is no lower than it was at its best."""
  return jnp.asarray(seen.held_out_loss >= memory.lowest_loss)


# (what is seen, what was seen before) -> bool[]
Rule = Callable[[Observation, Memory], jax.Array]
# NaN fires none.
RULES = {rule.__name__: rule for rule in (delta, mse, floor, plateau)}
# In force in place of a rule: θ = θ* from one observation to the next.
OPTIMAL = 'optimal'
NAMES = (*RULES, OPTIMAL)


def rule_number(rule: str | None, rules: Mapping[str, Rule] = RULES) -> int:
  """A rule's name as a number, which may be the input of a compiled program.

  Its place in `rules`, one more than the last for 'optimal', −1 for ''.

  Raises:
    ValueError: an unknown name, no name, or rules that are not by name.

  Example:
    >>> rule_number('mse'), rule_number('')
    (1, -1)
  """
  if not isinstance(rules, Mapping) or not all(map(callable, rules.values())):
    raise ValueError(f'rules = {rules!r} must be functions by name, as RULES.')
  names = ['', *rules, OPTIMAL]
  if not isinstance(rule, str) or rule not in names:
    raise ValueError(f'rule = {rule!r} must be one of {", ".join(names[1:])}.')
  return names.index(rule) - 1
