"""The tables of numbers: the methods, and the methods against the first.

Their captions are in `comparison.toml`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tsla.config import forms as config_lib
from tsla.pages.blocks import (
  Block,
  Cell,
  ParagraphBlock,
  TableBlock,
  read_texts,
)
from tsla.report import published, summary
from tsla.report.results import Results, RunResult


class Metric(NamedTuple):
  """How a number of an evaluation is shown."""

  name: str  # in the log
  label: str  # in a header
  scale: float  # what it is multiplied by
  digits: int  # after the point
  counts: bool = False  # whether it is a part of the test images

  def text(self, value: float, sign: str = '') -> str:
    """With a minus sign that is one, and never minus nothing."""
    value = round(value * self.scale, self.digits) + 0.0
    return f'{value:{sign}.{self.digits}f}'.replace('-', '−')


METRICS = (
  Metric('top1', 'Top-1 %', 100, 2, counts=True),
  Metric('top5', 'Top-5 %', 100, 2, counts=True),
  Metric('nll', 'NLL', 1, 3),
  Metric('brier', 'Brier', 1, 3),
  Metric('ece', 'ECE %', 100, 2),
)
# What a run with a rule and one with a fixed s may differ in.
_WHEN = ('schedule', 'drop_', 'rule', 'patience', 'min_', 'max_')
_FREE = ('seed', 'init.', 'variance.', *(f'smoothing.{x}' for x in _WHEN))
# Of an evaluation's row; what else is there is a metric of one's own.
_KNOWN = {'kind', 'step', 'epoch', 'count', *(m.name for m in METRICS)}
NOTHING = Cell('–', faint=True)
NOT_MEASURED = Cell('not measured', faint=True)
Blocks = Iterator[Block]
_text = read_texts(__file__)


def metrics_of(results: Results) -> tuple[Metric, ...]:
  """What the tables show: the metrics, and those of one's own."""
  done = [run for run in results.runs if run.done]
  own = dict.fromkeys(name for run in done for name in run.test)
  shown = (Metric(name, name, 1, 4) for name in own if name not in _KNOWN)
  return (*METRICS, *shown)


def of_results(results: Results) -> Blocks:
  """What the methods reached, and what of it is more than noise."""
  paper = published.TABLES.get(results.name, {})
  metrics = metrics_of(results)
  header = ['Method', 'Seeds', *(metric.label for metric in metrics)]
  caption, rows = _text('means'), []
  if paper:
    header += [Cell(f'Published top-{k} %', published.LABEL) for k in (1, 5)]
    caption += ' ' + _text('published', paper=published)
  for row in results.rows:
    runs = results.done(row)
    cells = [row, str(len(runs)), *(mean_cell(m, runs) for m in metrics)]
    rows.append(cells + (_published(paper.get(row)) if paper else []))
  yield TableBlock(caption, header, rows)
  yield from _differences(results, metrics)
  yield from _hindsight(results)


def _differences(results: Results, metrics: Sequence[Metric]) -> Blocks:
  """The rows against the first, and which of that is more than noise."""
  baseline = results.rows[0]
  others = results.done(baseline)
  images, rows, clear = _images(others), [], {metric: [] for metric in metrics}
  for row in results.rows[1:]:
    runs = results.done(row)
    found = [summary.difference(runs, others, m.name) for m in metrics]
    cells, pairs = [], max(d.n if d else 0 for d in found)
    for metric, difference in zip(metrics, found, strict=True):
      cell = difference_cell(metric, difference, images)
      cells.append(cell if difference or not pairs else NOT_MEASURED)
      if not cell.note:
        clear[metric].append(f'{row} ({metric.text(difference.mean, "+")})')
    rows.append([row, str(pairs), *cells])
  if all(row[1] == '0' for row in rows):
    if rows:
      yield ParagraphBlock(_text('no_pair', baseline=baseline))
    return
  points = f'{100 / images:.2f}' if images else ''
  image = _text('image', images=images, points=points) if images else ''
  caption = _text('differences', baseline=baseline, image=image)
  header = ['Method', 'Pairs', *(metric.label for metric in metrics)]
  yield TableBlock(caption, header, rows)
  told = '; '.join(
    f'{metric.label.removesuffix(" %")}: {", ".join(names) or "none"}'
    for metric, names in clear.items()
  )
  yield ParagraphBlock(_text('outside_noise', baseline=baseline, told=told))


def _hindsight(results: Results) -> Blocks:
  """Each rule against the s that turned out best; nothing without a rule."""
  done = {row: runs for row in results.rows if (runs := results.done(row))}
  begun = {row: results.first(row) for row in done}
  metrics = [m for m in METRICS if m.name in ('nll', 'top1')]
  rows = []
  for row, run in begun.items():
    if run.record.fields.get('smoothing.schedule') != 'auto':
      continue
    fixed = [name for name, other in begun.items() if _is_fixed(other, run)]
    if not fixed:
      continue
    cells: list[str | Cell] = []
    for metric in metrics:
      sign = 1 if metric.name == 'nll' else -1
      found = {x: summary.measured(done[x], metric.name) for x in fixed}
      means = {x: sign * np.mean([*v.values()]) for x, v in found.items() if v}
      if not means:
        cells += [NOTHING, NOT_MEASURED]
        continue
      best = min(means, key=means.get)
      difference = summary.difference(done[row], done[best], metric.name)
      cells += [best, difference_cell(metric, difference, _images(done[best]))]
    switches = (r.switches for r in done[row])
    ends = ', '.join(f'{s[0]:g}' if s else 'never' for s in switches)
    rows.append([row, ends, *cells])
  if rows:
    header = ['Rule', 'Smoothing ended at']
    for metric in metrics:
      header += [f'Best by {metric.label.removesuffix(" %")}', metric.label]
    align = 'll' + 'lr' * len(metrics)
    yield TableBlock(_text('hindsight'), header, rows, align)


def _is_fixed(run: RunResult, like: RunResult) -> bool:
  """Whether a run is TSLA(s), s from 0 to the end, of the same experiment."""
  schedule = run.record.fields.get('smoothing.schedule', 'none')
  free = _FREE + (('smoothing.theta',) if schedule == 'none' else ())
  here, there = (config_lib.identity(r.record.fields) for r in (run, like))
  others = (n for n in {*here, *there} if here.get(n) != there.get(n))
  fixed = schedule in ('none', 'constant', 'two_stage')
  return fixed and all(name.startswith(free) for name in others)


def _images(runs: list[RunResult]) -> int:
  """How many test images there are; 0 where no run says so."""
  counts = summary.measured(runs, 'count').values()
  return round(next(iter(counts), 0))


def mean_cell(metric: Metric, runs: list[RunResult]) -> str | Cell:
  """Of finished runs; its note says how many of the seeds measured it."""
  values = [*summary.measured(runs, metric.name).values()]
  if not values:
    return NOT_MEASURED if runs else NOTHING
  n, text = len(values), metric.text(float(np.mean(values)))
  if n > 1:
    text += f' ± {metric.text(float(np.std(values, ddof=1)))}'
  return text if n == len(runs) else Cell(text, f'of {n} seeds')


def _published(row: published.Published | None) -> list[Cell]:
  if row is None:
    return [NOTHING, NOTHING]
  figures = (row.top1, row.top1_std), (row.top5, row.top5_std)
  return [Cell(f'{mean:.2f} ± {std:.2f}', faint=True) for mean, std in figures]


def difference_cell(
  metric: Metric, difference: summary.Difference | None, images: int
) -> Cell:
  """The cell; its note says why the difference may mean nothing."""
  if difference is None:
    return Cell('–', 'no pair', faint=True)
  n, mean, low, high = difference
  text, note = metric.text(mean, '+'), ''
  if n == 1:
    return Cell(text, 'one pair: no interval', faint=True)
  text += f' [{metric.text(low, "+")}, {metric.text(high, "+")}]'
  if low <= 0 <= high:
    note = 'inside the noise'
  elif images and metric.counts and abs(mean) * images < 1 - 1e-6:
    note = 'less than one image'
  elif high - low < 1e-9:
    note = 'all pairs alike: too few'
  return Cell(text, note, faint=bool(note))
