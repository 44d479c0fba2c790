"""What the probes of a table's runs found, as pictures."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tsla.pages.blocks import Key, Picture
from tsla.report import figures, summary
from tsla.report.results import Results

# Panels of probes: the title, and whether the axis is logarithmic.
_PROBES = {
  'delta': ('δ', True),
  'theta_star': ('θ*, and dotted the θ in use', False),
  'mse_ratio': ('m(θ) / σ² at the θ in use', False),
  'grad_norm': ('‖∇F‖', True),
  'smoothed_grad_norm': ('‖∇F‖ of the smoothed loss', True),
  'cosine': ('Cosine between the two', False),
}


def probes(table: Results) -> Picture:
  """What the probes found over the epochs, of the rows that have been probed.

  A line is the mean of the row's finished seeds, its band their least and most
  with a standard error to each side; dotted, in the panel of θ*, the θ in use.
  """
  with matplotlib.rc_context(figures.RC):
    figure = Figure(figsize=(9.6, 5.4), layout='constrained')
    axes = figure.subplots(2, 3, sharex=True).flat
    for panel, (name, (title, log)) in zip(axes, _PROBES.items(), strict=True):
      _probe_panel(panel, table, name, title, log)
    for panel in figure.axes[3:]:
      panel.set_xlabel('epoch')
    return figures.picture(figure, 'probes')


def probe_grid(
  tables: Mapping[str, Results],
  names: Sequence[str] = ('delta', 'theta_star', 'grad_norm'),
) -> bytes:
  """What the probes of several tables found: a row a table, a column a number.

  Args:
    tables: of the same rows, by what the panels' titles begin with.
    names: of probe rows, those of `probes`.

  Returns:
    A .png file.
  """
  with matplotlib.rc_context(figures.RC):
    figure = Figure(
      figsize=(3.2 * len(names), 2.4 * len(tables)), layout='constrained'
    )
    grid = figure.subplots(len(tables), len(names), sharex=True, squeeze=False)
    for axes, (label, table) in zip(grid, tables.items(), strict=True):
      for panel, name in zip(axes, names, strict=True):
        title, log = _PROBES[name]
        _probe_panel(panel, table, name, f'{label}: {title}', log)
    for panel in grid[-1]:
      panel.set_xlabel('epoch')
    figure.legend(
      handles=[
        Line2D([], [], color=key.colour, dashes=key.dashes or (None, None))
        for key in figures.keys(table)
      ],
      labels=[key.label for key in figures.keys(table)],
      loc='outside upper center',
      ncols=len(figures.keys(table)),
      frameon=False,
    )
    for axes in figure.axes:
      axes.set_xlim(left=0)
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=130)
    return file.getvalue()


def _probe_panel(
  panel: Axes, table: Results, name: str, title: str, log: bool
) -> None:
  panel.set_title(title)
  drawn = [
    curve
    for key in reversed(figures.keys(table))
    if (curve := _draw_probes(panel, table, key, name)) is not None
  ]
  if log and drawn:
    _log_scale_of_means(panel, drawn)
  elif name == 'theta_star':  # where δ is near 1 its band goes far beyond
    panel.set_ylim(-0.05, 1.05)


def _draw_probes(
  axes: Axes, table: Results, key: Key, name: str
) -> np.ndarray | None:
  """Draws a row; its means, None without a probe that found the number."""
  runs = table.done(key.label)
  curve = summary.probe_curve(runs, name)
  if not len(curve.epochs):
    return None
  style = {'color': key.colour, 'dashes': key.dashes or (None, None)}
  axes.plot(curve.epochs, curve.mean, **style)
  axes.fill_between(
    curve.epochs,
    curve.low,
    curve.high,
    color=key.colour,
    alpha=0.12,
    linewidth=0,
  )
  if name == 'theta_star':
    axes.plot(
      *summary.schedule(runs[0], 'theta'),
      color=key.colour,
      linewidth=1,
      linestyle=':',
      drawstyle='steps-pre',  # the value of a row is that of its last update
    )
  return curve.mean


def _log_scale_of_means(axes: Axes, curves: Sequence[np.ndarray]) -> None:
  """A log axis that fits the means: a band may reach below 0."""
  means = np.concatenate(curves)
  if not (means > 0).all():
    return
  axes.set_yscale('log', nonpositive='clip')
  axes.set_ylim(means.min() / 1.5, means.max() * 1.5)
  figures.plain_log_ticks(axes)
