"""Every loss of `contracts`, the metrics and the last layer, on four devices.

Many enough logits that a form in parts would be chosen.
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from contracts import LOSSES, THETA, problem
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import tsla
from tsla.evaluation import metrics

ROWS, CLASSES = 512, 1000
Z, Y = problem(ROWS, CLASSES)


def update(loss):
  """Values, and the gradient of their sum."""

  def both(z, y):
    def total(z):
      values = loss(z, y, THETA)
      return values.sum(), values

    gradient, values = jax.grad(total, has_aux=True)(z)
    return values, gradient

  return both


def gathers(function, *args):
  """Collectives of a result as large as a device's part of the logits."""
  text = jax.jit(function).lower(*args).compile().as_text()
  found = re.findall(r'= \(?\w+\[([\d,]*)\]\S* all-(?:gather|to-all)', text)
  sizes = [np.prod([int(n) for n in s.split(',') if n]) for s in found]
  return max(sizes, default=0)


def placed(kind, spec):
  mesh = jax.make_mesh((4,), ('data',), axis_types=(kind,))
  z = jax.device_put(Z, NamedSharding(mesh, spec))
  return mesh, z, jax.device_put(Y, NamedSharding(mesh, P(spec[0])))


def measured(loss, expected):
  """A difference for each mapping, and where its results lie."""
  values = expected(np.float64(Z), Y, THETA)
  both = update(loss)
  gradient = both(Z, Y)[1]  # on one device; test_contracts compares that one
  found = {}

  def record(name, got, **more):
    got = [
      np.asarray(x).reshape(y.shape)
      for x, y in zip(got, (values, Z), strict=True)
    ]
    found[name] = {
      'value': float(np.abs(got[0] - values).max()),
      'gradient': float(np.abs(got[1] - gradient).max()),
      **more,
    }

  parts = Z.reshape(4, -1, CLASSES), Y.reshape(4, -1)
  record('pmap', jax.pmap(both)(*parts))
  for kind in (AxisType.Auto, AxisType.Explicit):
    for spec in (P('data', None), P(None, 'data')):
      mesh, z, y = placed(kind, spec)
      with jax.set_mesh(mesh):
        got = jax.jit(both)(z, y)
        record(
          f'{kind.name} {spec[0] or "classes"}',
          got,
          gathered=int(gathers(both, z, y)),
          kept=got[1].sharding.is_equivalent_to(z.sharding, 2)
          and (spec[0] is None or got[0].sharding.spec[0] == 'data'),
        )
        if spec[0] and kind == AxisType.Auto:
          mapped = jax.shard_map(
            both, in_specs=P('data'), out_specs=P('data'), mesh=mesh
          )
          record('shard_map', jax.jit(mapped)(z, y))
  return found


def sums():
  """What is summed over the examples: the same wherever these lie."""
  mask = np.ones(ROWS, bool)
  alone = metrics.batch_sums(Z, Y, mask)
  found = {}
  for kind in (AxisType.Auto, AxisType.Explicit):
    mesh, z, y = placed(kind, P('data', None))
    with jax.set_mesh(mesh):
      mask = jax.device_put(mask, y.sharding)
      got = jax.jit(metrics.batch_sums)(z, y, mask)
      found[kind.name] = {
        'difference': difference(got, alone),
        'gathered': int(gathers(metrics.batch_sums, z, y, mask)),
      }
  return found


def difference(got, expected):
  """The largest relative one."""
  pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
  return max(
    float(np.max(np.abs(np.subtract(a, b)) / (np.abs(b) + 1e-3)))
    for a, b in pairs
  )


def last_layer():
  """Devices that hold a part of every mini-batch, under `shard_map`."""
  rng = np.random.default_rng(0)
  features = rng.normal(size=(3, 32, 4)).astype(np.float32)
  z, y = problem(3, 32, 5)

  def found(*batches, axis_name=None):
    return tsla.last_layer_statistics(
      lambda batch: (*batch, None),
      batches,
      THETA,
      at_batch_size=8,
      axis_name=axis_name,
    )

  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  shared = jax.shard_map(
    lambda *batches: found(*batches, axis_name='data'),
    mesh=mesh,
    in_specs=P(None, 'data'),
    out_specs=P(),
  )
  batches = features, z, y
  got, alone = jax.jit(shared)(*batches), jax.jit(found)(*batches)
  return difference(
    [estimate.value for estimate in got], [e.value for e in alone]
  )


def main():
  assert len(jax.devices()) == 4
  jnp.zeros(())
  losses = {name: measured(*row) for name, row in LOSSES.items()}
  print(
    json.dumps({'losses': losses, 'sums': sums(), 'last_layer': last_layer()})
  )


if __name__ == '__main__':
  sys.exit(main())
