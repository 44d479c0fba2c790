"""Runs main.main on each command line of a file: code, stderr, seconds."""

import contextlib
import importlib
import io
import json
import pathlib
import sys
import time

from absl import flags

FLAGS = {'config', 'workdir', 'distributed', 'debug'} | {
  'allow_changed_config',
  'coordinator',
  'num_processes',
  'process_index',
}


def run(argv):
  """The command line, as a process of its own would see it."""
  for name in list(flags.FLAGS):
    if name.split('.')[0] in FLAGS:
      delattr(flags.FLAGS, name)
  sys.modules.pop('main', None)
  main = importlib.import_module('main')
  sys.argv = ['main.py', *argv]  # config_flags looks there for overrides
  error, start, used = io.StringIO(), time.monotonic(), time.process_time()
  with contextlib.redirect_stderr(error):
    code = main.main(sys.argv)
  # On a busy machine the clock also counts what others do.
  took = min(time.monotonic() - start, time.process_time() - used)
  return code, error.getvalue(), took


def main():
  lines = json.loads(pathlib.Path(sys.argv[1]).read_text())
  print(json.dumps({name: run(argv) for name, argv in lines.items()}))


if __name__ == '__main__':
  sys.exit(main())
