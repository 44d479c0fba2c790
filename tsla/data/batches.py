"""Which examples a step sees: a pure function of the seed and the step.

Nothing iterates, so nothing has to be saved: a resumed run computes the batch
it would have seen. `slots` is the part of the global batch that the calling
device holds, and the only input that differs between devices.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

# Separates the order from other draws of the same seed.
_STREAM = int.from_bytes(b'ordr')


def epoch_order(
  seed: ArrayLike, epoch: ArrayLike, num_examples: int
) -> jax.Array:
  """The order in which an epoch, from 0, visits the examples, `i32[N]`."""
  # Named, so that `jax_default_prng_impl` cannot change a run.
  key = jax.random.key(seed, impl='threefry2x32')
  key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), epoch)
  return jax.random.permutation(key, jnp.arange(num_examples, dtype=jnp.int32))


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
  """Returns the number of full batches; the epoch's remainder is dropped."""
  return num_examples // batch_size


def train_indices(
  order: jax.Array, step: ArrayLike, slots: jax.Array, batch_size: int
) -> jax.Array:
  """The examples of a training step, `i32[B]`; none comes twice in an epoch.

  `order` is that of epoch `step // steps_per_epoch`, after `step` updates.
  """
  position = step % steps_per_epoch(order.shape[0], batch_size)
  return order[position * batch_size + slots]


def num_eval_batches(num_examples: int, batch_size: int) -> int:
  """Returns the number of batches that cover every example, the last padded."""
  return -(-num_examples // batch_size)


def eval_indices(
  batch_index: ArrayLike, batch_size: int, slots: jax.Array, num_examples: int
) -> tuple[jax.Array, jax.Array]:
  """The examples of an evaluation batch, and which count, `i32[B]`, `bool[B]`.

  Over `num_eval_batches` batches each example counts exactly once, whatever the
  batch size; it may exceed N. What pads the last batch is valid too.
  """
  places = batch_index * batch_size + slots
  return jnp.minimum(places, num_examples - 1), places < num_examples
