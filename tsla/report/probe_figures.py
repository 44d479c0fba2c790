"""What the probes of a table's runs found, as pictures."""

import numpy as np
from matplotlib.axes import Axes

from tsla.pages.blocks import Picture
from tsla.pages.figures import panels, plain_log_ticks, styled
from tsla.report import figures, summary
from tsla.report.results import Results

# Panels of probes: the title, and whether the axis is logarithmic.
_PANELS = {
  'delta': ('δ', True),
  'theta_star': ('θ*, and dotted the θ in use', False),
  'mse_ratio': ('m(θ) / σ² at the θ in use', False),
  'grad_norm': ('‖∇F‖', True),
  'smoothed_grad_norm': ('‖∇F‖ of the smoothed loss', True),
  'cosine': ('Cosine between the two', False),
}


@styled
def probes(results: Results) -> Picture:
  """What the probes found over the epochs, of the rows that have been probed.

  A line is the mean of the row's finished seeds, its band their least and most
  with a standard error to each side; dotted, in the panel of θ*, the θ in use.
  """
  figure, axes = panels(2, 3, 5.4, sharex=True)
  for panel, name in zip(axes, _PANELS, strict=True):
    draw_panel(panel, results, name)
  return figures.over_epochs(figure, 'probes')


def draw_panel(
  panel: Axes, results: Results, name: str, label: str = ''
) -> None:
  """Draws the rows in which a probe found the number, the first on top."""
  title, log = _PANELS[name]
  panel.set_title(label + title)
  means = []
  for key in reversed(figures.keys(results)):
    runs = results.done(key.label)
    curve = summary.probe_curve(runs, name)
    if not len(curve.epochs):
      continue
    means.append(curve.mean)
    figures.draw_curve(panel, curve, key)
    if name == 'theta_star':
      # The value of a row is that of its last update.
      look = {'lw': 1, 'ls': ':', 'drawstyle': 'steps-pre'}
      epochs, theta = summary.schedule(runs[0], 'theta')
      panel.plot(epochs, theta, color=key.colour, **look)
  every = np.concatenate(means) if means else np.zeros(1)
  if name == 'theta_star':  # its band, and some means, go far beyond
    low, high = np.clip([every.min() - 0.05, every.max() + 0.05], -1, 2)
    panel.set_ylim(min(-0.05, low), max(1.05, high))
  elif log and every.min() > 0:
    # An axis that fits the means: a band may reach below 0.
    panel.set_yscale('log', nonpositive='clip')
    panel.set_ylim(every.min() / 1.5, every.max() * 1.5)
    plain_log_ticks(panel)
