"""The figures of `variance.md`, from sweeps of one table at several noises.

  python -m docs.plots docs/variance-digits.png 0=runs/variance/digits-0 \
    0.2=runs/variance/digits-0.2 0.4=runs/variance/digits-0.4

What stands before = is the part of the labels that are wrong.
"""

import pathlib
import sys

from tsla.errors import InputError
from tsla.report import probe_figures
from tsla.report.results import read_results


def main(argv: list[str]) -> int:
  """Writes the figure; returns the exit code, 2 for bad input."""
  if len(argv) < 2 or not all('=' in argument for argument in argv[1:]):
    print(__doc__, file=sys.stderr)
    return 2
  try:
    tables = {}
    for argument in argv[1:]:
      noise, _, folder = argument.partition('=')
      (table,) = read_results([pathlib.Path(folder)])
      tables[f'{float(noise):.0%} wrong'] = table
  except InputError as error:
    print(error, file=sys.stderr)
    return 2
  pathlib.Path(argv[0]).write_bytes(probe_figures.probe_grid(tables))
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
