"""What every public function keeps, whatever loop it is put under."""

import functools
import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import LOSSES, THETA, gradient, problem, slope
from jax import export
from support import run_worker

Z, Y = problem(2, 6, 5)  # two batches
pytestmark = pytest.mark.ci

ALONG = problem(3, 2, 6, 5)[0][2]

# Losses: a row in contracts.py is all that a new one needs. Transformations
# (an `init` and an `update` each) have their table and their ways below them.
each_loss = pytest.mark.parametrize('name', LOSSES)


def scanned(loss):
  return lambda z, y, theta: jax.lax.scan(
    lambda _, batch: (None, loss(*batch, theta)), None, (z, y)
  )[1]


WAYS = {
  'eager': lambda loss: loss,
  'jit': jax.jit,
  'vmap': lambda loss: jax.vmap(loss, (0, 0, None)),
  'scan': scanned,
  'jitted scan': lambda loss: jax.jit(scanned(loss)),
  'remat': jax.checkpoint,
}


def total(loss):
  return lambda z, y=Y, theta=THETA: loss(z, y, theta).sum()


def close(got, expected, atol=2e-6):
  np.testing.assert_allclose(got, expected, rtol=2e-6, atol=atol)


@pytest.mark.parametrize('way', WAYS)
@each_loss
def test_values_and_gradients_are_the_definitions(name, way):
  loss, expected = LOSSES[name]
  loss = WAYS[way](loss)
  got = loss(Z, Y, THETA)
  assert got.dtype == jnp.float32
  close(got, expected(np.float64(Z), Y, THETA))
  close(jax.grad(total(loss))(Z), gradient(expected, Z, Y))


@each_loss
def test_forward_mode_and_products_with_the_hessian(name):
  loss, expected = LOSSES[name]
  _, found = jax.jvp(lambda z: loss(z, Y, THETA), (Z,), (ALONG,))
  close(found, slope(expected, Z, Y, ALONG))
  step = 1e-4
  product = gradient(expected, np.float64(Z) + step * ALONG, Y)
  product -= gradient(expected, np.float64(Z) - step * ALONG, Y)
  slopes = jax.grad(total(loss))
  for found in (
    jax.jvp(slopes, (Z,), (ALONG,))[1],
    jax.grad(lambda z: (slopes(z) * ALONG).sum())(jnp.asarray(Z)),
  ):
    close(found, product / (2 * step), atol=1e-5)


@each_loss
def test_logits_can_be_donated(name):
  loss = total(LOSSES[name].loss)
  given = jnp.array(Z)
  found = jax.jit(jax.grad(loss), donate_argnums=0)(given)
  assert given.is_deleted()
  close(found, jax.grad(loss)(Z))


@each_loss
def test_with_x64_float64_is_exact_and_float32_stays(name):
  loss, expected = LOSSES[name]
  with jax.enable_x64(True):
    for dtype, rtol in ((np.float64, 1e-7), (np.float32, 2e-6)):
      z = Z.astype(dtype)
      value, found = loss(z, Y, THETA), jax.grad(total(loss))(z)
      assert (value.dtype, found.dtype) == (dtype, dtype)
      np.testing.assert_allclose(
        value, expected(np.float64(z), Y, THETA), rtol=rtol, atol=rtol
      )


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@each_loss
def test_nothing_is_promoted_in_silence(name, dtype):
  loss, expected = LOSSES[name]
  z = jnp.asarray(Z, dtype)
  with jax.numpy_rank_promotion('raise'), jax.numpy_dtype_promotion('strict'):
    value = loss(z, Y, THETA)
    found = jax.grad(total(loss))(z)
  assert (value.dtype, found.dtype) == (jnp.float32, dtype)
  wide = np.asarray(z, np.float64)
  close(value, expected(wide, Y, THETA))
  coarse = float(jnp.finfo(dtype).eps)
  np.testing.assert_allclose(
    np.float64(found), gradient(expected, wide, Y), rtol=coarse, atol=4e-6
  )


@each_loss
def test_exported_for_any_batch_reloaded_and_called(name):
  loss, expected = LOSSES[name]
  function = jax.jit(jax.value_and_grad(total(loss)))
  (b,) = export.symbolic_shape('b')
  shapes = (
    jax.ShapeDtypeStruct((b, 5), jnp.float32),
    jax.ShapeDtypeStruct((b,), jnp.int32),
  )
  # Lowered for each of them, and run on the first.
  platforms = ('cpu', 'tpu', 'cuda')
  loaded = export.export(function, platforms=platforms)(*shapes)
  if importlib.util.find_spec('flatbuffers'):
    loaded = export.deserialize(bytearray(loaded.serialize()))
  for rows in (1, 6):
    value, found = loaded.call(Z[0, :rows], Y[0, :rows])
    here = np.float64(Z[0, :rows]), Y[0, :rows]
    close(value, expected(*here, THETA).sum())
    close(found, gradient(expected, *here))


@functools.cache
def on_four_devices():
  return run_worker('contracts_worker.py', devices=4)


@each_loss
def test_any_placement_gives_the_same_and_keeps_its_sharding(name):
  found = on_four_devices()['losses'][name]
  sharded = {
    'Auto data',
    'Explicit data',
    'Auto classes',
    'Explicit classes',
  }
  assert found.keys() == sharded | {'pmap', 'shard_map'}
  for way, row in found.items():
    assert row['value'] < 1e-5, way
    assert row['gradient'] < 1e-6, way
    if way in sharded:
      assert row['kept'], way
      assert row['gathered'] <= 512, way  # at most a number a row


def test_metrics_and_the_last_layer_of_shards_are_those_of_the_whole():
  found = on_four_devices()
  for kind, row in found['sums'].items():
    assert row['difference'] < 1e-5, kind
    assert row['gathered'] <= 512, kind
  assert found['last_layer'] < 1e-3
  assert math.isfinite(found['last_layer'])
