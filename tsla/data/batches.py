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
  """Returns the order in which an epoch visits the training examples.

  Args:
    seed: the run's seed; may be traced.
    epoch: which pass over the data, from 0; may be traced.
    num_examples: N, at least 1.

  Returns:
    `i32[N]`, a permutation of 0 .. N - 1.

  Example:
    >>> sorted(epoch_order(seed=0, epoch=3, num_examples=4).tolist())
    [0, 1, 2, 3]
  """
  # Named, so that `jax_default_prng_impl` cannot change a run.
  key = jax.random.key(seed, impl='threefry2x32')
  key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), epoch)
  return jax.random.permutation(key, jnp.arange(num_examples, dtype=jnp.int32))


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
  """Returns the number of full batches; the epoch's remainder is dropped."""
  return num_examples // batch_size


def train_indices(
  order: jax.Array, step: int | jax.Array, slots: jax.Array, batch_size: int
) -> jax.Array:
  """Returns the examples of a training step.

  Args:
    order: `i32[N]`, `epoch_order` of epoch `step // steps_per_epoch`.
    step: updates done before this one since the run began; may be traced.
    slots: `i32[B]`, this device's places in the batch, in 0 .. batch_size - 1.
    batch_size: the global batch size, 1 .. N.

  Returns:
    `i32[B]`, indices into the data set. No example comes twice in an epoch.

  Example:
    >>> order = jnp.array([4, 1, 3, 0, 2])
    >>> train_indices(order, step=1, slots=jnp.arange(2), batch_size=2).tolist()
    [3, 0]
  """
  position = step % steps_per_epoch(order.shape[0], batch_size)
  return order[position * batch_size + slots]


def num_eval_batches(num_examples: int, batch_size: int) -> int:
  """Returns the number of batches that cover every example, the last padded."""
  return -(-num_examples // batch_size)


def eval_indices(
  batch_index: int | jax.Array,
  batch_size: int,
  slots: jax.Array,
  num_examples: int,
) -> tuple[jax.Array, jax.Array]:
  """Returns the examples of an evaluation batch and which of them count.

  Over `num_eval_batches` batches each example counts exactly once, whatever the
  batch size; it may exceed N.

  Args:
    batch_index: 0 .. `num_eval_batches` - 1; may be traced.
    batch_size: the global batch size, at least 1.
    slots: `i32[B]`, this device's places in the batch, in 0 .. batch_size - 1.
    num_examples: N, at least 1.

  Returns:
    `i32[B]` indices, all of them valid, and `bool[B]`, false for padding.

  Example:
    >>> indices, mask = eval_indices(1, 3, jnp.arange(3), num_examples=4)
    >>> indices.tolist(), mask.tolist()
    ([3, 3, 3], [True, False, False])
  """
  places = batch_index * batch_size + slots
  return jnp.minimum(places, num_examples - 1), places < num_examples
