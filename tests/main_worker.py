"""Runs main.main on each command line of a file.

Prints for each its exit code, stderr, and the programs that jax compiled.
"""

import contextlib
import importlib
import io
import json
import pathlib
import sys

import jax
from absl import flags

FLAGS = {'config', 'workdir', 'distributed', 'debug'} | {
  'allow_changed_config',
  'coordinator',
  'num_processes',
  'process_index',
}

compiled = []


def note(event, seconds, **more):
  if event == '/jax/core/compile/backend_compile_duration':
    compiled.append(more.get('fun_name', ''))


def run(argv):
  """The command line, as a process of its own would see it."""
  for name in list(flags.FLAGS):
    if name.split('.')[0] in FLAGS:
      delattr(flags.FLAGS, name)
  sys.modules.pop('main', None)
  main = importlib.import_module('main')
  sys.argv = ['main.py', *argv]  # config_flags looks there for overrides
  error = io.StringIO()
  compiled.clear()
  with contextlib.redirect_stderr(error):
    code = main.main(sys.argv)
  return code, error.getvalue(), list(compiled)


def main():
  jax.monitoring.register_event_duration_secs_listener(note)
  lines = json.loads(pathlib.Path(sys.argv[1]).read_text())
  print(json.dumps({name: run(argv) for name, argv in lines.items()}))


if __name__ == '__main__':
  sys.exit(main())
