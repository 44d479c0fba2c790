"""A convolution whose gradient is fast on a CPU inside a loop.

XLA's CPU compiler rewrites a convolution into the one layout that its fast
kernel takes (NHWC images, HWIO kernels) only at the top level of a program,
not in the body of a loop. JAX writes the gradients of a convolution in other
layouts, so a step of training inside `lax.scan` can be tens of times slower
than the same step outside (github.com/jax-ml/jax/issues/12868). Here the
gradients are written in that layout to begin with.

To delete this file once XLA is mended: drop the `conv_general_dilated`
argument of `nn.Conv` in `resnet.py`, and `tests/test_convolution.py`.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')

# The weight gradient reads N·H'·W' positions at once and falls out of the
# caches beyond a few thousand of them.
_POSITIONS = 4096


class _Window(NamedTuple):
  """How a kernel moves over an image, by the names of `lax`."""

  window_strides: Sequence[int]
  padding: Sequence[tuple[int, int]]
  precision: lax.PrecisionLike
  lhs_dilation: Sequence[int] = (1, 1)
  rhs_dilation: Sequence[int] = (1, 1)


def conv_general_dilated(
  lhs: Array,
  rhs: Array,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  *,
  dimension_numbers: lax.ConvGeneralDilatedDimensionNumbers = None,
  precision: lax.PrecisionLike = None,
  **others: Any,
) -> Array:
  """`jax.lax.conv_general_dilated` with a CPU gradient that is fast in loops.

  Both gradients are convolutions again. In `dw[a, b, c, o] =
  Σ x[n, si+a, sj+b, c] g[n, i, j, o]` the channels play the batch, the batch
  plays the channels, and `g` is the kernel with dilation `s`; `dx` is `g`,
  dilated by `s`, convolved with `w` turned by 180°.

  A plain call has NHWC images, HWIO kernels, no dilation, no groups and no
  `preferred_element_type`; it has no forward mode (`jax.jvp`). Any other call
  is `lax`'s own, as are all where the program is lowered for another platform.
  On a CPU the order of summation may differ from `lax`'s: of images or outputs
  with fewer pixels than the kernel (padded beforehand), and of the weight
  gradient of a large batch (summed over parts, several times faster).
  """
  plain = (
    lhs.ndim == 4
    and lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    == lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT)
    and all(value in (None, 1, (1, 1)) for value in others.values())
    and lhs.size > 0
  )
  if not plain:
    others |= {'dimension_numbers': dimension_numbers, 'precision': precision}
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **others)
  strides = tuple(window_strides)
  if isinstance(padding, str):
    sizes = lhs.shape[1:3], rhs.shape[:2]
    padding = lax.padtype_to_pads(*sizes, strides, padding)
  window = _Window(strides, tuple(map(tuple, padding)), precision)
  return _plain(lhs, rhs, window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _plain(x: Array, w: Array, window: _Window) -> Array:
  own = functools.partial(_lax, window=window)
  canonical = functools.partial(_canonical, window=window)
  return lax.platform_dependent(x, w, cpu=canonical, default=own)


def _backward(
  window: _Window, saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  def own(x: Array, w: Array, g: Array) -> tuple[Array, Array]:
    return jax.vjp(functools.partial(_lax, window=window), x, w)[1](g)

  def canonical(*args: Array) -> tuple[Array, Array]:
    return _image_gradient(*args, window), _kernel_gradient(*args, window)

  return lax.platform_dependent(*saved, g, cpu=canonical, default=own)


_plain.defvjp(lambda x, w, window: (_plain(x, w, window), (x, w)), _backward)


def _image_gradient(x: Array, w: Array, g: Array, window: _Window) -> Array:
  pads, strides = [], window.window_strides
  for i in range(2):
    low = w.shape[i] - 1 - window.padding[i][0]
    reach = (g.shape[1 + i] - 1) * strides[i] + 1
    pads.append((low, x.shape[1 + i] + w.shape[i] - 1 - reach - low))
  turned = jnp.flip(w, (0, 1)).swapaxes(2, 3)
  dense = _Window((1, 1), pads, window.precision, lhs_dilation=strides)
  return _canonical(g, turned, dense)


def _kernel_gradient(x: Array, w: Array, g: Array, window: _Window) -> Array:
  pads, strides = [], window.window_strides
  for i in range(2):
    low = window.padding[i][0]
    reach = (g.shape[1 + i] - 1) * strides[i] + 1
    pads.append((low, reach + w.shape[i] - 1 - x.shape[1 + i] - low))
  dense = _Window((1, 1), pads, window.precision, rhs_dilation=strides)

  def of_part(x: Array, g: Array) -> Array:
    x, g = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
    return _canonical(x, g, dense).transpose(1, 2, 0, 3)

  n, positions = x.shape[0], g.shape[1] * g.shape[2]
  most = max(1, min(n, _POSITIONS // positions))
  size = next(size for size in range(most, 0, -1) if n % size == 0)
  if size == n:
    return of_part(x, g)

  def add(total: Array, part: list[Array]) -> tuple[Array, None]:
    return total + of_part(*part), None

  # Every n/size-th example, so that a batch split over devices stays split.
  parts = [
    a.reshape(size, n // size, *a.shape[1:]).swapaxes(0, 1) for a in (x, g)
  ]
  total = jnp.zeros(w.shape, jnp.promote_types(w.dtype, jnp.float32))
  return lax.scan(add, total, parts)[0].astype(w.dtype)


def _canonical(x: Array, w: Array, window: _Window) -> Array:
  if x.shape[1] * x.shape[2] < w.shape[0] * w.shape[1]:
    # XLA would exchange the operands, and leave the layout, for an image that
    # is smaller than its kernel: it must see the padded image.
    sides = zip(window.padding, window.lhs_dilation, strict=True)
    sizes = [(*padding, dilation - 1) for padding, dilation in sides]
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, [(0, 0, 0), *sizes, (0, 0, 0)])
    x = lax.optimization_barrier(x)
    window = window._replace(padding=((0, 0),) * 2, lhs_dilation=(1, 1))
  return _lax(x, w, window)


def _lax(x: Array, w: Array, window: _Window) -> Array:
  options = {'dimension_numbers': _LAYOUT, **window._asdict()}
  return lax.conv_general_dilated(x, w, **options)
