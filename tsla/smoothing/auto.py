"""When θ drops, decided by what is measured on the way.

A training loop measures now and then (`gradient_statistics`) and shows the
optimiser what it saw. Each of the `rules` says whether smoothing should end,
and the one in force, if it has said so several times in a row, ends it. What
was decided is part of the optimiser's state, beside θ, so it is saved with it:

  >>> import jax, optax, tsla
  >>> auto = tsla.auto_two_stage(0.4, 'delta', min_step=2, max_step=100)
  >>> tx = optax.chain(auto.transformation, optax.sgd(0.1))
  >>> params = jnp.zeros(2)
  >>> opt_state = tx.init(params)
  >>> def pair(key):  # ∇F = (3, 4), σ² = 2, h = 0: δ = 12.5
  ...   return jnp.array([3.0, 4.0]) + jax.random.normal(key, (2,)), params
  >>> keys = jax.random.split(jax.random.key(0), 100)
  >>> for step in range(4):
  ...   theta = tsla.current_theta(opt_state)
  ...   found = tsla.gradient_statistics(pair, keys, theta, batch_size=1)
  ...   opt_state = auto.observe(opt_state, tsla.Observation(found))
  ...   print(f'theta {tsla.current_theta(opt_state):.1f}')
  ...   _, opt_state = tx.update(params, opt_state, params)
  theta 0.4
  theta 0.4
  theta 0.0
  theta 0.0
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from tsla.smoothing import schedules
from tsla.smoothing.rules import RULES, Memory, Observation, Rule, rule_number
from tsla.smoothing.transform import (
  LabelSmoothingState,
  label_smoothing,
  only_state,
  replace_states,
  smoothing_state,
  theta_at,
)

_NEVER = 2**31 - 1


class AutoState(NamedTuple):
  """State of a transformation that can be shown observations."""

  smoothing: LabelSmoothingState  # what `current_theta` finds
  memory: Memory
  before: Memory  # without the last observation
  observed: jax.Array  # i32[], the count of the last observation; −1: none


class AutoTwoStage(NamedTuple):
  """`auto_two_stage`: what goes into the chain, and what shows it things."""

  transformation: optax.GradientTransformationExtraArgs
  # (opt_state, Observation) -> opt_state, for the next gradient
  observe: Callable[[optax.OptState, Observation], optax.OptState]


def auto_two_stage(
  theta: ArrayLike,
  rule: str,
  *,
  min_step: int = 0,
  max_step: int = _NEVER,
  patience: int = 2,
  rules: Mapping[str, Rule] = RULES,
  lowest: float = 0.0,
  highest: float = 1.0,
) -> AutoTwoStage:
  """TSLA whose s is found on the way: θ until `rule` says so, then exactly 0.

  The transformation has the state `AutoState`. An observation at the count of
  the last one replaces that.

  Args:
    theta: smoothing strength of stage one.
    rule: 'delta', 'mse', 'floor' or 'plateau', or another name of `rules`; or
      'optimal', which does not end it, but puts θ* of each observation in the
      place of θ.
    min_step: updates before which nothing is decided, an integer >= 0.
    max_step: first update without smoothing if nothing was decided, an integer
      > min_step.
    patience: observations in a row at which the rule must fire, an integer >=
      1. Those before `min_step` count.
    rules: what is asked at each observation, by name.
    lowest: rule 'optimal' takes no θ* below, and none above `highest`; as
      `Method` has them.
    highest: see `lowest`.

  Raises:
    ValueError: as `two_stage`; an unknown rule, steps out of order, or no
      integer where one must be.

  Example:
    >>> auto = auto_two_stage(0.4, 'mse', max_step=100)
    >>> auto.transformation.init(jnp.zeros(2)).smoothing.theta.item()
    0.4000000059604645
  """
  rule_number(rule or None, rules)  # there is one
  schedules.check_step('min_step', min_step, least=0)
  schedules.check_step('max_step', max_step, least=min_step + 1)
  schedules.check_step('patience', patience, least=1)
  schedule = schedules.two_stage(theta, max_step)

  options: dict[str, Any] = {'min_step': min_step, 'patience': patience}
  options |= {'rules': rules, 'lowest': lowest, 'highest': highest}
  show = functools.partial(observe, schedule=schedule, rule=rule, **options)
  return AutoTwoStage(adaptive_smoothing(schedule, rules), show)


def adaptive_smoothing(
  schedule: optax.Schedule, rules: Mapping[str, Rule] = RULES
) -> optax.GradientTransformationExtraArgs:
  """`label_smoothing(schedule)` that can be shown observations.

  θ is the schedule's, until an observation decides otherwise. The state is
  `AutoState`.

  Args:
    schedule: as for `label_smoothing`.
    rules: what is asked at each observation, by name.

  Example:
    >>> import tsla
    >>> tx = adaptive_smoothing(tsla.constant(0.1))
    >>> int(tx.init(jnp.zeros(2)).memory.firings['delta'])
    0
  """
  inner = label_smoothing(schedule)

  def init_fn(params: optax.Params) -> AutoState:
    # Not inf: a state that is not finite is one that diverged.
    largest = jnp.finfo(jnp.float32).max
    memory = Memory(
      lowest_norm=jnp.float32(largest),
      lowest_loss=jnp.float32(largest),
      firings={name: jnp.zeros((), jnp.int32) for name in rules},
      drop_step=jnp.int32(_NEVER),
      follows=jnp.array(False),
      followed=jnp.float32(0),
    )
    before = jax.tree.map(jnp.copy, memory)  # each leaf may be donated
    return AutoState(inner.init(params), memory, before, jnp.int32(-1))

  def update_fn(
    updates: optax.Updates,
    state: AutoState,
    params: optax.Params | None = None,
    **extra: Any,
  ) -> tuple[optax.Updates, AutoState]:
    updates, moved = inner.update(updates, state.smoothing, params, **extra)
    return updates, state._replace(smoothing=_decided(moved, state.memory))

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def observe(
  opt_state: optax.OptState,
  seen: Observation,
  schedule: optax.Schedule,
  *,
  rule: str | jax.Array,
  min_step: ArrayLike = 0,
  patience: ArrayLike = 1,
  rules: Mapping[str, Rule] = RULES,
  lowest: ArrayLike = 0.0,
  highest: ArrayLike = 1.0,
) -> optax.OptState:
  """Shows an observation to the `adaptive_smoothing` in an optimiser's state.

  Returns that with what the rules say, and θ for the next gradient.

  Args:
    opt_state: any nesting with one `AutoState` in it, concrete or traced; of
      an `nnx.Optimizer`, too, whose `opt_state` becomes what is returned.
    seen: what was measured at the weights that the next gradient is taken at.
    schedule: that of the transformation.
    rule: which of `rules` is in force, by name, or 'optimal'; '': none,
      nothing is decided. As an input of a compiled program i32[], the
      `rule_number` of the name.
    min_step: as for `auto_two_stage`, and so are the others; all but `rules`
      may be traced.
    patience: as there.
    rules: those of the transformation.
    lowest: as there.
    highest: as there.

  Raises:
    ValueError: opt_state holds no `AutoState`, or more than one; an unknown
      rule, other `rules` than the transformation's, or no `Observation`.
  """
  state = auto_state(opt_state)
  number: ArrayLike | str = rule
  if not isinstance(rule, jax.Array | np.ndarray | np.integer):
    number = rule_number(rule, rules)
  if set(rules) != set(state.memory.firings) or not hasattr(seen, 'statistics'):
    raise ValueError(
      f'A {type(seen).__name__} and rules {[*rules]}: observe takes tsla.'
      f'Observation(statistics) and the rules {[*state.memory.firings]}.'
    )
  # x64 or not, the state is of float32.
  seen = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), seen)
  count = state.smoothing.count
  again, before = state.observed == count, (state.before, state.memory)
  before = jax.tree.map(lambda *both: jnp.where(again, *both), *before)
  firings = {
    name: jnp.where(fires(seen, before), before.firings[name] + 1, 0)
    for name, fires in rules.items()
  }
  often = [row >= patience for row in firings.values()]
  decided = count >= min_step
  decided &= jnp.stack([(number == i) & x for i, x in enumerate(often)]).any()
  best = seen.statistics.theta_star.value
  follows = number == len(rules)
  follows &= (count >= min_step) & jnp.isfinite(best)
  norm = seen.statistics.smoothed_grad_norm.value
  best = jnp.clip(best, lowest, highest)
  memory = Memory(
    lowest_norm=jnp.fmin(before.lowest_norm, norm),
    lowest_loss=jnp.fmin(before.lowest_loss, seen.held_out_loss),
    firings=firings,
    # Later counts are larger, so the first decision stands.
    drop_step=jnp.minimum(before.drop_step, jnp.where(decided, count, _NEVER)),
    follows=follows | before.follows,
    followed=jnp.where(follows, best, before.followed),
  )
  moved = state.smoothing._replace(theta=theta_at(schedule, count))
  moved = _decided(moved, memory)
  state = AutoState(moved, memory, before, jnp.copy(count))
  return replace_states(opt_state, AutoState, lambda _: state)


def with_schedule(
  opt_state: optax.OptState, schedule: optax.Schedule
) -> optax.OptState:
  """The same state under another schedule: θ = schedule(count).

  For a run that goes on from a checkpoint of a run with another schedule, such
  as TSLA(s) from the label-smoothing run it shares its first s epochs with. (A
  state holds θ for the next gradient, so it still holds the old schedule's.)
  What `observe` decided stands.

  Args:
    opt_state: as for `smoothing_state`.
    schedule: the schedule of the transformation that goes on.

  Raises:
    ValueError: opt_state holds no `LabelSmoothingState`, or more than one.

  Example:
    >>> import tsla
    >>> trunk = label_smoothing(tsla.constant(0.1)).init(jnp.zeros(3))
    >>> float(with_schedule(trunk, tsla.two_stage(0.1, drop_step=0)).theta)
    0.0
  """

  def move(node: Any) -> Any:
    if isinstance(node, AutoState):
      moved = _decided(move(node.smoothing), node.memory)
      return node._replace(smoothing=moved)
    return node._replace(theta=theta_at(schedule, node.count))

  smoothing_state(opt_state)  # there is one
  return replace_states(opt_state, AutoState | LabelSmoothingState, move)


def auto_state(opt_state: optax.OptState) -> AutoState:
  """The state of `adaptive_smoothing`, as `smoothing_state` finds its own."""
  return only_state(opt_state, AutoState, 'auto_two_stage transformation')


def _decided(own: LabelSmoothingState, memory: Memory) -> LabelSmoothingState:
  """With θ as the observations say, in place of the schedule's."""
  follows = memory.follows & (own.theta != 0)
  theta = jnp.where(follows, memory.followed, own.theta)
  theta = jnp.where(own.count >= memory.drop_step, 0.0, theta)
  return own._replace(theta=theta)
