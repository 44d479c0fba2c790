"""The tables of numbers: the methods, and the methods against the first."""

from collections.abc import Iterator
from typing import NamedTuple

from tsla.config import forms as config_lib
from tsla.pages.blocks import Block, Cell, ParagraphBlock, TableBlock
from tsla.report import published, summary
from tsla.report.results import Results, RunResult
from tsla.runs.log import is_number


class Metric(NamedTuple):
  """How a number of an evaluation is shown."""

  name: str  # in the log
  label: str  # in a header
  scale: float  # what it is multiplied by
  digits: int  # after the point
  counts: bool = False  # whether it is a part of the test images

  def value(self, value: float) -> str:
    """As it is."""
    return _number(value * self.scale, self.digits)

  def change(self, value: float) -> str:
    """As a difference."""
    return _number(value * self.scale, self.digits, '+')


METRICS = (
  Metric('top1', 'Top-1 %', 100, 2, counts=True),
  Metric('top5', 'Top-5 %', 100, 2, counts=True),
  Metric('nll', 'NLL', 1, 3),
  Metric('ece', 'ECE %', 100, 2),
)
# What a run with a rule and one with a fixed s may differ in.
_WHEN = (
  *('seed', 'init.', 'variance.', 'smoothing.schedule', 'smoothing.drop_'),
  *('smoothing.rule', 'smoothing.patience', 'smoothing.min_', 'smoothing.max_'),
)
NOTHING = Cell('–', faint=True)
_NOT_MEASURED = Cell('not measured', faint=True)


def of_results(results: Results) -> Iterator[Block]:
  """What the methods reached, and what of it is more than noise."""
  paper = published.TABLES.get(results.name, {})
  header = ['Method', 'Seeds', *(metric.label for metric in METRICS)]
  caption = (
    'Mean ± standard deviation (n − 1) over the seeds. NLL in nats; ECE in 15 '
    'bins.'
  )
  if paper:
    header += [
      Cell(f'Published {label}', published.LABEL)
      for label in ('top-1 %', 'top-5 %')
    ]
    caption += f' Published: {published.SOURCE}, {published.LABEL}.'
  rows = []
  for row in results.rows:
    runs = results.done(row)
    cells = [
      _mean(metric, summary.mean(runs, metric.name), len(runs))
      for metric in METRICS
    ]
    if paper:
      cells += [_published(figure) for figure in paper.get(row, (None, None))]
    rows.append([row, str(len(runs)), *cells])
  yield TableBlock(caption, header, rows, 'l' + 'r' * (len(header) - 1))
  yield from _differences(results)
  yield from _hindsight(results)


def _differences(results: Results) -> Iterator[Block]:
  """The rows against the first, and which of that is more than noise."""
  baseline = results.rows[0]
  others = results.done(baseline)
  images = _images(others)
  rows, clear = [], {metric: [] for metric in METRICS}
  for row in results.rows[1:]:
    found = [
      summary.difference(results.done(row), others, metric.name)
      for metric in METRICS
    ]
    cells, pairs = [], max(d.n if d else 0 for d in found)
    for metric, difference in zip(METRICS, found, strict=True):
      if pairs and difference is None:
        cells.append(_NOT_MEASURED)
        continue
      cells.append(_difference(metric, difference, images))
      if difference and not cells[-1].note:
        clear[metric].append(f'{row} ({metric.change(difference.mean)})')
    rows.append([row, str(pairs), *cells])
  if all(row[1] == '0' for row in rows):
    if rows:
      yield ParagraphBlock(f'No method shares a finished seed with {baseline}.')
    return
  yield TableBlock(
    f'Difference to {baseline}, paired by seed (initialisation, order, '
    'augmentation), with the 95 % interval of Student’s t. It speaks of other '
    'seeds on these test images, not of other images, and is not corrected for '
    'the number of comparisons. Top-1, top-5 and ECE in points'
    + (
      f': one of the {images:,} test images is {_number(100 / images, 2)}.'
      if images
      else '.'
    ),
    ['Method', 'Pairs', *(metric.label for metric in METRICS)],
    rows,
    'lrrrrr',
  )
  told = '; '.join(
    f'{metric.label.removesuffix(" %")}: {", ".join(names) or "none"}'
    for metric, names in clear.items()
  )
  yield ParagraphBlock(f'Outside the noise against {baseline}: {told}.')


def _hindsight(results: Results) -> Iterator[Block]:
  """Each rule against the s that turned out best; nothing without a rule."""
  begun = {
    row: run
    for row in results.rows
    if results.done(row) and (run := results.first(row))
  }
  metrics = [m for m in METRICS if m.name in ('nll', 'top1')]
  rows = []
  for row, run in begun.items():
    if run.record.fields.get('smoothing.schedule') != 'auto':
      continue
    fixed = [
      name for name, other in begun.items() if _is_fixed(other, like=run)
    ]
    if not fixed:
      continue
    runs = results.done(row)
    ends = [
      [f'{s["epoch"]:g}' for s in run.rows('switch') if is_number(s['epoch'])]
      for run in runs
    ]
    cells: list[str | Cell] = []
    for metric in metrics:
      sign = 1 if metric.name == 'nll' else -1
      means = {
        name: sign * mean.mean
        for name in fixed
        if (mean := summary.mean(results.done(name), metric.name))
      }
      if not means:
        cells += [NOTHING, _NOT_MEASURED]
        continue
      best = min(means, key=means.get)
      others = results.done(best)
      difference = summary.difference(runs, others, metric.name)
      cells += [best, _difference(metric, difference, _images(others))]
    ended = ', '.join(end[0] if end else 'never' for end in ends)
    rows.append([row, ended, *cells])
  if rows:
    header = ['Rule', 'Smoothing ended at']
    for metric in metrics:
      header += [f'Best by {metric.label.removesuffix(" %")}', metric.label]
    yield TableBlock(
      'Each rule against the fixed s that turned out best on these test images '
      'and seeds, chosen after the fact: the difference to it, paired by seed, '
      'with the 95 % interval of Student’s t. Smoothing ended at these epochs, '
      'a seed each.',
      header,
      rows,
      'll' + 'lr' * len(metrics),
    )


def _is_fixed(run: RunResult, like: RunResult) -> bool:
  """Whether a run is TSLA(s), s from 0 to the end, of the same experiment."""
  schedule = run.record.fields.get('smoothing.schedule', 'none')
  free = _WHEN + (('smoothing.theta',) if schedule == 'none' else ())
  here, there = (
    {
      name: value
      for name, value in config_lib.identity(each.record.fields).items()
      if not name.startswith(free)
    }
    for each in (run, like)
  )
  return here == there and schedule in ('none', 'constant', 'two_stage')


def value(metric: Metric, run: RunResult) -> str | Cell:
  """The cell of one run."""
  if not run.done:
    return NOTHING
  found = run.test.get(metric.name)
  return metric.value(found) if is_number(found) else _NOT_MEASURED


def _images(runs: list[RunResult]) -> int:
  """How many test images there are; 0 where no run says so."""
  counts = summary.measured(runs, 'count').values()
  return round(next(iter(counts), 0))


def _mean(metric: Metric, mean: summary.Mean | None, seeds: int) -> str | Cell:
  """The cell of a row; its note says how many of the seeds measured it."""
  if mean is None:
    return _NOT_MEASURED if seeds else NOTHING
  text = metric.value(mean.mean)
  if mean.std is not None:
    text += f' ± {metric.value(mean.std)}'
  return text if mean.n == seeds else Cell(text, f'of {mean.n} seeds')


def _published(figure: published.PublishedFigure | None) -> str | Cell:
  if figure is None:
    return NOTHING
  return Cell(f'{figure.mean:.2f} ± {figure.std:.2f}', faint=True)


def _difference(
  metric: Metric, difference: summary.Difference | None, images: int
) -> Cell:
  """The cell; its note says why the difference may mean nothing."""
  if difference is None:
    return Cell('–', 'no pair', faint=True)
  _, mean, low, high = difference
  text = metric.change(mean)
  if low is None:
    return Cell(text, 'one pair: no interval', faint=True)
  text += f' [{metric.change(low)}, {metric.change(high)}]'
  if difference.inside_noise:
    return Cell(text, 'inside the noise', faint=True)
  if images and metric.counts and abs(mean) * images < 1 - 1e-6:
    return Cell(text, 'less than one image', faint=True)
  if high - low < 1e-9:
    return Cell(text, 'all pairs alike: too few', faint=True)
  return Cell(text)


def _number(value: float, digits: int, sign: str = '') -> str:
  """With a minus sign that is one, and never minus nothing."""
  value = round(value, digits) + 0.0
  return f'{value:{sign}.{digits}f}'.replace('-', '−')
