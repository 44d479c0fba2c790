"""The tables of numbers: the methods, and the methods against the first."""

from collections.abc import Iterator
from typing import NamedTuple

from tsla.config import forms as config_lib
from tsla.pages import blocks as b
from tsla.report import published, summary
from tsla.report.results import Results, RunResult
from tsla.runs.log import is_number


class Metric(NamedTuple):
  """How a number of an evaluation is shown.

  Attributes:
    name: in the log.
    label: in a header.
    scale: what it is multiplied by.
    digits: after the point.
    counts: whether it is a part of the test images.
  """

  name: str
  label: str
  scale: float
  digits: int
  counts: bool = False

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
NOTHING = b.Cell('–', faint=True)
_NOT_MEASURED = b.Cell('not measured', faint=True)


def of_table(table: Results) -> Iterator[b.Block]:
  """What the methods reached, and what of it is more than noise."""
  paper = published.TABLES.get(table.name, {})
  header = ['Method', 'Seeds', *(metric.label for metric in METRICS)]
  if paper:
    header += [
      b.Cell(f'Published {label}', published.LABEL)
      for label in ('top-1 %', 'top-5 %')
    ]
  rows = []
  for row in table.rows:
    runs = table.done(row)
    cells = [
      _mean(metric, summary.mean(runs, metric.name), len(runs))
      for metric in METRICS
    ]
    if paper:
      cells += [_published(figure) for figure in paper.get(row, (None, None))]
    rows.append((row, str(len(runs)), *cells))
  caption = (
    'Mean ± standard deviation (n − 1) over the seeds. NLL in nats; ECE in 15 '
    'bins.'
  )
  if paper:
    caption += f' Published: {published.SOURCE}, {published.LABEL}.'
  yield b.Table(
    caption, tuple(header), tuple(rows), 'l' + 'r' * len(cells) + 'r'
  )
  yield from _differences(table)
  yield from _hindsight(table)


def _differences(table: Results) -> Iterator[b.Block]:
  """The rows against the first, and which of that is more than noise."""
  baseline = table.rows[0]
  others = table.done(baseline)
  images = _images(others)
  rows, clear = [], {metric: [] for metric in METRICS}
  for row in table.rows[1:]:
    found = [
      summary.difference(table.done(row), others, metric.name)
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
    rows.append((row, str(pairs), *cells))
  if all(row[1] == '0' for row in rows):
    if rows:
      yield b.Paragraph(f'No method shares a finished seed with {baseline}.')
    return
  yield b.Table(
    f'Difference to {baseline}, paired by seed (initialisation, order, '
    'augmentation), with the 95 % interval of Student’s t. It speaks of other '
    'seeds on these test images, not of other images, and is not corrected for '
    'the number of comparisons. Top-1, top-5 and ECE in points'
    + (
      f': one of the {images:,} test images is {_number(100 / images, 2)}.'
      if images
      else '.'
    ),
    ('Method', 'Pairs', *(metric.label for metric in METRICS)),
    tuple(rows),
    'lrrrrr',
  )
  told = [
    f'{metric.label.removesuffix(" %")}: {", ".join(names) or "none"}'
    for metric, names in clear.items()
  ]
  yield b.Paragraph(
    f'Outside the noise against {baseline}: ' + '; '.join(told) + '.'
  )


def _hindsight(table: Results) -> Iterator[b.Block]:
  """Each rule against the s that turned out best; nothing without a rule."""
  begun = {row: run for row in table.rows if (run := table.first(row))}
  rows = []
  metrics = [m for m in METRICS if m.name in ('nll', 'top1')]
  for row, run in begun.items():
    schedule = run.record.fields.get('smoothing.schedule')
    if schedule != 'auto' or not table.done(row):
      continue
    fixed = [
      name
      for name, other in begun.items()
      if table.done(name) and _is_fixed(other, like=run)
    ]
    if not fixed:
      continue
    ends = [
      [f'{s["epoch"]:g}' for s in run.rows('switch') if is_number(s['epoch'])]
      for run in table.done(row)
    ]
    cells: list[str | b.Cell] = []
    for metric in metrics:
      sign = 1 if metric.name == 'nll' else -1
      means = {
        name: sign * mean.mean
        for name in fixed
        if (mean := summary.mean(table.done(name), metric.name))
      }
      if not means:
        cells += [NOTHING, _NOT_MEASURED]
        continue
      best = min(means, key=means.get)
      runs, others = table.done(row), table.done(best)
      images = _images(others)
      difference = summary.difference(runs, others, metric.name)
      cells += [best, _difference(metric, difference, images)]
    ended = ', '.join(end[0] if end else 'never' for end in ends)
    rows.append((row, ended, *cells))
  if rows:
    header = ['Rule', 'Smoothing ended at']
    for metric in metrics:
      header += [f'Best by {metric.label.removesuffix(" %")}', metric.label]
    yield b.Table(
      'Each rule against the fixed s that turned out best on these test images '
      'and seeds, chosen after the fact: the difference to it, paired by seed, '
      'with the 95 % interval of Student’s t. Smoothing ended at these epochs, '
      'a seed each.',
      tuple(header),
      tuple(rows),
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


def value(metric: Metric, run: RunResult) -> str | b.Cell:
  """The cell of one run."""
  if not run.done:
    return NOTHING
  found = run.test.get(metric.name)
  return metric.value(found) if is_number(found) else _NOT_MEASURED


def _images(runs: list[RunResult]) -> int:
  """How many test images there are; 0 where no run says so."""
  counts = summary.measured(runs, 'count').values()
  return round(next(iter(counts), 0))


def _mean(
  metric: Metric, mean: summary.Mean | None, seeds: int
) -> str | b.Cell:
  """The cell of a row; its note says how many of the seeds measured it."""
  if mean is None:
    return _NOT_MEASURED if seeds else NOTHING
  text = metric.value(mean.mean)
  if mean.std is not None:
    text += f' ± {metric.value(mean.std)}'
  return text if mean.n == seeds else b.Cell(text, f'of {mean.n} seeds')


def _published(figure: published.Figure | None) -> str | b.Cell:
  if figure is None:
    return NOTHING
  return b.Cell(f'{figure.mean:.2f} ± {figure.std:.2f}', faint=True)


def _difference(
  metric: Metric, difference: summary.Difference | None, images: int
) -> b.Cell:
  """The cell; its note says why the difference may mean nothing."""
  if difference is None:
    return b.Cell('–', 'no pair', faint=True)
  _, mean, low, high = difference
  text = metric.change(mean)
  if low is None:
    return b.Cell(text, 'one pair: no interval', faint=True)
  text += f' [{metric.change(low)}, {metric.change(high)}]'
  if difference.inside_noise:
    return b.Cell(text, 'inside the noise', faint=True)
  if images and metric.counts and abs(mean) * images < 1 - 1e-6:
    return b.Cell(text, 'less than one image', faint=True)
  if high - low < 1e-9:
    return b.Cell(text, 'all pairs alike: too few', faint=True)
  return b.Cell(text)


def _number(value: float, digits: int, sign: str = '') -> str:
  """With a minus sign that is one, and never minus nothing."""
  value = round(value, digits) + 0.0
  return f'{value:{sign}.{digits}f}'.replace('-', '−')
