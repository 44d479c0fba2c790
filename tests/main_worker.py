"""Runs main.main on each command line of a file: code, stderr, seconds."""

import contextlib
import io
import json
import pathlib
import sys
import time

import main as training


def run(argv):
  """The command line, as a process of its own would see it."""
  error, start, used = io.StringIO(), time.monotonic(), time.process_time()
  with contextlib.redirect_stderr(error):
    code = training.main(['main.py', *argv])
  # On a busy machine the clock also counts what others do.
  took = min(time.monotonic() - start, time.process_time() - used)
  return code, error.getvalue(), took


def main():
  lines = json.loads(pathlib.Path(sys.argv[1]).read_text())
  print(json.dumps({name: run(argv) for name, argv in lines.items()}))


if __name__ == '__main__':
  sys.exit(main())
