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

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
_NO_DILATION = (1, 1)

# The weight gradient reads N·H'·W' positions at once and falls out of the
# caches beyond a few thousand of them.
_POSITIONS = 4096

_Pads = tuple[tuple[int, int], tuple[int, int]]


def conv_general_dilated(
  lhs: jax.Array,
  rhs: jax.Array,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  dimension_numbers: lax.ConvGeneralDilatedDimensionNumbers = None,
  feature_group_count: int = 1,
  batch_group_count: int = 1,
  precision: lax.PrecisionLike = None,
  preferred_element_type: jax.typing.DTypeLike | None = None,
) -> jax.Array:
  """`jax.lax.conv_general_dilated` with a CPU gradient that is fast in loops.

  With `x[n, i, j, c]` padded, `y[n, i, j, o] = Σ w[a, b, c, o] x[n, si+a,
  sj+b, c]`, so both gradients are convolutions again:
  `dw[a, b, c, o] = Σ x[n, si+a, sj+b, c] g[n, i, j, o]` (channels play the
  batch, the batch plays the channels, `g` is the kernel with dilation `s`) and
  `dx` is `g`, dilated by `s`, convolved with `w` turned by 180°.

  A plain call has NHWC images, HWIO kernels, no dilation, no groups and no
  `preferred_element_type`; any other call is `lax`'s own, and so is a plain
  one on every platform but the CPU. The platform is settled when the program
  is lowered.

  On a CPU a plain call and its gradients differ from `lax`'s by no more than
  the order of summation, and only in two cases: images or outputs with fewer
  pixels than the kernel (padded beforehand), and the weight gradient of a batch
  with more than 4,096 output positions N·H'·W' (summed over parts of the batch,
  several times faster).

  Plain calls can be differentiated any number of times in reverse mode, but
  not in forward mode (`jax.jvp`).

  Args:
    lhs: images, f[N, H, W, C] in a plain call.
    rhs: kernel of the same dtype, f[a, b, C, O] in a plain call.
    window_strides: stride s for each spatial dimension.
    padding: 'SAME', 'VALID' or (low, high) for each spatial dimension.
    lhs_dilation: as in `lax`.
    rhs_dilation: as in `lax`.
    dimension_numbers: as in `lax`.
    feature_group_count: as in `lax`.
    batch_group_count: as in `lax`.
    precision: as in `lax`; the gradients use the same.
    preferred_element_type: as in `lax`.

  Returns:
    The convolved images, f[N, H', W', O] in a plain call.

  Example:
    >>> images, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    >>> conv_general_dilated(
    ...   images, kernel, (2, 2), ((1, 1), (1, 1)),
    ...   dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    ... ).shape
    (2, 4, 4, 4)
  """
  plain = (
    lhs.ndim == 4
    and lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    == lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT)
    and tuple(lhs_dilation or _NO_DILATION) == _NO_DILATION
    and tuple(rhs_dilation or _NO_DILATION) == _NO_DILATION
    and feature_group_count == batch_group_count == 1
    and preferred_element_type is None
    and lhs.size > 0
  )
  if not plain:
    return lax.conv_general_dilated(
      lhs,
      rhs,
      window_strides,
      padding,
      lhs_dilation,
      rhs_dilation,
      dimension_numbers,
      feature_group_count,
      batch_group_count,
      precision,
      preferred_element_type,
    )
  strides = tuple(window_strides)
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(
      lhs.shape[1:3], rhs.shape[:2], strides, padding
    )
  return _plain(lhs, rhs, strides, tuple(map(tuple, padding)), precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _plain(
  x: jax.Array,
  w: jax.Array,
  strides: tuple[int, int],
  padding: _Pads,
  precision: lax.PrecisionLike,
) -> jax.Array:
  def own(x: jax.Array, w: jax.Array) -> jax.Array:
    return _lax(x, w, strides, padding, precision)

  def canonical(x: jax.Array, w: jax.Array) -> jax.Array:
    return _canonical(x, w, strides, padding, precision=precision)

  return lax.platform_dependent(x, w, cpu=canonical, default=own)


def _forward(
  x: jax.Array,
  w: jax.Array,
  strides: tuple[int, int],
  padding: _Pads,
  precision: lax.PrecisionLike,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _plain(x, w, strides, padding, precision), (x, w)


def _backward(
  strides: tuple[int, int],
  padding: _Pads,
  precision: lax.PrecisionLike,
  saved: tuple[jax.Array, jax.Array],
  g: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  def own(
    x: jax.Array, w: jax.Array, g: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    conv = functools.partial(
      _lax, strides=strides, padding=padding, precision=precision
    )
    return jax.vjp(conv, x, w)[1](g)

  def canonical(
    x: jax.Array, w: jax.Array, g: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    return (
      _image_gradient(x, w, g, strides, padding, precision),
      _kernel_gradient(x, w, g, strides, padding, precision),
    )

  return lax.platform_dependent(*saved, g, cpu=canonical, default=own)


_plain.defvjp(_forward, _backward)


def _image_gradient(
  x: jax.Array,
  w: jax.Array,
  g: jax.Array,
  strides: tuple[int, int],
  padding: _Pads,
  precision: lax.PrecisionLike,
) -> jax.Array:
  pads = []
  for i in range(2):
    low = w.shape[i] - 1 - padding[i][0]
    reach = (g.shape[1 + i] - 1) * strides[i] + 1
    pads.append((low, x.shape[1 + i] + w.shape[i] - 1 - reach - low))
  turned = jnp.flip(w, (0, 1)).swapaxes(2, 3)
  return _canonical(
    g, turned, (1, 1), pads, lhs_dilation=strides, precision=precision
  )


def _kernel_gradient(
  x: jax.Array,
  w: jax.Array,
  g: jax.Array,
  strides: tuple[int, int],
  padding: _Pads,
  precision: lax.PrecisionLike,
) -> jax.Array:
  pads = []
  for i in range(2):
    low = padding[i][0]
    reach = (g.shape[1 + i] - 1) * strides[i] + 1
    pads.append((low, reach + w.shape[i] - 1 - x.shape[1 + i] - low))

  def of_part(x: jax.Array, g: jax.Array) -> jax.Array:
    return _canonical(
      x.transpose(3, 1, 2, 0),
      g.transpose(1, 2, 0, 3),
      (1, 1),
      pads,
      rhs_dilation=strides,
      precision=precision,
    ).transpose(1, 2, 0, 3)

  n, positions = x.shape[0], g.shape[1] * g.shape[2]
  most = max(1, min(n, _POSITIONS // positions))
  size = next(size for size in range(most, 0, -1) if n % size == 0)
  if size == n:
    return of_part(x, g)

  def add(total: jax.Array, part: list[jax.Array]) -> tuple[jax.Array, None]:
    return total + of_part(*part), None

  # Every n/size-th example, so that a batch split over devices stays split.
  parts = [
    a.reshape(size, n // size, *a.shape[1:]).swapaxes(0, 1) for a in (x, g)
  ]
  total = jnp.zeros(w.shape, jnp.promote_types(w.dtype, jnp.float32))
  return lax.scan(add, total, parts)[0].astype(w.dtype)


def _canonical(
  x: jax.Array,
  w: jax.Array,
  strides: tuple[int, int],
  pads: Sequence[tuple[int, int]],
  *,
  lhs_dilation: tuple[int, int] = _NO_DILATION,
  rhs_dilation: tuple[int, int] = _NO_DILATION,
  precision: lax.PrecisionLike,
) -> jax.Array:
  if x.shape[1] * x.shape[2] < w.shape[0] * w.shape[1]:
    # XLA would exchange the operands, and leave the layout, for an image that
    # is smaller than its kernel: it must see the padded image.
    sizes = [(*pads[i], lhs_dilation[i] - 1) for i in range(2)]
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, [(0, 0, 0), *sizes, (0, 0, 0)])
    x = lax.optimization_barrier(x)
    pads, lhs_dilation = ((0, 0), (0, 0)), _NO_DILATION
  return lax.conv_general_dilated(
    x,
    w,
    strides,
    pads,
    lhs_dilation,
    rhs_dilation,
    dimension_numbers=_LAYOUT,
    precision=precision,
  )


def _lax(
  x: jax.Array,
  w: jax.Array,
  strides: tuple[int, int],
  padding: _Pads,
  precision: lax.PrecisionLike,
) -> jax.Array:
  return lax.conv_general_dilated(
    x, w, strides, padding, dimension_numbers=_LAYOUT, precision=precision
  )
