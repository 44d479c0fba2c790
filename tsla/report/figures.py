"""Curves of a table over the epochs, as pictures: of logs and of probes."""

import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tsla.pages import figures
from tsla.pages.blocks import Key, Picture
from tsla.report import summary
from tsla.report.results import Results

# In line widths; with the markers they tell 30 rows apart without a colour.
_DASHES = ((), (4, 1.5), (1, 1.2), (5, 1.5, 1, 1.5), (9, 2), (3, 1, 1, 1, 1, 1))
# Panels of logs: what, and in which unit; those in nats have a log axis.
_CURVES = (
  ('hard_loss', 'Training: hard loss, nats', 1),
  ('nll', 'Evaluation: NLL, nats', 1),
  ('top1', 'Evaluation: top-1, %', 100),
  ('ece', 'Evaluation: ECE, %', 100),
)
# Panels of probes: the title, and whether the axis is logarithmic.
_PANELS = {
  'delta': ('δ', True),
  'theta_star': ('θ*, and dotted the θ in use', False),
  'mse_ratio': ('m(θ) / σ² at the θ in use', False),
  'grad_norm': ('‖∇F‖', True),
  'smoothed_grad_norm': ('‖∇F‖ of the smoothed loss', True),
  'cosine': ('Cosine between the two', False),
}


def keys(results: Results) -> tuple[Key, ...]:
  """A look of its own for each row, the same in every figure."""
  looks = figures.COLOURS, _DASHES, figures.MARKERS
  looks = map(itertools.cycle, looks)
  return tuple(itertools.starmap(Key, zip(results.rows, *looks, strict=False)))


def over_epochs(figure: Figure, name: str) -> Picture:
  """The picture of a figure whose x axes are epochs; `name` is its own."""
  for axes in figure.axes:
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.margins(x=0.02)
    axes.set_xlim(left=0)
    if axes.get_subplotspec().is_last_row():
      axes.set_xlabel('epoch')
  return figures.picture(figure, name)


@figures.styled
def learning_curves(results: Results) -> Picture:
  """Training loss, and NLL, top-1 and ECE of evaluations, over the epochs."""
  figure, panels = figures.panels(2, 2, 6.2, sharex=True)
  for axes, (name, title, scale) in zip(panels, _CURVES, strict=True):
    axes.set_title(title)
    rows = reversed(keys(results))  # the first one last, on top
    means = [_draw_row(axes, results, key, name, scale) for key in rows]
    drawn = [points for points in means if len(points)]
    if scale == 1 and all((points > 0).all() for points in drawn):
      axes.set_yscale('log')
      figures.plain_log_ticks(axes)
    elif name == 'top1' and drawn:
      # All but the first quarter, a steep climb.
      later = np.concatenate([points[len(points) // 4 :] for points in drawn])
      margin = max(0.15 * np.ptp(later), 0.2)
      axes.set_ylim(later.min() - margin, later.max() + margin)
  return over_epochs(figure, 'curves')


def _draw_row(
  axes: Axes, results: Results, key: Key, name: str, scale: float
) -> np.ndarray:
  """Draws a row, and returns its means."""
  runs, training = results.done(key.label), name == 'hard_loss'
  read = summary.training_curve if training else summary.evaluation_curve
  epochs, *values = read(runs, name)
  curve = summary.Curve(epochs, *(scale * value for value in values))
  if not len(epochs):
    return curve.mean
  # The band begins where a row leaves the one it began in, if that is drawn.
  drawn = {run.record.path.name for run in results.runs if run.done}
  begins = min(r.first_epoch if r.trunk in drawn else 0 for r in runs)
  draw_curve(axes, curve, key, begins)
  ring = {'mec': key.colour, 'mew': 1.4, 'mfc': 'white', 'ms': 5.5}
  for epoch in sorted({epoch for run in runs for epoch in run.switches}):
    axes.axvline(epoch, color=key.colour, linewidth=0.9, linestyle=':')
    mean = np.interp(epoch, epochs, curve.mean)
    axes.plot([epoch], [mean], marker='o', zorder=3, **ring)
  return curve.mean


def draw_curve(
  axes: Axes, curve: summary.Curve, key: Key, band_from: float = 0
) -> None:
  """Draws the line of a row, and its band from an epoch on."""
  epochs, mean, low, high = curve
  axes.plot(epochs, mean, **_line(key))
  look = {'color': key.colour, 'alpha': 0.12, 'linewidth': 0}
  axes.fill_between(epochs, low, high, where=epochs >= band_from, **look)


def _line(key: Key) -> dict[str, Any]:
  """How a row's line looks; its marks do not hide those of other rows."""
  first = 0.02 * figures.MARKERS.index(key.marker)
  look = {'color': key.colour, 'dashes': key.dashes or (None, None)}
  return look | {'marker': key.marker, 'markevery': (first, 0.12)}


@figures.styled
def schedules(results: Results) -> Picture:
  """θ of each run over the epochs, and the rate of the first of each row."""
  figure, (left, right) = figures.panels(1, 2, 2.7)
  left.set_title('Smoothing strength θ')
  right.set_title('Learning rate')
  _draw_schedules(left, results, 'theta')
  _draw_schedules(right, results, 'learning_rate')
  return over_epochs(figure, 'schedules')


def _draw_schedules(axes: Axes, results: Results, name: str) -> None:
  """A line a run; those that share one lie below each other, ever wider."""
  seeds = slice(None if name == 'theta' else 1)
  runs = [(k, r) for k in keys(results) for r in results.done(k.label)[seeds]]
  every = ((key, *summary.schedule(run, name)) for key, run in runs)
  once = {(k, v.tobytes(), e.tobytes()): (k, e, v) for k, e, v in every}
  lines = [line for line in once.values() if len(line[1])]
  seen = [values.tobytes() for _, _, values in lines]
  if len(lines) > 1 and len(set(seen)) == 1:
    lines = [(Key('all', figures.NEUTRAL), *lines[0][1:])]
  for index, (key, epochs, values) in enumerate(lines):
    few = len(np.unique(values)) <= max(2, len(values) // 4)
    if few:
      epochs, values = np.insert(epochs, 0, 0), np.insert(values, 0, values[0])
    # The value of a row is that of its last update.
    look = {'drawstyle': 'steps-pre' if few else 'default', **_line(key)}
    width = 1.5 + 2.4 * seen[:index].count(seen[index])
    axes.plot(epochs, values, lw=width, zorder=2 - 0.01 * index, **look)
  top = max((values.max() for _, _, values in lines), default=0) or 1
  axes.set_ylim(-0.04 * top, 1.08 * top)


@figures.styled
def probes(results: Results) -> Picture:
  """What the probes found over the epochs."""
  figure, axes = figures.panels(2, 3, 5.4, sharex=True)
  for panel, name in zip(axes, _PANELS, strict=True):
    draw_panel(panel, results, name)
  return over_epochs(figure, 'probes')


def draw_panel(axes: Axes, results: Results, name: str, lead: str = '') -> None:
  """Draws the rows in which a probe found the number, the first on top."""
  title, log = _PANELS[name]
  axes.set_title(lead + title)
  means = []
  for key in reversed(keys(results)):
    runs = results.done(key.label)
    curve = summary.probe_curve(runs, name)
    if not len(curve.epochs):
      continue
    means.append(curve.mean)
    draw_curve(axes, curve, key)
    if name == 'theta_star':
      # The value of a row is that of its last update.
      look = {'lw': 1, 'ls': ':', 'drawstyle': 'steps-pre'}
      epochs, theta = summary.schedule(runs[0], 'theta')
      axes.plot(epochs, theta, color=key.colour, **look)
  every = np.concatenate(means) if means else np.zeros(1)
  if name == 'theta_star':  # its band, and some means, go far beyond
    low, high = np.clip([every.min() - 0.05, every.max() + 0.05], -1, 2)
    axes.set_ylim(min(-0.05, low), max(1.05, high))
  elif log and every.min() > 0:
    # An axis that fits the means: a band may reach below 0.
    axes.set_yscale('log', nonpositive='clip')
    axes.set_ylim(every.min() / 1.5, every.max() * 1.5)
    figures.plain_log_ticks(axes)
