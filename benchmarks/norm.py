"""BatchNorm, sum and ReLU with one residual against flax's, in the network.

The candidate keeps a layer's input and computes x̂ again in the backward pass,
which the derivative of flax's BatchNorm may keep as well. The models do not use
it: on a CPU it is no faster, and on a GPU it is not yet measured.
`temporary` is what a gradient holds besides its arguments and its result.

  python benchmarks/norm.py --size=cifar --batch=256
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

import common
import ours
from tsla.models import resnet

_Results = tuple[jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def norm_add_relu(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  shortcut: jax.Array | None,
  epsilon: float,
  axis_name: str | None,
) -> _Results:
  """max(0, scale·x̂ + bias + shortcut), with x̂ = (x − mean)/√(var + ε).

  Args:
    x: f[B, H, W, C].
    scale: f32[C].
    bias: f32[C].
    shortcut: what is added, of x's shape and type, or None.
    epsilon: ε, positive.
    axis_name: mapped axis over which mean and variance are averaged.

  Returns:
    The result of x's shape and type, and mean and biased variance, f32[C],
    through which no gradient flows.
  """
  return _forward(x, scale, bias, shortcut, epsilon, axis_name)[0]


def _forward(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  shortcut: jax.Array | None,
  epsilon: float,
  axis_name: str | None,
) -> tuple[_Results, tuple[Any, ...]]:
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  moments = jnp.stack([wide.mean((0, 1, 2)), (wide * wide).mean((0, 1, 2))])
  if axis_name is not None:
    moments = lax.pmean(moments, axis_name)
  mean, var = moments[0], jnp.maximum(0, moments[1] - moments[0] ** 2)
  inverse = lax.rsqrt(var + epsilon)
  y = ((wide - mean) * (inverse * scale) + bias).astype(x.dtype)
  y = jnp.maximum(y if shortcut is None else y + shortcut, 0)
  # y is kept in any case: the next layer's gradient needs it.
  # Whether there is a shortcut: a bool would be traced.
  added = None if shortcut is None else ()
  return (y, mean, var), (x, scale, mean, inverse, y, added)


def _backward(
  epsilon: float,
  axis_name: str | None,
  saved: tuple[Any, ...],
  cotangents: _Results,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
  del epsilon
  x, scale, mean, inverse, y, added = saved
  narrow = jnp.where(y > 0, cotangents[0], 0)
  g = narrow.astype(mean.dtype)
  normalised = (x.astype(mean.dtype) - mean) * inverse
  sums = jnp.stack([g.sum((0, 1, 2)), (g * normalised).sum((0, 1, 2))])
  means = sums / (x.size // x.shape[-1])
  if axis_name is not None:
    means = lax.pmean(means, axis_name)
  dx = scale * inverse * (g - means[0] - normalised * means[1])
  dshortcut = None if added is None else narrow
  return dx.astype(x.dtype), sums[1], sums[0], dshortcut


norm_add_relu.defvjp(_forward, _backward)


class Norm(nn.Module):
  """`norm_add_relu` in training, with BatchNorm's parameters and averages.

  They are initialised by BatchNorm itself.

  Attributes:
    momentum: of the running averages.
    epsilon: added to the variance.
    axis_name: as in `norm_add_relu`.
  """

  momentum: float
  epsilon: float
  axis_name: str | None

  @nn.compact
  def __call__(
    self, x: jax.Array, shortcut: jax.Array | None = None
  ) -> jax.Array:
    """Maps f[B, H, W, C], and a summand, to f[B, H, W, C]."""
    shape = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    old = [
      self.variable('batch_stats', name, of, shape)
      for name, of in (('mean', jnp.zeros), ('var', jnp.ones))
    ]
    y, *new = norm_add_relu(
      x, scale, bias, shortcut, self.epsilon, self.axis_name
    )
    for average, value in zip(old, new, strict=True):
      average.value *= self.momentum
      average.value += (1 - self.momentum) * value
    return y


class Block(resnet.BasicBlock):
  """A basic block whose two BatchNorms with ReLU keep one residual each."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps f[B, H, W, C] to f[B, H/stride, W/stride, features]."""
    options = self.norm.keywords
    if options['use_running_average']:
      return super().__call__(x)
    norm = functools.partial(
      Norm, options['momentum'], options['epsilon'], options['axis_name']
    )
    y = self.conv(self.features, 3, self.stride, name='conv1')(x)
    y = norm(name='bn1')(y)
    y = self.conv(self.features, 3, 1, name='conv2')(y)
    return norm(name='bn2')(y, resnet.shortcut(self, x, self.features))


def temporary(path: ours.Ours) -> int:
  """Megabytes that the gradient of one batch holds, on one device."""
  model = path.model.clone(axis_name=None)

  def loss(params: Any, batch_stats: Any, images: jax.Array) -> jax.Array:
    variables = {'params': params, 'batch_stats': batch_stats}
    logits, _ = model.apply(
      variables, images, train=True, mutable=['batch_stats']
    )
    return logits.sum()

  size = common.SIZES[path.args.size]
  shape = path.args.batch, size.side, size.side, size.channels
  state = jax.tree.map(np.asarray, path.state)
  compiled = (
    jax.jit(jax.grad(loss))
    .lower(state.params, state.batch_stats, np.zeros(shape, np.float32))
    .compile()
  )
  return round(compiled.memory_analysis().temp_size_in_bytes / 1e6)


def main() -> None:
  """Measures the real path with either, in turn; above 1: one is faster."""
  args = common.parse(common.arguments(__doc__))
  paths = {
    'one residual': ours.Ours(args, block=Block),
    'flax': ours.Ours(args),
  }
  contenders = {
    name: lambda path=path: path.two_late(path.train)
    for name, path in paths.items()
  }
  seconds = common.in_turn(contenders, args.rounds)
  figures = {
    name: {
      'milliseconds': round(
        1e3 * float(np.median(times)) / (2 * args.steps), 3
      ),
      'temporary_megabytes': temporary(paths[name]),
    }
    for name, times in seconds.items()
  }
  figures['flax'] |= common.ratio(seconds['flax'], seconds['one residual'])
  common.record('norm', args, paths['flax'].device, figures)


if __name__ == '__main__':
  main()
