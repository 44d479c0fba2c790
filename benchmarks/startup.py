"""Seconds from the start of a process to its first chunk, cold and warm.

Warm finds the first one's compiled programs in a cache folder.

  python benchmarks/startup.py --size=cifar
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import common


def worker(args: object) -> None:
  """Imports, builds, trains one chunk; prints what it was and compilations."""
  import jax

  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  counts = {'cache_hits': 0, 'cache_misses': 0}

  def count(event: str, **_: object) -> None:
    name = event.rsplit('/', 1)[-1]
    if name in counts:
      counts[name] += 1

  jax.monitoring.register_event_listener(count)
  import ours

  path = ours.Ours(args)
  path.train(args.steps).compute()
  print(json.dumps({'device': path.device, **counts}))


def main() -> None:
  """Runs the worker twice on one cache folder, empty at first."""
  parser = common.arguments(__doc__)
  parser.add_argument('--worker', action='store_true')
  args = common.parse(parser)
  if args.worker:
    worker(args)
    return
  figures = {}
  with tempfile.TemporaryDirectory() as folder:
    env = os.environ | {
      'JAX_COMPILATION_CACHE_DIR': folder,
      'JAX_ENABLE_COMPILATION_CACHE': 'true',
    }
    for name in ('cold', 'warm'):
      start = time.perf_counter()
      result = subprocess.run(
        [sys.executable, __file__, '--worker', *sys.argv[1:]],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
      )
      seconds = time.perf_counter() - start
      row = json.loads(result.stdout.splitlines()[-1])
      device = row.pop('device')
      figures[name] = {'seconds': round(seconds, 2), **row}
  common.record('startup', args, device, figures)


if __name__ == '__main__':
  main()
