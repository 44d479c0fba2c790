"""The figures of these pages: of the README, and of `variance.md`.

  python -m docs.plots docs/switch.svg demo/digits
  python -m docs.plots docs/variance-digits.png 0=runs/variance/digits-0 \
    0.2=runs/variance/digits-0.2 0.4=runs/variance/digits-0.4

The first is of one sweep, as of `make demo`: hard loss and ECE of baseline, LSR
and TSLA(20) over the epochs. The others are of sweeps of one table at several
noises: what stands before = is the part of the labels that are wrong.
"""

import io
import pathlib
import sys
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tsla.errors import InputError
from tsla.pages.figures import NEUTRAL, picture, plain_log_ticks, styled
from tsla.report.figures import draw_curve, draw_panel, keys
from tsla.report.results import Results, read_results
from tsla.report.summary import Curve, evaluation_curve, training_curve

SWITCH_ROWS = ('baseline', 'LSR', 'TSLA(20)')


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
      Line2D(
        *([], []),
        **{'color': key.colour, 'marker': key.marker},
        dashes=key.dashes or (None, None),
      )
      for key in rows
    ],
    labels=[key.label for key in rows],
    loc='outside upper center',
    ncols=len(rows),
  )
  file = io.BytesIO()
  figure.savefig(file, format='png', dpi=130)
  return file.getvalue()


@styled
def switch(results: Results, rows: Sequence[str] = SWITCH_ROWS) -> bytes:
  """What dropping the smoothing does: hard loss and ECE around the switch.

  Args:
    results: of a sweep that has the rows and a validation split.
    rows: the methods; the last one drops its smoothing.

  Returns:
    An .svg file.
  """
  known = {key.label: key for key in keys(results)}
  last = results.done(rows[-1])
  if not all(map(results.done, rows)) or not last[0].switches:
    problem = f'{results.title}: no finished run of each of {", ".join(rows)}'
    raise InputError(problem, cure='make demo, which trains them')
  (epoch,) = last[0].switches
  figure = Figure(figsize=(8.4, 3.0), layout='constrained')
  loss, error = figure.subplots(1, 2)
  for row in rows:
    runs, key = results.done(row), known[row]
    # Until the switch the last one is the one before it.
    begins = epoch if row == rows[-1] else 0
    for axes, curve in (
      (loss, training_curve(runs, 'hard_loss')),
      (error, evaluation_curve(runs, 'ece')),
    ):
      shown = curve.epochs >= begins
      epochs, *values = (part[shown] for part in curve)
      percent = 100 if axes is error else 1
      drawn = Curve(epochs, *(percent * value for value in values))
      draw_curve(axes, drawn, key)
      axes.annotate(
        key.label,
        (drawn.epochs[-1], drawn.mean[-1]),
        xytext=(4, 0),
        textcoords='offset points',
        color=key.colour,
        va='center',
      )
  loss.set_title('Training: hard loss, nats')
  loss.set_yscale('log')
  plain_log_ticks(loss)
  error.set_title('Validation: ECE, %')
  error.set_ylim(0, 20)
  for axes in (loss, error):
    look = {'color': NEUTRAL, 'linewidth': 0.9, 'linestyle': ':'}
    axes.axvline(epoch, **look)
    axes.set_xlim(0, results.runs[0].epochs)
    axes.set_xlabel('epoch')
  return dict(picture(figure, 'switch').files)['svg']


def only_table(folder: str) -> Results:
  """The one table of a folder."""
  found = read_results([pathlib.Path(folder)])
  if len(found) > 1:
    titles = ', '.join(results.title for results in found)
    raise InputError(f'{folder}: {len(found)} tables, {titles}', cure='one')
  return found[0]


def main(argv: list[str]) -> int:
  """Writes the figure; returns the exit code, 2 for bad input."""
  noises = ['=' in argument for argument in argv[1:]]
  if not noises or not (all(noises) or len(argv) == 2):
    print(__doc__, file=sys.stderr)
    return 2
  try:
    if not noises[0]:
      pathlib.Path(argv[0]).write_bytes(switch(only_table(argv[1])))
      return 0
    tables = {}
    for argument in argv[1:]:
      noise, _, folder = argument.partition('=')
      tables[f'{float(noise):.0%} wrong'] = only_table(folder)
  except InputError as error:
    print(error, file=sys.stderr)
    return 2
  pathlib.Path(argv[0]).write_bytes(probe_grid(tables))
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
