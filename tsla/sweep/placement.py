"""Which device a run of a sweep gets, where several run at a time.

A run per device beats a batch that is split over devices. What a process may
use is decided by its environment, before its jax looks for devices.
"""

import subprocess
import sys
from collections.abc import Mapping


def find_devices() -> tuple[str, int]:
  """The platform and the number of this machine's devices.

  A process of its own asks, which lets them go again: the runs need them.
  """
  code = 'import jax; print(jax.default_backend(), jax.local_device_count())'
  command = [sys.executable, '-c', code]
  said = subprocess.check_output(command, stderr=subprocess.PIPE, text=True)
  platform, count = said.split()[-2:]
  return platform, int(count)


def environment(
  slot: int,
  jobs: int,
  platform: str,
  devices: int,
  inherited: Mapping[str, str],
) -> dict[str, str]:
  """What a run's process gets in addition, so that it uses its own device.

  On CPUs, or one run at a time, all is shared. Else the run in place `slot`,
  from 0, of `jobs` gets one of the `devices`; beyond these they share, in turn.
  What the `inherited` environment of the sweep hides stays hidden.

  Example:
    >>> environment(5, 6, 'gpu', 4, {'CUDA_VISIBLE_DEVICES': '2,3,6,7'})
    {'CUDA_VISIBLE_DEVICES': '3', 'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.45'}
  """
  if platform == 'cpu' or jobs == 1:
    return {}
  device = slot % devices
  if platform == 'tpu':
    return {
      'TPU_VISIBLE_CHIPS': str(device),
      'TPU_CHIPS_PER_PROCESS_BOUNDS': '1,1,1',
      'TPU_PROCESS_BOUNDS': '1,1,1',
    }
  every = ','.join(map(str, range(devices)))
  visible = inherited.get('CUDA_VISIBLE_DEVICES') or every
  variables = {'CUDA_VISIBLE_DEVICES': visible.split(',')[device]}
  sharing, name = -(-jobs // devices), 'XLA_PYTHON_CLIENT_MEM_FRACTION'
  if sharing > 1:  # a process would take three quarters of the memory
    variables[name] = inherited.get(name) or f'{0.9 / sharing:.2f}'
  return variables
