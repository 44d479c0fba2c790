"""Writes report.md and report.html of finished runs."""

import pathlib
from collections.abc import Sequence

import jax

from tsla.commands.parser import Parser, command
from tsla.report.sections import write_report


@command
def main(argv: Sequence[str]) -> None:
  """Runs the command line."""
  parser = Parser('report', __doc__)
  add = parser.add_argument
  add('workdir', nargs='+', type=pathlib.Path, help="a sweep's, or a run's")
  add('--out', type=pathlib.Path, help='a folder; default: the first WORKDIR')
  args = parser.parse_args(argv)
  # The accelerator may be training the runs that are still missing.
  jax.config.update('jax_platforms', 'cpu')
  paths = write_report(args.workdir, args.out or args.workdir[0])
  print(*paths, sep='\n')
