"""The optimiser's momentum, forgotten where smoothing ends.

At the switch the buffer still holds gradients against the smoothed label. This
is the control for how much of TSLA is due to them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tsla.smoothing.transform import current_theta

_MOMENTUM = (optax.TraceState, optax.ScaleByAdamState)


class ResetMomentumState(NamedTuple):
  """State of `reset_momentum`."""

  smoothed: jax.Array  # bool[], whether the last gradient was
  inner: optax.OptState


def reset_momentum(
  tx: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """`tx`, whose momentum begins anew with the first gradient without smoothing.

  The buffers of SGD's momentum and of Adam's moments (LAMB's too), with the
  count that corrects the bias of those; the learning rate's count goes on. An
  update is without smoothing if its θ is exactly 0.

  Args:
    tx: a chain that owns θ and has momentum.

  Returns:
    A transformation with the state `ResetMomentumState`.

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
  tx = optax.with_extra_args_support(tx)

  def init_fn(params: optax.Params) -> ResetMomentumState:
    return ResetMomentumState(jnp.array(False), tx.init(params))

  def update_fn(
    updates: optax.Updates,
    state: ResetMomentumState,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, ResetMomentumState]:
    smoothed = current_theta(state.inner) != 0
    kept = ~state.smoothed | smoothed

    def keep(node: Any) -> Any:
      if not isinstance(node, _MOMENTUM):
        return node
      return jax.tree.map(lambda x: jnp.where(kept, x, jnp.zeros_like(x)), node)

    inner = jax.tree.map(
      keep, state.inner, is_leaf=lambda node: isinstance(node, _MOMENTUM)
    )
    updates, inner = tx.update(updates, inner, params, **extra_args)
    return updates, ResetMomentumState(smoothed, inner)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
