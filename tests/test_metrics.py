"""Metrics against plain NumPy in float64 and scikit-learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from tsla.data import batches
from tsla.evaluation import metrics

batch_sums = jax.jit(metrics.batch_sums)


def reference(logits, labels):
  """Every metric, example by example where it can be."""
  logits = np.asarray(logits, np.float64)
  count = len(labels)
  order = np.argsort(-logits, axis=1, kind='stable')
  shifted = np.exp(logits - logits.max(1, keepdims=True))
  p = shifted / shifted.sum(1, keepdims=True)
  hits = order[:, 0] == labels
  bins = np.ceil(p.max(1) * 15).astype(int)
  gaps = [
    abs(hits[bins == m].mean() - p.max(1)[bins == m].mean()) * sum(bins == m)
    for m in np.unique(bins)
  ]
  return {
    'top1': hits.mean(),
    'top5': np.mean([labels[i] in order[i, :5] for i in range(count)]),
    'nll': np.mean([-np.log(p[i, labels[i]]) for i in range(count)]),
    'brier': ((p - np.eye(logits.shape[1])[labels]) ** 2).sum(1).mean(),
    'ece': sum(gaps) / count,
    'count': count,
  }


def example_set(num_examples, num_classes, *, ties=False):
  rng = np.random.default_rng(num_examples + num_classes)
  logits = 3 * rng.standard_normal((num_examples, num_classes))
  if ties:
    logits = np.round(logits)
  return logits.astype(np.float32), rng.integers(0, num_classes, num_examples)


def all_counted(logits, labels):
  return batch_sums(logits, labels, np.ones(len(labels), bool))


@jax.jit
def added(first, second):
  return jax.tree.map(jnp.add, first, second)


def agree(got, expected):
  assert got.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(got[name], value, 1e-5, 1e-7, err_msg=name)


@functools.partial(jax.jit, static_argnames='batch_size')
def evaluate_batch(logits, labels, batch_index, num_examples, batch_size):
  indices, mask = batches.eval_indices(
    batch_index, batch_size, jnp.arange(batch_size), num_examples
  )
  return metrics.batch_sums(logits[indices], labels[indices], mask)


@pytest.mark.parametrize('num_examples', [1, 7, 97, 360])
@pytest.mark.parametrize('batch_size', [1, 8, 32, 360, 512])
def test_an_evaluation_in_batches_is_the_plain_mean(num_examples, batch_size):
  # The arrays are of one size, so that each batch size compiles once.
  logits, labels = example_set(360, 10, ties=True)
  sums = [
    evaluate_batch(logits, labels, index, num_examples, batch_size=batch_size)
    for index in range(batches.num_eval_batches(num_examples, batch_size))
  ]
  got = metrics.finalize(functools.reduce(added, sums))
  agree(got, reference(logits[:num_examples], labels[:num_examples]))


@pytest.mark.parametrize('num_classes', [2, 5, 6, 100])
@pytest.mark.parametrize('ties', [False, True])
def test_any_number_of_classes(num_classes, ties):
  logits, labels = example_set(200, num_classes, ties=ties)
  got = metrics.finalize(all_counted(logits, labels))
  agree(got, reference(logits, labels))
  if num_classes <= 5:
    assert got['top5'] == 1


def test_scikit_learn_agrees():
  logits, labels = example_set(300, 20)
  got = metrics.finalize(all_counted(logits, labels))
  wide = logits.astype(np.float64)
  p = np.exp(wide) / np.exp(wide).sum(1, keepdims=True)
  classes = np.arange(20)
  for k, name in ((1, 'top1'), (5, 'top5')):
    expected = sklearn.metrics.top_k_accuracy_score(
      labels, p, k=k, labels=classes
    )
    np.testing.assert_allclose(got[name], expected, 1e-12)
  expected = sklearn.metrics.log_loss(labels, p, labels=classes)
  np.testing.assert_allclose(got['nll'], expected, 1e-5)


def test_a_constant_model_is_right_on_the_first_classes_only():
  labels = np.arange(10)
  sums = all_counted(np.zeros((10, 10), np.float32), labels)
  assert (sums.top1, sums.top5) == (1, 5)


def test_a_confidence_on_a_bin_edge_belongs_below_it():
  sums = all_counted(np.zeros((4, 3), np.float32), np.zeros(4, int))
  # 1/3 = 5/15 closes the fifth bin.
  np.testing.assert_array_equal(sums.bin_count, np.eye(15)[4] * 4)
  sums = all_counted(np.array([[200.0, 0.0]], np.float32), np.zeros(1, int))
  np.testing.assert_array_equal(sums.bin_count, np.eye(15)[14])


def test_padding_may_hold_anything():
  logits, labels = example_set(8, 10)
  mask = np.array([1, 1, 0, 1, 0, 0, 0, 1], bool)
  kept = reference(logits[mask], labels[mask])
  logits[[2, 4, 5]] = [[np.nan], [np.inf], [-np.inf]]
  labels[[2, 4, 5]] = [-1, 10, 2**30]
  logits[6, labels[6]] = 50  # A perfect prediction must not count either.
  agree(metrics.finalize(batch_sums(logits, labels, mask)), kept)


def test_a_nan_is_wrong_and_shows_in_the_loss():
  logits = np.zeros((3, 4), np.float32)
  logits[0, 2] = np.nan
  logits[1] = np.nan
  got = metrics.finalize(all_counted(logits, np.zeros(3, int)))
  assert got['top1'] == got['top5'] == 1 / 3
  assert all(np.isnan(got[name]) for name in ('nll', 'brier', 'ece'))


def test_a_label_outside_the_classes_is_never_a_hit():
  sums = all_counted(np.zeros((2, 3), np.float32), np.array([-1, 3]))
  assert (sums.count, sums.top1, sums.top5) == (2, 0, 0)
  assert np.isnan(sums.nll)


def test_impossible_classes_and_huge_logits_are_exact():
  logits = np.array([[-np.inf, 1e30, 0.0], [-np.inf, 0.0, 0.0]], np.float32)
  got = metrics.finalize(all_counted(logits, np.array([1, 2])))
  np.testing.assert_allclose(got['nll'], np.log(2) / 2, 1e-6)
  np.testing.assert_allclose(got['brier'], 0.25, 1e-6)
  assert got['top1'] == 0.5


def test_bfloat16_logits_are_summed_in_float32():
  logits, labels = example_set(300, 10)
  rounded = jnp.asarray(logits, jnp.bfloat16)
  sums = all_counted(rounded, labels)
  agree(metrics.finalize(sums), reference(rounded.astype(np.float32), labels))


def test_sums_add_under_scan_and_psum():
  logits, labels = example_set(96, 10)
  parts = jnp.asarray(logits).reshape(8, 12, 10), labels.reshape(8, 12)

  def per_device(logits, labels):
    sums = metrics.batch_sums(logits, labels, jnp.ones(12, bool))
    return jax.lax.psum(sums, 'devices')

  mapped = jax.vmap(per_device, axis_name='devices', out_axes=None)
  over_devices = jax.jit(mapped)(*parts)

  def body(sums, part):
    return added(sums, metrics.batch_sums(*part, jnp.ones(12, bool))), None

  zero = jax.tree.map(jnp.zeros_like, over_devices)
  scanned, _ = jax.jit(lambda: jax.lax.scan(body, zero, parts))()
  for sums in (over_devices, scanned):
    agree(metrics.finalize(sums), reference(logits, labels))
    for name in ('count', 'top1', 'top5', 'bin_count', 'bin_correct'):
      assert getattr(sums, name).dtype == jnp.int32


def test_places_of_sequences_are_examples():
  logits, labels = example_set(96, 10)
  mask = np.arange(96) % 7 > 0
  whole = metrics.finalize(batch_sums(logits[mask], labels[mask], mask[mask]))
  got = batch_sums(
    logits.reshape(8, 12, 10), labels.reshape(8, 12), mask.reshape(8, 12)
  )
  agree(metrics.finalize(got), reference(logits[mask], labels[mask]))
  agree(metrics.finalize(got), whole)


def test_a_metric_of_ones_own_is_one_value_an_example():
  logits, labels = example_set(8, 8)
  mask, values = np.arange(8) < 2, np.arange(1.0, 9)

  def summed(values):
    return metrics.batch_sums(logits, labels, mask, lambda *_: {'own': values})

  assert summed(values).own['own'] == 1 + 2
  assert summed(values[:, None]).own['own'] == 1 + 2
  with pytest.raises(ValueError, match=r'shape \(\)'):
    summed(np.float64(3))


def test_the_name_of_a_built_in_metric_is_refused():
  logits, labels = example_set(8, 8)
  mask = np.ones(8, bool)
  for name in ('top1', 'top5', 'brier', 'ece', 'count'):
    with pytest.raises(ValueError, match=f'may not be called {name!r}'):
      metrics.batch_sums(logits, labels, mask, lambda *_, n=name: {n: mask})
  sums = metrics.batch_sums(logits, labels, mask)._replace(own={'nll': 1.0})
  with pytest.raises(ValueError, match="may not be called 'nll'"):
    metrics.finalize(sums)


@pytest.mark.parametrize('dtype', ['int32', 'float32', 'uint8', 'bfloat16'])
def test_a_mask_of_numbers_holds_0_and_1(dtype):
  logits, labels = example_set(8, 8)
  kept = np.arange(8) % 3 > 0
  mask = jnp.asarray(kept, dtype)
  for sums in (metrics.batch_sums, batch_sums):
    found = metrics.finalize(sums(logits, labels, mask))
    agree(found, reference(logits[kept], labels[kept]))
  weights = mask.at[1].set(2)
  with pytest.raises(ValueError, match=r'mask holds 2.* must be bool'):
    metrics.batch_sums(logits, labels, weights)
  assert np.isnan(jax.jit(metrics.batch_sums)(logits, labels, weights).nll)


def test_a_mask_may_be_of_sequences_and_fits():
  logits, labels = example_set(12, 8)
  kept = np.array([True, False, True, True])
  one = logits.reshape(4, 3, 8), labels.reshape(4, 3)
  rows = kept.repeat(3)
  found = metrics.finalize(metrics.batch_sums(*one, kept))
  agree(found, reference(logits[rows], labels[rows]))
  with pytest.raises(ValueError, match=r'mask of shape \(3,\) .*\(4, 3, 8\)'):
    metrics.batch_sums(*one, kept[:3])


def test_many_batches_are_added_in_float64():
  # A float32 total stands 3e-4 away here.
  value = np.float32(0.7)
  zero = batch_sums(
    np.zeros((1, 2), np.float32), np.zeros(1, int), np.ones(1, bool)
  )
  many = 100_000
  sums = jax.tree.map(lambda x: np.broadcast_to(x, (many, *x.shape)), zero)
  sums = sums._replace(nll=np.full(many, value))
  got = metrics.finalize(sums)
  assert got['count'] == many
  assert got['nll'] == pytest.approx(float(value), rel=1e-12)
  assert got['ece'] == pytest.approx(0.5, rel=1e-12)
  assert abs(np.cumsum(sums.nll, dtype=np.float32)[-1] / many - value) > 1e-4


def test_no_example_is_an_error():
  sums = batch_sums(
    jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32), jnp.zeros(2, bool)
  )
  with pytest.raises(ValueError, match='count = 0'):
    metrics.finalize(sums)
