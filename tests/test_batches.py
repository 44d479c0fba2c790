"""The order of the examples: a pure function of seed and step."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsla.data import batches


def test_each_epoch_is_another_permutation_and_so_is_each_seed():
  runs = [(seed, epoch) for seed in (0, 1) for epoch in range(5)]
  orders = [np.asarray(batches.epoch_order(*run, 97)) for run in runs]
  for order in orders:
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(97))
  assert len({order.tobytes() for order in orders}) == len(runs)


def test_orders_are_uniform_over_all_permutations():
  epochs = jnp.arange(6_000)
  orders = jax.vmap(lambda epoch: batches.epoch_order(0, epoch, 4))(epochs)
  seen, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
  assert len(seen) == math.factorial(4)
  expected = 6_000 / 24
  # 49.7 is the 99.9 % quantile of chi-square with 23 degrees of freedom.
  assert np.sum((counts - expected) ** 2 / expected) < 49.7


def test_the_order_is_the_same_again_under_jit_and_with_traced_arguments():
  order = np.asarray(batches.epoch_order(7, 3, 360))
  again = batches.epoch_order(7, 3, 360)
  compiled = jax.jit(batches.epoch_order, static_argnums=2)(
    jnp.int32(7), jnp.int32(3), 360
  )
  with jax.default_prng_impl('rbg'):
    other_default = batches.epoch_order(7, 3, 360)
  np.testing.assert_array_equal(order, again)
  np.testing.assert_array_equal(order, compiled)
  np.testing.assert_array_equal(order, other_default)


def test_a_scan_over_steps_visits_the_order_and_drops_the_remainder():
  num_examples, batch_size = 97, 16
  per_epoch = batches.steps_per_epoch(num_examples, batch_size)
  assert per_epoch == 6
  order = batches.epoch_order(0, 2, num_examples)
  slots = jnp.arange(batch_size)

  def body(step, _):
    return step + 1, batches.train_indices(order, step, slots, batch_size)

  _, chunk = jax.jit(lambda: jax.lax.scan(body, 2 * per_epoch, None, 6))()
  np.testing.assert_array_equal(chunk.ravel(), np.asarray(order)[:96])


@pytest.mark.parametrize('num_parts', [2, 8])
def test_parts_of_the_slots_concatenate_to_the_same_batch(num_parts):
  order = batches.epoch_order(0, 0, 360)
  slots = jnp.arange(32)
  parts = slots.reshape(num_parts, -1)

  whole = batches.train_indices(order, 5, slots, 32)
  split = [batches.train_indices(order, 5, part, 32) for part in parts]
  np.testing.assert_array_equal(np.concatenate(split), whole)
  np.testing.assert_array_equal(whole, np.asarray(order)[160:192])

  indices, mask = batches.eval_indices(11, 32, slots, 360)
  split = [batches.eval_indices(11, 32, part, 360) for part in parts]
  np.testing.assert_array_equal(np.concatenate([s[0] for s in split]), indices)
  np.testing.assert_array_equal(np.concatenate([s[1] for s in split]), mask)


@pytest.mark.parametrize('num_examples', [1, 7, 96, 97])
@pytest.mark.parametrize('batch_size', [1, 8, 97, 128])
def test_evaluation_counts_every_example_exactly_once(num_examples, batch_size):
  count = batches.num_eval_batches(num_examples, batch_size)
  assert count == math.ceil(num_examples / batch_size)
  slots = jnp.arange(batch_size)
  seen = []
  for index in range(count):
    indices, mask = batches.eval_indices(index, batch_size, slots, num_examples)
    indices, mask = np.asarray(indices), np.asarray(mask)
    assert indices.shape == mask.shape == (batch_size,)
    assert indices.min() >= 0 and indices.max() < num_examples
    seen.extend(indices[mask])
  assert seen == list(range(num_examples))
