"""Networks against a plain NumPy network, and torchvision's facts."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tsla.errors import InputError
from tsla.models import ResNet, create
from tsla.models.resnet import BasicBlock, Bottleneck


def numpy_conv(x, kernel, stride, pad):
  x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  size = kernel.shape[0]
  windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
  windows = windows[:, ::stride, ::stride]
  return np.einsum('nijcab,abco->nijo', windows, kernel, optimize=True)


def numpy_max_pool(x):
  x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
  windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
  return windows[:, ::2, ::2].max((-2, -1))


class NumpyResNet:
  """The forward pass in float64; `stats` collects what training would keep."""

  def __init__(self, variables, *, stem, train):
    variables = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
    self.params, self.old = variables['params'], variables['batch_stats']
    self.stem, self.train, self.stats = stem, train, {}

  def norm(self, x, *path):
    p, s = self.params, self.old
    for key in path:
      p, s = p[key], s[key]
    mean, var = s['mean'], s['var']
    if self.train:
      mean = x.mean((0, 1, 2))
      var = ((x - mean) ** 2).mean((0, 1, 2))
      self.stats[(*path, 'mean')] = 0.9 * s['mean'] + 0.1 * mean
      self.stats[(*path, 'var')] = 0.9 * s['var'] + 0.1 * var
    return (x - mean) / np.sqrt(var + 1e-5) * p['scale'] + p['bias']

  def block(self, x, name, stride):
    p = self.params[name]
    convs = [key for key in ('conv1', 'conv2', 'conv3') if key in p]
    y = x
    for i, key in enumerate(convs):
      kernel = p[key]['kernel']
      strided = key == ('conv2' if len(convs) == 3 else 'conv1')
      y = numpy_conv(y, kernel, stride if strided else 1, kernel.shape[0] // 2)
      y = self.norm(y, name, key.replace('conv', 'bn'))
      if i < len(convs) - 1:
        y = np.maximum(y, 0)
    if 'downsample_0' in p:
      x = numpy_conv(x, p['downsample_0']['kernel'], stride, 0)
      x = self.norm(x, name, 'downsample_1')
    return np.maximum(x + y, 0)

  def __call__(self, x, stage_sizes):
    kernel = self.params['conv1']['kernel']
    big = self.stem == 'imagenet'
    x = numpy_conv(np.asarray(x, np.float64), kernel, 1 + big, 1 + 2 * big)
    x = np.maximum(self.norm(x, 'bn1'), 0)
    x = numpy_max_pool(x) if big else x
    for stage, blocks in enumerate(stage_sizes, start=1):
      for i in range(blocks):
        stride = 2 if stage > 1 and i == 0 else 1
        x = self.block(x, f'layer{stage}_{i}', stride)
    fc = self.params['fc']
    return x.mean((1, 2)) @ fc['kernel'] + fc['bias']


def randomised(variables, rng):
  """Every scale, bias, mean and variance away from its first value."""
  draw = {
    'scale': lambda a: rng.uniform(0.5, 1.5, a.shape),
    'bias': lambda a: rng.normal(size=a.shape),
    'mean': lambda a: rng.normal(size=a.shape),
    # Small enough for BatchNorm's eps to show.
    'var': lambda a: rng.uniform(1e-3, 0.1, a.shape),
    'kernel': lambda a: (
      rng.normal(size=a.shape) / np.sqrt(np.prod(a.shape[:-1]))
    ),
  }
  return jax.tree_util.tree_map_with_path(
    lambda path, a: jnp.asarray(draw[path[-1].key](a), jnp.float32), variables
  )


def initialised(model, shape):
  return jax.eval_shape(
    lambda key: model.init(key, jnp.zeros(shape), train=False),
    jax.random.key(0),
  )


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize(
  'block, stage_sizes, stem, size',
  [
    (BasicBlock, (1, 1, 1), 'cifar', 8),
    (BasicBlock, (1, 2), 'imagenet', 20),
    (Bottleneck, (1, 2), 'cifar', 7),
  ],
)
def test_forward_pass_and_statistics_equal_numpy(
  block, stage_sizes, stem, size, train
):
  rng = np.random.default_rng(0)
  model = ResNet(block, stage_sizes, num_classes=5, stem=stem, width=4)
  images = jnp.asarray(rng.normal(size=(3, size, size, 2)), jnp.float32)
  variables = randomised(initialised(model, images.shape), rng)
  logits, updates = jax.jit(
    lambda v, x: model.apply(v, x, train=train, mutable=['batch_stats'])
  )(variables, images)

  reference = NumpyResNet(variables, stem=stem, train=train)
  expected = reference(images, stage_sizes)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * scale)
  got = traverse_util.flatten_dict(updates['batch_stats'])
  kept = traverse_util.flatten_dict(variables['batch_stats'])
  assert set(reference.stats) == (set(kept) if train else set())
  for path, value in (reference.stats if train else kept).items():
    np.testing.assert_allclose(got[path], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'name, num_classes, stem, count',
  [
    ('resnet18', 1000, 'imagenet', 11_689_512),
    ('resnet34', 1000, 'imagenet', 21_797_672),
    ('resnet50', 1000, 'imagenet', 25_557_032),
    ('resnet18', 100, 'cifar', 11_220_132),
  ],
)
def test_parameter_count_is_torchvisions(name, num_classes, stem, count):
  model = create(name, num_classes=num_classes, stem=stem)
  params = initialised(model, (1, 32, 32, 3))['params']
  assert sum(math.prod(p.shape) for p in jax.tree.leaves(params)) == count


def test_names_become_torchvisions_by_the_stated_rule():
  params = initialised(
    create('resnet18', num_classes=9, stem='imagenet'), (1, 32, 32, 3)
  )['params']
  got = {
    re.sub(r'_(?=\d)', '.', '/'.join(path[:-1])).replace('/', '.')
    for path in traverse_util.flatten_dict(params)
  }
  expected = {'conv1', 'bn1', 'fc'}
  for stage in (1, 2, 3, 4):
    for block in (0, 1):
      parts = ['conv1', 'bn1', 'conv2', 'bn2']
      if stage > 1 and block == 0:
        parts += ['downsample.0', 'downsample.1']
      expected |= {f'layer{stage}.{block}.{part}' for part in parts}
  assert got == expected


@pytest.mark.parametrize(
  'stem, final', [('cifar', (2, 4, 4, 512)), ('imagenet', (2, 1, 1, 512))]
)
def test_stem_sets_the_resolution(stem, final):
  model = create('resnet18', num_classes=7, stem=stem)
  variables = initialised(model, (2, 32, 32, 3))
  logits, state = jax.eval_shape(
    lambda v: model.apply(
      v, jnp.zeros((2, 32, 32, 3)), train=False, capture_intermediates=True
    ),
    variables,
  )
  assert logits.shape == (2, 7)
  assert state['intermediates']['layer4_1']['__call__'][0].shape == final


def test_bfloat16_is_for_activations_only():
  model = ResNet(
    BasicBlock, (1,), num_classes=3, stem='cifar', width=8, dtype=jnp.bfloat16
  )
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.normal(size=(2, 9, 9, 1)), jnp.float32)
  variables = randomised(initialised(model, images.shape), rng)
  logits, state = jax.jit(
    lambda v: model.apply(
      v,
      images,
      train=True,
      mutable=['batch_stats', 'intermediates'],
      capture_intermediates=True,
    )
  )(variables)
  for leaf in jax.tree.leaves((variables, state['batch_stats'])):
    assert leaf.dtype == jnp.float32
  inside = state['intermediates']
  assert inside['conv1']['__call__'][0].dtype == jnp.bfloat16
  last = inside['layer1_0']['__call__'][0]
  assert last.dtype == jnp.bfloat16

  assert logits.dtype == jnp.float32
  fc = jax.tree.map(np.asarray, variables['params']['fc'])
  expected = np.asarray(last, np.float64).mean((1, 2)) @ fc['kernel']
  np.testing.assert_allclose(logits, expected + fc['bias'], rtol=0, atol=1e-5)


def test_initial_values_have_torchvisions_distribution():
  model = create('resnet8', num_classes=50, stem='cifar', width=32)

  @jax.jit
  def some_of_them(key):
    params = model.init(key, jnp.ones((1, 8, 8, 1)), train=False)['params']
    block = params['layer3_0']
    return block['conv1']['kernel'], block['bn2'], params['fc']

  kernel, norm, fc = jax.tree.map(np.asarray, some_of_them(jax.random.key(0)))
  assert kernel.shape == (3, 3, 64, 128)
  assert kernel.std() == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.02)
  # A normal law, not a truncated one: some values beyond 3 deviations.
  assert np.abs(kernel).max() > 3.5 * kernel.std()
  bound = 1 / math.sqrt(128)
  for part in ('kernel', 'bias'):
    values = fc[part]
    assert 0.9 * bound < np.abs(values).max() <= bound
    assert values.min() < -0.9 * bound
  assert fc['kernel'].std() == pytest.approx(bound / 3**0.5, rel=0.02)
  assert (norm['scale'] == 1).all()
  assert (norm['bias'] == 0).all()


def test_axis_name_synchronises_batch_norm_in_training_only():
  plain = ResNet(BasicBlock, (1,), num_classes=3, stem='cifar', width=4)
  synced = plain.clone(axis_name='batch')
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.normal(size=(4, 8, 8, 1)), jnp.float32)
  variables = randomised(initialised(plain, images.shape), rng)

  def forward(model, images):
    return model.apply(variables, images, train=True, mutable=['batch_stats'])

  whole, whole_stats = jax.jit(lambda x: forward(plain, x))(images)
  halves, stats = jax.jit(
    jax.vmap(lambda x: forward(synced, x), axis_name='batch')
  )(images.reshape(2, 2, 8, 8, 1))
  np.testing.assert_allclose(halves.reshape(4, 3), whole, rtol=1e-4, atol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5),
    stats,
    whole_stats,
  )
  np.testing.assert_array_equal(
    synced.apply(variables, images, train=False),
    plain.apply(variables, images, train=False),
  )


@pytest.mark.parametrize(
  'field, value', [('name', 'resnet19'), ('stem', 'mnist')]
)
def test_unknown_name_or_stem_is_told_in_three_lines(field, value):
  arguments = {'name': 'resnet18', 'stem': 'cifar', field: value}
  with pytest.raises(InputError) as caught:
    create(num_classes=2, **arguments)
  lines = str(caught.value).splitlines()
  assert len(lines) == 3
  assert lines[0].startswith(f'model.{field} = {value!r}')
  assert {'name': 'resnet50', 'stem': 'imagenet'}[field] in lines[1]
