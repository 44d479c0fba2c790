"""The cores of a CPU as devices."""

import json
import os
import subprocess
import sys

import pytest

_SCRIPT = """
import json, sys
import jax
from tsla.runs import environment
environment.available_cores = lambda: 4
model, batch_size = sys.argv[1], int(sys.argv[2])
environment.split_cores(model, batch_size)
environment.split_cores(model, batch_size)
devices = jax.local_device_count()
environment.split_cores('resnet18', batch_size)  # too late
print(json.dumps([devices, jax.local_device_count()]))
"""


@pytest.mark.ci
@pytest.mark.parametrize(
  ('model', 'batch', 'variables', 'devices'),
  [
    ('resnet18', 64, {}, 4),
    ('resnet18', 63, {}, 3),
    ('resnet18', 61, {}, 1),
    ('resnet8', 64, {}, 1),
    ('resnet18', 64, {'JAX_NUM_CPU_DEVICES': '2'}, 2),
    (
      'resnet18',
      64,
      {'XLA_FLAGS': '--xla_force_host_platform_device_count=5'},
      5,
    ),
  ],
)
def test_large_networks_get_a_device_a_core(model, batch, variables, devices):
  env = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  result = subprocess.run(
    [sys.executable, '-c', _SCRIPT, model, str(batch)],
    env=env | variables,
    capture_output=True,
    text=True,
    check=True,
  )
  assert json.loads(result.stdout) == [devices, devices]
