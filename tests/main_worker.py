"""Runs main.main on each command line of a file.

Prints for each its exit code, stderr, the programs that jax compiled, and the
seconds of the processor.
"""

import contextlib
import io
import json
import pathlib
import sys
import time

import jax

import main as training

compiled = []


def note(event, seconds, **more):
  if event == '/jax/core/compile/backend_compile_duration':
    compiled.append(more.get('fun_name', ''))


def run(argv):
  """The command line, as a process of its own would see it."""
  error = io.StringIO()
  compiled.clear()
  start = time.process_time()
  with contextlib.redirect_stderr(error):
    code = training.main(['main.py', *argv])
  seconds = time.process_time() - start
  return code, error.getvalue(), list(compiled), seconds


def main():
  jax.monitoring.register_event_duration_secs_listener(note)
  lines = json.loads(pathlib.Path(sys.argv[1]).read_text())
  print(json.dumps({name: run(argv) for name, argv in lines.items()}))


if __name__ == '__main__':
  sys.exit(main())
