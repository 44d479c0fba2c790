"""Residual networks with torchvision's architecture, sizes and names.

A parameter's path becomes torchvision's key by turning every `_` that stands
before a number and every `/` into a dot: `layer2_0/downsample_1/scale` is
`layer2.0.downsample.1` (`kernel` and `scale` are called `weight` there).
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from tsla.errors import InputError
from tsla.models.convolution import conv_general_dilated

STEMS = ('cifar', 'imagenet')


def _kaiming_normal(
  key: jax.Array, shape: Sequence[int], dtype: DTypeLike
) -> jax.Array:
  """Normal with variance 2 / fan_out, torchvision's for a convolution."""
  fan_out = math.prod(shape[:-2]) * shape[-1]
  return math.sqrt(2 / fan_out) * _flat(jax.random.normal, key, shape, dtype)


def _torch_linear(
  key: jax.Array, shape: Sequence[int], dtype: DTypeLike, *, fan_in: int
) -> jax.Array:
  """Uniform on ±1/√fan_in, torch's default for kernel and bias of a Linear."""
  uniform = _flat(jax.random.uniform, key, shape, dtype)
  return (2 * uniform - 1) / math.sqrt(fan_in)


def _flat(
  draw: Callable, key: jax.Array, shape: Sequence[int], dtype: DTypeLike
) -> jax.Array:
  # The same numbers as a draw of `shape`, but XLA's CPU compiler needs ten
  # times as long for a draw of rank 4: half a minute for a small network.
  return draw(key, (math.prod(shape),), dtype).reshape(shape)


class Block(nn.Module):
  """What a residual block consists of."""

  features: int  # channels of its 3×3 convolutions
  stride: int  # of the whole block
  conv: Callable[..., nn.Module]  # of (features, kernel size, stride, name)
  norm: Callable[..., nn.Module]  # of a name


class BasicBlock(Block):
  """Two 3×3 convolutions and a shortcut; the first one has the stride."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps f[B, H, W, C] to f[B, H/stride, W/stride, features]."""
    y = self.conv(self.features, 3, self.stride, name='conv1')(x)
    y = nn.relu(self.norm(name='bn1')(y))
    y = self.conv(self.features, 3, 1, name='conv2')(y)
    y = self.norm(name='bn2')(y)
    return nn.relu(y + shortcut(self, x, self.features))


class Bottleneck(Block):
  """1×1, 3×3 and 1×1 convolutions and a shortcut; the 3×3 has the stride."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps f[B, H, W, C] to f[B, H/stride, W/stride, 4·features]."""
    y = self.conv(self.features, 1, 1, name='conv1')(x)
    y = nn.relu(self.norm(name='bn1')(y))
    y = self.conv(self.features, 3, self.stride, name='conv2')(y)
    y = nn.relu(self.norm(name='bn2')(y))
    y = self.conv(4 * self.features, 1, 1, name='conv3')(y)
    y = self.norm(name='bn3')(y)
    return nn.relu(y + shortcut(self, x, 4 * self.features))


def shortcut(block: Block, x: jax.Array, features: int) -> jax.Array:
  """The block's input, projected if its shape is not that of `features`."""
  if block.stride == 1 and x.shape[-1] == features:
    return x
  x = block.conv(features, 1, block.stride, name='downsample_0')(x)
  return block.norm(name='downsample_1')(x)


class ResNet(nn.Module):
  """A residual network; `create` builds one by name.

  Parameters, BatchNorm statistics and logits are float32 whatever `dtype` is.
  BatchNorm normalises by the batch's biased variance and keeps running
  averages `0.9·old + 0.1·new` of its mean and of that same biased variance.
  (torch averages the unbiased one: its `running_var` grows by n/(n−1) times as
  much, n the number of values a channel has in a batch.)
  """

  block: type[Block]
  # Blocks in each stage; later ones halve the image and double the channels.
  stage_sizes: Sequence[int]
  num_classes: int
  stem: str  # 'cifar' (3×3, stride 1) or 'imagenet' (7×7, stride 2, max-pool)
  width: int = 64  # channels of the stem and of the first stage
  dtype: DTypeLike = jnp.float32  # of the activations
  # Over which training's BatchNorm averages; None: the local batch alone.
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    """Logits f32[B, K] of normalised images, f32[B, H, W, C].

    With `train` BatchNorm normalises by the batch and updates the collection
    'batch_stats', which must then be mutable; else by its running averages.
    The input of the last layer is sown as 'features'.
    """
    conv = functools.partial(_conv, dtype=self.dtype)
    norm = functools.partial(
      nn.BatchNorm,
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      dtype=self.dtype,
      axis_name=self.axis_name if train else None,
    )
    kernel, stride = (7, 2) if self.stem == 'imagenet' else (3, 1)
    x = conv(self.width, kernel, stride, name='conv1')(images)
    x = nn.relu(norm(name='bn1')(x))
    if self.stem == 'imagenet':
      x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    for stage, blocks in enumerate(self.stage_sizes):
      for i in range(blocks):
        x = self.block(
          features=self.width * 2**stage,
          stride=2 if stage > 0 and i == 0 else 1,
          conv=conv,
          norm=norm,
          name=f'layer{stage + 1}_{i}',
        )(x)

    x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
    self.sow('intermediates', 'features', x)
    init = functools.partial(_torch_linear, fan_in=x.shape[-1])
    fc = nn.Dense(self.num_classes, kernel_init=init, bias_init=init, name='fc')
    return fc(x)


def _conv(
  features: int, size: int, stride: int, *, dtype: DTypeLike, name: str
) -> nn.Conv:
  # 'SAME' would pad a strided convolution on the other side than torch does.
  return nn.Conv(
    features,
    (size, size),
    strides=(stride, stride),
    padding=((size // 2, size // 2),) * 2,
    use_bias=False,
    dtype=dtype,
    kernel_init=_kaiming_normal,
    conv_general_dilated=conv_general_dilated,
    name=name,
  )


ARCHITECTURES = {
  'resnet8': (BasicBlock, (1, 1, 1)),
  'resnet18': (BasicBlock, (2, 2, 2, 2)),
  'resnet34': (BasicBlock, (3, 4, 6, 3)),
  'resnet50': (Bottleneck, (3, 4, 6, 3)),
}


def create(
  name: str,
  num_classes: int,
  *,
  stem: str,
  width: int = 64,
  dtype: DTypeLike = jnp.float32,
  axis_name: str | None = None,
) -> nn.Module:
  """A network by its name; the arguments are those of `ResNet`.

  'resnet18', 'resnet34' and 'resnet50' are torchvision's at `width` 64 with
  the 'imagenet' stem; the 'cifar' stem keeps the full resolution of small
  images in the first stage. 'resnet8' is meant for 8×8 digits.

  Reference:
    He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition,
    arXiv 1512.03385, table 1; Bottleneck has its stride on the 3×3.
  """
  checks = (
    ('name', name, 'network', ARCHITECTURES, 'resnet18'),
    ('stem', stem, 'stem', STEMS, 'cifar'),
  )
  for field, value, kind, known, cure in checks:
    if value not in known:
      problem = f'model.{field} = {value!r}: unknown {kind}'
      cure = f'--config.model.{field}={cure}'
      raise InputError(problem, allowed=', '.join(known), cure=cure)
  block, stage_sizes = ARCHITECTURES[name]
  return ResNet(block, stage_sizes, num_classes, stem, width, dtype, axis_name)
