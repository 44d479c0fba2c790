"""The figures of `variance.md`, from sweeps of one table at several noises.

  python -m docs.plots docs/variance-digits.png 0=runs/variance/digits-0 \
    0.2=runs/variance/digits-0.2 0.4=runs/variance/digits-0.4

What stands before = is the part of the labels that are wrong.
"""

import io
import pathlib
import sys
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tsla.errors import InputError
from tsla.pages.figures import styled
from tsla.report.figures import draw_panel, keys
from tsla.report.results import Results, read_results


@styled
def probe_grid(
  tables: Mapping[str, Results],
  names: Sequence[str] = ('delta', 'theta_star', 'grad_norm'),
) -> bytes:
  """What the probes of several tables found: a row a table, a column a number.

  Args:
    tables: of the same rows, by what the panels' titles begin with.
    names: of probe rows, those of `figures.probes`.

  Returns:
    A .png file.
  """
  figure = Figure(
    figsize=(3.2 * len(names), 2.4 * len(tables)), layout='constrained'
  )
  grid = figure.subplots(len(tables), len(names), sharex=True, squeeze=False)
  for axes, (label, results) in zip(grid, tables.items(), strict=True):
    for panel, name in zip(axes, names, strict=True):
      draw_panel(panel, results, name, f'{label}: ')
  for panel in figure.axes:
    panel.set_xlim(left=0)
  for panel in grid[-1]:
    panel.set_xlabel('epoch')
  rows = keys(results)
  figure.legend(
    handles=[
      Line2D([], [], color=key.colour, dashes=key.dashes or (None, None))
      for key in rows
    ],
    labels=[key.label for key in rows],
    loc='outside upper center',
    ncols=len(rows),
  )
  file = io.BytesIO()
  figure.savefig(file, format='png', dpi=130)
  return file.getvalue()


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
  pathlib.Path(argv[0]).write_bytes(probe_grid(tables))
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
