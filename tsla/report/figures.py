"""The curves of a table as pictures; the same input gives the same bytes."""

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
  FuncFormatter,
  LogLocator,
  MaxNLocator,
  NullLocator,
)
from PIL import Image

from tsla.pages.blocks import Key, Picture
from tsla.report import summary
from tsla.report.results import Results, RunResult
from tsla.runs.log import is_number

# Okabe and Ito's colours, without the yellow that white paper swallows: told
# apart by colour-blind readers too.
_COLOURS = (
  '#000000',
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#cc79a7',
  '#e69f00',
  '#56b4e9',
)
_COMMON = '#48515c'  # of a line that stands for all rows
# For the rows after the seventh, in line widths.
_DASHES = ((), (4, 1.5), (1, 1.2), (5, 1.5, 1, 1.5))
# Above this a bitmap is smaller than the curves.
_LARGEST_SVG = 200_000
RC = {
  'axes.axisbelow': True,
  'axes.edgecolor': '#68727d',
  'axes.grid': True,
  'axes.labelcolor': '#48515c',
  'axes.labelsize': 9,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.titlelocation': 'left',
  'axes.titlesize': 10,
  'axes.titleweight': 'bold',
  'font.size': 9,
  'grid.color': '#e6e9ed',
  'grid.linewidth': 0.8,
  'lines.linewidth': 1.5,
  'svg.fonttype': 'none',
  'text.parse_math': False,
  'xtick.color': '#68727d',
  'xtick.labelcolor': '#48515c',
  'ytick.color': '#68727d',
  'ytick.labelcolor': '#48515c',
}


def keys(table: Results) -> tuple[Key, ...]:
  """One colour a row, the same in every figure."""
  return tuple(
    Key(
      row,
      _COLOURS[index % len(_COLOURS)],
      _DASHES[index // len(_COLOURS) % len(_DASHES)],
    )
    for index, row in enumerate(table.rows)
  )


def learning_curves(table: Results) -> Picture:
  """Training loss, and the test's NLL, top-1 and ECE, over the epochs.

  A line is the mean of the row's finished seeds, its band their least and most.
  A ring and a dotted line mark where a row drops the smoothing.
  """
  with matplotlib.rc_context(RC):
    figure = Figure(figsize=(9.6, 6.2), layout='constrained')
    panels = figure.subplots(2, 2, sharex=True).flat
    titles = (
      ('hard_loss', 'Training: hard loss, nats', 1, True),
      ('nll', 'Test: NLL, nats', 1, True),
      ('top1', 'Test: top-1, %', 100, False),
      ('ece', 'Test: ECE, %', 100, False),
    )
    for axes, (name, title, scale, log) in zip(panels, titles, strict=True):
      axes.set_title(title)
      drawn = [
        points
        for index in reversed(range(len(table.rows)))
        if (points := _draw_row(axes, table, index, name, scale)) is not None
      ]
      if log and all((points > 0).all() for points in drawn):
        axes.set_yscale('log')
        plain_log_ticks(axes)
      elif name == 'top1' and drawn:
        _leave_out_the_beginning(axes, drawn)
    for axes in figure.axes[2:]:
      axes.set_xlabel('epoch')
    return picture(figure, 'curves')


def _draw_row(
  axes: Axes, table: Results, index: int, name: str, scale: float
) -> np.ndarray | None:
  """Draws a row, earlier ones on top; its means, None without a run."""
  runs, key = table.done(table.rows[index]), keys(table)[index]
  if name == 'hard_loss':
    curve = summary.training_curve(runs, name)
  else:
    curve = summary.test_curve(runs, name)
  if not len(curve.epochs):
    return None
  mean, low, high = (scale * part for part in curve[1:])
  axes.plot(
    curve.epochs, mean, color=key.colour, dashes=key.dashes or (None, None)
  )
  axes.fill_between(
    curve.epochs,
    low,
    high,
    where=curve.epochs >= _first_own_epoch(table, runs),
    color=key.colour,
    alpha=0.12,
    linewidth=0,
  )
  switches = {
    row['epoch']
    for run in runs
    for row in run.rows('switch')
    if is_number(row.get('epoch'))
  }
  for epoch in sorted(switches):
    axes.axvline(epoch, color=key.colour, linewidth=0.9, linestyle=':')
    axes.plot(
      [epoch],
      [np.interp(epoch, curve.epochs, mean)],
      marker='o',
      markersize=5.5,
      markerfacecolor='white',
      markeredgecolor=key.colour,
      markeredgewidth=1.4,
      zorder=3,
    )
  return mean


def _first_own_epoch(table: Results, runs: Sequence[RunResult]) -> int:
  """Where a row leaves the one it began in; 0 if that is not in the table."""
  drawn = {run.record.path.name for run in table.runs if run.done}
  if not all(run.trunk in drawn for run in runs):
    return 0
  return min(run.first_epoch for run in runs)


def _leave_out_the_beginning(axes: Axes, curves: Sequence[np.ndarray]) -> None:
  """Fits the axis to all but the first quarter, a steep climb."""
  later = np.concatenate([curve[len(curve) // 4 :] for curve in curves])
  margin = max(0.15 * np.ptp(later), 0.2)
  axes.set_ylim(later.min() - margin, later.max() + margin)


def schedules(table: Results) -> Picture:
  """θ and the learning rate over the epochs, of the first seed of each row."""
  with matplotlib.rc_context(RC):
    figure = Figure(figsize=(9.6, 2.7), layout='constrained')
    panels = figure.subplots(1, 2)
    panels[0].set_title('Smoothing strength θ')
    _draw_schedules(panels[0], table, 'theta')
    panels[1].set_title('Learning rate')
    _draw_schedules(panels[1], table, 'learning_rate')
    for axes in panels:
      axes.set_xlabel('epoch')
    return picture(figure, 'schedules')


def _draw_schedules(axes: Axes, table: Results, name: str) -> None:
  """A line a row; rows that share one lie below each other, wider and wider."""
  lines = [
    (key, *line)
    for key in keys(table)
    if (runs := table.done(key.label))
    and len((line := summary.schedule(runs[0], name))[0])
  ]
  seen: list[bytes] = [values.tobytes() for _, _, values in lines]
  if len(lines) > 1 and len(set(seen)) == 1:
    lines = [(Key('all', _COMMON, ()), *lines[0][1:])]
  for index, (key, epochs, values) in enumerate(lines):
    few = len(np.unique(values)) <= max(2, len(values) // 4)
    if few:
      epochs, values = np.insert(epochs, 0, 0), np.insert(values, 0, values[0])
    axes.plot(
      epochs,
      values,
      color=key.colour,
      linewidth=1.5 + 2.4 * seen[:index].count(seen[index]),
      dashes=key.dashes or (None, None),
      # The value of a row is that of its last update.
      drawstyle='steps-pre' if few else 'default',
      zorder=2 - 0.01 * index,
    )
  top = max((values.max() for _, _, values in lines), default=0) or 1
  axes.set_ylim(-0.04 * top, 1.08 * top)


def plain_log_ticks(axes: Axes) -> None:
  """Puts the few numbers on a log axis that a reader looks for."""
  low, high = axes.get_ylim()
  # The fewer decades, the more ticks between the powers of ten.
  subs = next(
    subs
    for least, subs in ((100, (1,)), (10, (1, 2, 5)), (0, (1, 1.5, 2, 3, 5, 7)))
    if high / low > least
  )
  axes.yaxis.set_major_locator(LogLocator(subs=subs))
  axes.yaxis.set_minor_locator(NullLocator())
  axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f'{y:g}'))


def picture(figure: Figure, name: str) -> Picture:
  """A figure for a page; `name` keeps its ids apart from another one's."""
  for axes in figure.axes:
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.margins(x=0.02)
    axes.set_xlim(left=0)
  file = io.StringIO()
  # The salt keeps ids apart that two figures of a page would share.
  with matplotlib.rc_context({'svg.hashsalt': name}):
    figure.savefig(file, format='svg')
  svg = _inline(file.getvalue())
  if len(svg) <= _LARGEST_SVG:
    return Picture(svg=svg)
  png = io.BytesIO()
  figure.savefig(png, format='png', dpi=160)
  few = io.BytesIO()
  Image.open(png).convert('RGB').quantize(128).save(few, 'png', optimize=True)
  return Picture(png=few.getvalue(), width=round(100 * figure.get_figwidth()))


def _inline(svg: str) -> str:
  """The part of an SVG file that belongs into a page, in fewer bytes."""
  svg = svg[svg.index('<svg') :]
  svg = re.sub(r'\s*<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
  svg = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', '', svg, count=3)
  # Ids that nothing refers to, and that the next figure has too.
  svg = re.sub(r' id="[a-z.\d]+_\d+"', '', svg)
  svg = re.sub(r' font-family: [^;"]*;', '', svg)
  return re.sub(
    r'(?<= d=")[^"]*',
    lambda path: re.sub(r'(\.\d\d)\d+', r'\1', path[0]).replace('\n', ''),
    svg,
  ).strip()
