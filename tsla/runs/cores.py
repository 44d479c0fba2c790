"""The cores of a CPU as devices of their own, where that is faster.

XLA runs a convolution of few channels on one core. A batch that is split over
as many CPU devices as there are cores keeps all of them busy: 1.26 times the
images per second for a ResNet-18 on two cores, but 0.6 times for a ResNet-8 on
8×8 images, whose updates are too short (`benchmarks/compare.py --cpus`). This
file can go when XLA splits such convolutions itself.
"""

import contextlib
import os
from typing import TYPE_CHECKING

import jax

if TYPE_CHECKING:  # benchmarks run where ml_collections is not installed
  import ml_collections

_SMALL = ('resnet8',)


def split_cores(config: 'ml_collections.ConfigDict') -> None:
  """Makes each core a CPU device, if jax has not looked for devices yet.

  Accelerators are not touched. `JAX_NUM_CPU_DEVICES` and XLA's own flag have
  the last word, and a batch that does not divide by the cores gets the most
  devices by which it does.

  Args:
    config: a validated config.
  """
  asked = jax.config.jax_num_cpu_devices != -1
  flag = 'xla_force_host_platform_device_count'
  if (
    asked
    or flag in os.environ.get('XLA_FLAGS', '')
    or config.model.name in _SMALL
    or jax.distributed.is_initialized()
  ):
    return
  devices = devices_for(config.batch_size, available_cores())
  with contextlib.suppress(RuntimeError):  # jax has found its devices already
    jax.config.update('jax_num_cpu_devices', devices)


def devices_for(batch_size: int, cores: int) -> int:
  """The most devices, up to `cores`, that share a batch evenly.

  Example:
    >>> devices_for(128, 2), devices_for(128, 6), devices_for(15, 4)
    (2, 4, 3)
  """
  return next(n for n in range(cores, 0, -1) if batch_size % n == 0)


def available_cores() -> int:
  """The cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
