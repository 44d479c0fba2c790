"""Writes what a table of runs shows: `report.md` and `report.html`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import jax

from tsla.errors import InputError
from tsla.report.write import write_report


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit status, 2 for bad input."""
  parser = argparse.ArgumentParser(
    prog='python -m tsla report',
    description='Write report.md and report.html of finished runs.',
  )
  add = parser.add_argument
  add('workdir', nargs='+', type=pathlib.Path, help="a sweep's, or a run's")
  add('--out', type=pathlib.Path, help='a folder; default: the first WORKDIR')
  args = parser.parse_args(argv)
  # The accelerator may be training the runs that are still missing.
  jax.config.update('jax_platforms', 'cpu')
  try:
    paths = write_report(args.workdir, args.out or args.workdir[0])
  except InputError as error:
    print(error, file=sys.stderr)
    return 2
  print(*paths, sep='\n')
  return 0
