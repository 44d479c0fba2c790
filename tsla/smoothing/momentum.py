"""The optimiser's momentum, forgotten where smoothing ends.

At the switch the buffer still holds gradients against the smoothed label. This
is the control for how much of TSLA is due to them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tsla.smoothing.transform import current_theta

# What remembers gradients, by name, for optax does not export all of it.
_MOMENTUM = (
  'AdaDelta Adam Adan Ademamix Amsgrad Belief COCOB DAdaptAdamW Ema Factored '
  'Lion Madgrad Muon Novograd OptimisticGradient Prodigy Rms Rprop Rss '
  'RStdDev RStdDevWithCount RmsWithCount SM3 SimplifiedAdEMAMix Trace'
)


class ResetMomentumState(NamedTuple):
  """State of `reset_momentum`."""

  smoothed: jax.Array  # bool[], whether the last gradient was
  inner: optax.OptState


def reset_momentum(
  tx: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """`tx`, whose momentum begins anew with the first gradient without smoothing.

  All that remembers gradients is as `init` makes it: SGD's buffer, the moments
  of Adam and its kin, of RMSProp, Adagrad, Adafactor, Lion, Muon …, with the
  count that corrects the bias of those; the learning rate's count goes on, and
  so do states that are not of optax, or of parts such as Momo and L-BFGS. An
  update is without smoothing if its θ is exactly 0.

  Args:
    tx: a chain of optax's parts that owns θ and has momentum.

  Raises:
    ValueError: in `init`, where nothing of the kind is found.
    TypeError: in `update`, smoothing_updates that `tx` does not pass on.

  Example:
    >>> import tsla
    >>> tx = reset_momentum(
    ...   optax.chain(
    ...     tsla.label_smoothing(tsla.two_stage(0.1, drop_step=1)),
    ...     optax.sgd(1.0, momentum=0.5),
    ...   )
    ... )
    >>> state, updates = tx.init(jnp.zeros(())), []
    >>> for _ in range(3):
    ...   update, state = tx.update(jnp.ones(()), state)
    ...   updates.append(float(update))
    >>> updates
    [-1.0, -1.0, -1.5]
  """
  passes = isinstance(tx, optax.GradientTransformationExtraArgs)
  tx = optax.with_extra_args_support(tx)

  def init_fn(params: optax.Params) -> ResetMomentumState:
    inner = tx.init(params)
    if not any(map(_remembers, jax.tree.leaves(inner, is_leaf=_remembers))):
      raise ValueError(
        'No momentum in the optimiser state that reset_momentum knows: use one '
        'of optax that has it, such as sgd(0.1, momentum=0.9).'
      )
    return ResetMomentumState(jnp.array(False), inner)

  def update_fn(
    updates: optax.Updates,
    state: ResetMomentumState,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, ResetMomentumState]:
    if 'smoothing_updates' in extra_args and not passes:
      raise TypeError(
        'smoothing_updates do not get through MultiSteps or lookahead: '
        'reset_momentum(optax.chain(label_smoothing(schedule), tx)).'
      )
    smoothed = current_theta(state.inner) != 0
    kept = ~state.smoothed | smoothed

    def keep(node: Any, new: Any) -> Any:
      if not _remembers(node):
        return node
      return jax.tree.map(lambda x, y: jnp.where(kept, x, y), node, new)

    fresh = tx.init(updates if params is None else params)
    inner = jax.tree.map(keep, state.inner, fresh, is_leaf=_remembers)
    updates, inner = tx.update(updates, inner, params, **extra_args)
    return updates, ResetMomentumState(smoothed, inner)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _remembers(node: Any) -> bool:
  kind = type(node)
  name = kind.__name__.removeprefix('ScaleBy').removesuffix('State')
  return kind.__module__.startswith('optax.') and name in _MOMENTUM.split()
