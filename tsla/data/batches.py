"""Which examples a step sees: a pure function of the seed and the step.

Nothing iterates, so nothing has to be saved: a resumed run computes the batch
it would have seen. `slots` is the part of the global batch that the calling
device holds, and the only input that differs between devices:

- `jit`: `slots = arange(batch_size)`, sharded over the mesh or not;
- `pmap` over D devices: each holds its own `batch_size // D` of them.

Every function runs inside `jit`, `pmap` and `scan`.
"""

import jax
import jax.numpy as jnp

# Separates the order from other draws of the same seed.
_STREAM = int.from_bytes(b'ordr')


def epoch_order(
  seed: int | jax.Array, epoch: int | jax.Array, num_examples: int
) -> jax.Array:
  """The order in which an epoch visits the N training examples, `i32[N]`."""
  # Named, so that `jax_default_prng_impl` cannot change a run.
  key = jax.random.key(seed, impl='threefry2x32')
  key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), epoch)
  return jax.random.permutation(key, jnp.arange(num_examples, dtype=jnp.int32))


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
  """The number of full batches; the epoch's remainder is dropped."""
  return num_examples // batch_size


def train_indices(
  order: jax.Array, step: int | jax.Array, slots: jax.Array, batch_size: int
) -> jax.Array:
  """The examples of a training step, one for each of the `slots`.

  `order` is the `epoch_order` of epoch `step // steps_per_epoch`; `step` counts
  the updates since the run began.

  Example:
    >>> order = jnp.array([4, 1, 3, 0, 2])
    >>> train_indices(order, step=1, slots=jnp.arange(2), batch_size=2).tolist()
    [3, 0]
  """
  position = step % steps_per_epoch(order.shape[0], batch_size)
  return order[position * batch_size + slots]


def num_eval_batches(num_examples: int, batch_size: int) -> int:
  """The number of batches that cover every example, the last one padded."""
  return -(-num_examples // batch_size)


def eval_indices(
  batch_index: int | jax.Array,
  batch_size: int,
  slots: jax.Array,
  num_examples: int,
) -> tuple[jax.Array, jax.Array]:
  """The examples of an evaluation batch, and which of them are no padding.

  Over `num_eval_batches` batches each example counts exactly once, whatever the
  batch size; it may exceed N. All of the indices are valid.

  Example:
    >>> indices, mask = eval_indices(1, 3, jnp.arange(3), num_examples=4)
    >>> indices.tolist(), mask.tolist()
    ([3, 3, 3], [True, False, False])
  """
  places = batch_index * batch_size + slots
  return jnp.minimum(places, num_examples - 1), places < num_examples
