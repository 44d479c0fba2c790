"""Writes report.html and .md of runs, and report/, into the first WORKDIR."""

import pathlib

import jax

from tsla.commands.parser import Parser, command
from tsla.report.sections import write_report


@command
def main(parser: Parser) -> None:
  """Runs the command line."""
  add = parser.add_argument
  add('workdir', nargs='+', type=pathlib.Path, help="a sweep's, or a run's")
  add('--out', type=pathlib.Path, help='a folder in place of that one')
  args = parser.parse_args()
  # The accelerator may be training the runs that are still missing.
  jax.config.update('jax_platforms', 'cpu')
  print(write_report(args.workdir, args.out or args.workdir[0]))
