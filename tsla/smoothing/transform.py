"""The optax transformation that owns θ.

`label_smoothing(schedule)` goes in front of any optimiser. The training step
reads θ from the optimiser state and hands it to the loss; the update that
applies the gradient moves θ on. So θ is saved, restored and skipped together
with the update it belongs to, and being traced it recompiles nothing at the
switch. `docs/library.md` has whole loops: a bare one, and those with flax's
`TrainState` and `nnx.Optimizer`. Every state may be donated.

For a loss that takes no soft labels, let the transformation mix the gradients
against y and against ŷ, `tx.update(g, opt_state, params, smoothing_updates=h)`:
the same update, because the gradient is linear in the label.

Under `optax.MultiSteps` the two ways take different places. θ through the loss:
inside, `MultiSteps(chain(label_smoothing(s), opt), k)`; θ stays constant while
gradients accumulate and `count` counts applied updates. `smoothing_updates`:
outside, `chain(label_smoothing(s), MultiSteps(opt, k))`, because MultiSteps
accumulates gradients but not extra arguments and inside would mix in the last
mini-step's only; `count` then counts mini-steps, so a drop step is k times as
large.

`optax.lookahead` takes no extra arguments, and a chain that holds it drops
them in silence: put `label_smoothing` in front of it, not inside.

Under `optax.inject_hyperparams` inject numbers such as the learning rate and
close over the schedule of θ: an injected schedule arrives one update late.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class LabelSmoothingState(NamedTuple):
  """State of `label_smoothing`."""

  count: jax.Array  # type: ignore[assignment]  # i32[], updates applied
  theta: jax.Array  # f32[], the coefficient for the next gradient


def label_smoothing(
  schedule: optax.Schedule,
) -> optax.GradientTransformationExtraArgs:
  """Own θ: hold the coefficient for the next gradient, move on per update.

  `update(updates, state, params=None, *, smoothing_updates=None)` leaves the
  updates untouched, for a loss that used `current_theta` already. Handed the
  gradient against ŷ on the same mini-batch it returns
  `(1−θ)·updates + θ·smoothing_updates`, in the dtypes of the updates. Other
  extra arguments are ignored, unless they look like this one misspelt. In the
  state, `LabelSmoothingState`, `theta` is `schedule(n)` after n updates.

  Args:
    schedule: an optax schedule, such as `two_stage(0.1, drop_step)`; called
      with count i32[].

  Raises:
    TypeError: schedule is not callable; in `update`, a misspelt argument.
    ValueError: in `update`, smoothing_updates of another shape; in `init`, a
      schedule that does not give one real number.

  Example:
    >>> import tsla
    >>> tx = label_smoothing(tsla.two_stage(0.4, drop_step=1))
    >>> state = tx.init({'w': jnp.zeros(2)})
    >>> updates, state = tx.update(
    ...   {'w': jnp.ones(2)}, state, smoothing_updates={'w': jnp.zeros(2)}
    ... )
    >>> updates
    {'w': Array([0.6, 0.6], dtype=float32)}
    >>> int(state.count), float(state.theta)
    (1, 0.0)

  Reference:
    arXiv:2006.11653, the TSLA algorithm.
  """
  if not callable(schedule):
    raise TypeError(
      f'schedule = {schedule!r} is not a schedule: pass e.g. constant(0.1). '
      'If inject_hyperparams made a number of it, pass '
      "static_args=('schedule',) there."
    )

  def state_at(count: jax.Array) -> LabelSmoothingState:
    return LabelSmoothingState(count, theta_at(schedule, count))

  def init_fn(params: optax.Params) -> LabelSmoothingState:
    return state_at(jnp.zeros([], jnp.int32))

  def update_fn(
    updates: optax.Updates,
    state: LabelSmoothingState,
    params: optax.Params | None = None,
    *,
    smoothing_updates: optax.Updates | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, LabelSmoothingState]:
    name = 'smoothing_updates'
    if near := difflib.get_close_matches(name, extra_args, cutoff=0.75):
      raise TypeError(f'{near[0]} is not an argument of update: {name} is.')
    if smoothing_updates is not None:

      def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

      def mix(update: Any, smoothing_update: Any) -> Any:
        if is_masked(update):  # optax.masked leaves extra arguments whole
          return update
        shapes = jnp.shape(update), jnp.shape(smoothing_update)
        if shapes[0] != shapes[1]:
          raise ValueError(
            f'smoothing_updates of shape {shapes[1]} for updates of {shapes[0]}'
            ': pass the gradient against ŷ of the same parameters.'
          )
        with jax.numpy_dtype_promotion('standard'):  # where it is strict, too
          mixed = (1 - state.theta) * update + state.theta * smoothing_update
        return mixed.astype(jnp.result_type(update))

      updates = jax.tree.map(mix, updates, smoothing_updates, is_leaf=is_masked)
    return updates, state_at(optax.safe_increment(state.count))

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def smoothing_state(opt_state: optax.OptState) -> LabelSmoothingState:
  """The state of `label_smoothing`, found anywhere in an optimiser's state.

  Its `count` updates were applied, its `theta` is for the next gradient.

  Args:
    opt_state: any nesting of chain, masked, MultiSteps, inject_hyperparams,
      partition …, concrete or traced; of an `nnx.Optimizer`, too.

  Raises:
    ValueError: opt_state holds none, or more than one.

  Example:
    >>> import tsla
    >>> tx = optax.chain(label_smoothing(tsla.constant(0.1)), optax.adam(1e-3))
    >>> int(smoothing_state(tx.init(jnp.zeros(3))).count)
    0
  """
  return only_state(opt_state, LabelSmoothingState, 'label_smoothing(schedule)')


def current_theta(opt_state: optax.OptState) -> jax.Array:
  """θ for the next gradient, f32[], read from an optimiser's state.

  Args:
    opt_state: as for `smoothing_state`.

  Raises:
    ValueError: opt_state holds no `LabelSmoothingState`, or more than one.

  Example:
    >>> import tsla
    >>> tx = optax.chain(label_smoothing(tsla.constant(0.1)), optax.adam(1e-3))
    >>> current_theta(tx.init(jnp.zeros(3)))
    Array(0.1, dtype=float32)
  """
  return smoothing_state(opt_state).theta


def theta_at(schedule: optax.Schedule, count: jax.Array) -> jax.Array:
  """θ of a schedule, f32[]."""
  theta = jnp.asarray(schedule(count))
  if theta.shape not in ((), jnp.shape(count)) or jnp.iscomplexobj(theta):
    raise ValueError(
      f'schedule(count) is of shape {theta.shape} and dtype {theta.dtype}: it '
      'must be one real number.'
    )
  # A copy: a schedule may return an array of the user's, not to be donated.
  return jnp.array(theta, jnp.float32)


def only_state(opt_state: optax.OptState, kind: type, maker: str) -> Any:
  """The state of a kind, of arrays where those of nnx are variables."""
  nodes = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind))
  states = [_arrays(node) for node in nodes if isinstance(node, kind)]
  if len(states) != 1:
    raise ValueError(
      f'{len(states)} {kind.__name__}s in the optimiser state: by optax.chain, '
      f'put one {maker} in front of the whole optimiser. A state restored from '
      'a checkpoint needs tx.init(params) as its target.'
    )
  return states[0]


def replace_states(
  opt_state: optax.OptState, kinds: Any, change: Callable[[Any], Any]
) -> optax.OptState:
  """With `change` of each state of the kinds, in variables where it was."""

  def wrap(old: Any, new: Any) -> Any:
    return old.copy(new) if _is_variable(old) else new

  def found(node: Any) -> bool:
    return isinstance(node, kinds)

  def replace(node: Any) -> Any:
    if not found(node):
      return node
    return jax.tree.map(wrap, node, change(_arrays(node)), is_leaf=_is_variable)

  return jax.tree.map(replace, opt_state, is_leaf=found)


def _arrays(tree: Any) -> Any:
  def value(leaf: Any) -> Any:
    return leaf.get_value() if _is_variable(leaf) else leaf

  return jax.tree.map(value, tree, is_leaf=_is_variable)


def _is_variable(leaf: Any) -> bool:
  # By what it can do: flax need not be installed.
  return hasattr(leaf, 'get_value') and hasattr(leaf, 'get_metadata')
