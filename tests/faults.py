"""What the tests of faults share: processes of one small run, and its end."""

import json
import os
import subprocess
import sys

from support import ROOT, with_devices

# Many processes of one program: compile it once.
CACHE = {
  'JAX_ENABLE_COMPILATION_CACHE': 'true',
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
}


def start(worker, *args, cache, devices=1, preload=None):
  """Starts tests/WORKER with args as a process of its own."""
  env = os.environ | CACHE | with_devices(devices)
  env['JAX_COMPILATION_CACHE_DIR'] = str(cache)
  if preload:
    env['LD_PRELOAD'] = str(preload)
  return subprocess.Popen(
    [sys.executable, str(ROOT / 'tests' / worker), *map(str, args)],
    env=env,
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def status(workdir):
  found = json.loads((workdir / 'status.json').read_text())
  found.pop('seconds')
  return found


def arrays(workdir, step):
  """The digests of the state that lies there; every bit is in them."""
  path = workdir / 'checkpoints' / str(step) / 'manifest.json'
  return json.loads(path.read_text())['arrays']


def rows(workdir):
  """The log without what the clock makes."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  clock = {'images_per_second': 0, 'seconds': 0}
  return [json.loads(line) | clock for line in lines]
