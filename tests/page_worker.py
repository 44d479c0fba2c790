"""Runs the commands of a page in a folder, in one process, one after another.

page_worker.py FOLDER LINES: LINES is a file of lists of arguments, of main.py,
of `-m tsla` or of a script. Prints of each the exit code, stdout and stderr.
"""

import contextlib
import io
import json
import os
import pathlib
import runpy
import sys
import unittest.mock

import main as training
from tsla import __main__ as door


def run(argv):
  first, *rest = argv
  if first == 'main.py':
    return training.main(argv)
  if first == '-m':
    return door.main(rest[1:])
  with unittest.mock.patch('sys.argv', argv):
    runpy.run_path(first, run_name='__main__')
  return 0


def main():
  outcomes = []
  lines = json.loads(pathlib.Path(sys.argv[2]).read_text())
  os.chdir(sys.argv[1])
  for argv in lines:
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
      code = run(argv)
    outcomes.append((code, out.getvalue(), error.getvalue()))
  print(json.dumps(outcomes))


if __name__ == '__main__':
  sys.exit(main())
