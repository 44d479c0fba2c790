"""The convolution against `lax`: same gradients, and the layout XLA likes."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tsla.models import create
from tsla.models.convolution import conv_general_dilated

NHWC = ('NHWC', 'HWIO', 'NHWC')


def gradients(conv, strides, padding):
  """Of Σ cos(n)·y[n]: every output has a cotangent of its own."""

  def loss(x, w):
    y = conv(x, w, strides, padding, dimension_numbers=NHWC)
    weight = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
    return (y * weight).sum(dtype=jnp.float32)

  return jax.grad(loss, (0, 1))


def operands(n, height, width, kernel, dtype=jnp.float32):
  rng = np.random.default_rng(0)
  return (
    jnp.asarray(rng.normal(size=(n, height, width, 3)), dtype),
    jnp.asarray(rng.normal(size=(kernel, kernel, 3, 4)), dtype),
  )


def assert_close(got, expected, tolerance):
  for a, b in zip(got, expected, strict=True):
    assert a.dtype == b.dtype
    b = np.asarray(b, np.float64)
    atol = tolerance * np.abs(b).max()
    np.testing.assert_allclose(np.asarray(a, np.float64), b, 0, atol)


@pytest.mark.parametrize(
  'size, kernel, strides, padding',
  [
    ((8, 9), 3, (1, 1), ((1, 1), (1, 1))),
    ((8, 9), 3, (2, 2), ((1, 1), (1, 1))),
    ((8, 9), 1, (2, 2), ((0, 0), (0, 0))),
    ((8, 8), 1, (1, 1), 'VALID'),
    ((15, 16), 7, (2, 2), ((3, 3), (3, 3))),
    ((9, 8), 7, (1, 1), ((3, 3), (3, 3))),
    ((9, 8), 3, (2, 2), 'SAME'),
    ((8, 7), 3, (1, 2), ((0, 2), (3, 1))),
    ((2, 2), 3, (1, 1), ((1, 1), (1, 1))),
    ((3, 4), 3, (2, 2), ((1, 1), (1, 1))),
    ((1, 1), 3, (1, 1), ((1, 1), (1, 1))),
  ],
)
def test_convolution_gradient_is_laxs_also_in_a_scan(
  size, kernel, strides, padding
):
  x, w = operands(2, *size, kernel)
  ours = gradients(conv_general_dilated, strides, padding)
  expected = gradients(lax.conv_general_dilated, strides, padding)(x, w)
  _, scanned = jax.jit(
    lambda x, w: lax.scan(lambda _, x: (None, ours(x, w)), None, x[None])
  )(x, w)
  assert_close([g[0] for g in scanned], expected, 1e-5)


@pytest.mark.parametrize(
  'dtype, tolerance', [(jnp.float32, 1e-5), (jnp.bfloat16, 2**-8)]
)
def test_weight_gradient_summed_over_parts_of_the_batch(dtype, tolerance):
  x, w = operands(16, 64, 64, 3, dtype)  # 64·64 positions: parts of one
  ours = gradients(conv_general_dilated, (1, 1), 'SAME')
  assert 'scan' in str(jax.make_jaxpr(ours)(x, w))
  got = jax.jit(ours)(x, w)[1]
  assert got.dtype == dtype
  _, expected = gradients(lax.conv_general_dilated, (1, 1), 'SAME')(
    x.astype(jnp.float32), w.astype(jnp.float32)
  )
  assert_close([got.astype(jnp.float32)], [expected], tolerance)


def test_convolution_gradient_under_vmap_pmap_and_twice():
  x, w = operands(2, 6, 6, 3)
  ours = gradients(conv_general_dilated, (2, 2), ((1, 1), (1, 1)))
  plain = gradients(lax.conv_general_dilated, (2, 2), ((1, 1), (1, 1)))
  expected = plain(x, 2 * w)
  vmapped = jax.vmap(ours, (None, 0))(x, jnp.stack([w, 2 * w]))
  assert_close([g[1] for g in vmapped], expected, 1e-5)
  assert_close(
    jax.pmap(ours)(x[None], 2 * w[None]), [g[None] for g in expected], 1e-5
  )

  def second(first):
    return jax.grad(lambda w: (first(x, w)[0] ** 2).sum())(w)

  assert_close([second(ours)], [second(plain)], 1e-5)


def test_every_convolution_of_a_scanned_training_step_is_canonical():
  model = create('resnet8', num_classes=3, stem='cifar', width=4)
  images = jnp.ones((3, 2, 8, 8, 1))
  variables = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), images[0]
  )
  variables = jax.tree.map(lambda a: jnp.ones(a.shape), variables)

  def step(params, images):
    def loss(params):
      logits, _ = model.apply(
        {**variables, 'params': params},
        images,
        train=True,
        mutable=['batch_stats'],
      )
      return (logits**2).sum()

    return jax.tree.map(jnp.subtract, params, jax.grad(loss)(params)), None

  train = jax.jit(lambda params, images: lax.scan(step, params, images)[0])
  compiled = train.lower(variables['params'], images).compile().as_text()
  layouts = re.findall(r'convolution\(.*dim_labels=([^\s,]+)', compiled)
  # 9 forward, 9 for the kernels, 8 for the images: none for the first images.
  assert len(layouts) == 26
  assert set(layouts) == {'b01f_01io->b01f'}
  assert 'conditional' not in compiled


def test_other_platforms_get_the_gradient_of_lax():
  x, w = operands(2, 9, 8, 3)

  def lowered(conv):
    function = gradients(conv, (2, 2), ((1, 1), (1, 1)))
    exported = jax.export.export(jax.jit(function), platforms=['cuda'])(x, w)
    return re.findall(r'dim_numbers .*->', exported.mlir_module())

  expected = lowered(lax.conv_general_dilated)
  assert any('[b, 0, 1, f]x[0, 1, i, o]' not in line for line in expected)
  assert lowered(conv_general_dilated) == expected


@pytest.mark.parametrize(
  'image, kernel, options',
  [
    ((2, 9, 9, 4), (3, 3, 2, 6), {'feature_group_count': 2}),
    ((2, 9, 9, 4), (3, 3, 4, 6), {'batch_group_count': 2}),
    ((2, 9, 9, 4), (3, 3, 4, 6), {'lhs_dilation': (2, 1)}),
    ((2, 9, 9, 4), (3, 3, 4, 6), {'rhs_dilation': (1, 2)}),
    ((2, 9, 9, 4), (3, 3, 4, 6), {'preferred_element_type': jnp.float32}),
    (
      (2, 9, 9, 4),
      (6, 4, 3, 3),
      {'dimension_numbers': ('NHWC', 'OIHW', 'NHWC')},
    ),
    ((2, 4, 9, 9), (6, 4, 3, 3), {'dimension_numbers': None}),
  ],
)
def test_anything_but_a_plain_convolution_is_laxs(image, kernel, options):
  options = {'dimension_numbers': NHWC, **options}
  ours, expected = (
    str(
      jax.make_jaxpr(
        functools.partial(
          conv, window_strides=(1, 1), padding=((1, 1), (1, 1)), **options
        )
      )(jnp.ones(image), jnp.ones(kernel))
    )
    for conv in (conv_general_dilated, lax.conv_general_dilated)
  )
  assert ours == expected
