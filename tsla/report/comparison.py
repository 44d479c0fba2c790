"""The tables of numbers: the methods, and the methods against the first.

Their captions are in `comparison.toml`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tsla.config import forms as config_lib
from tsla.pages.blocks import Block, Cell, ParagraphBlock, TableBlock
from tsla.pages.texts import read_texts
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

  def text(self, value: float, sign: str = '') -> str:
    """With a minus sign that is one, and never minus nothing."""
    value = round(value * self.scale, self.digits) + 0.0
    return f'{value:{sign}.{self.digits}f}'.replace('-', '−')


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
# Of an evaluation's row; what else is there is a metric of one's own.
_KNOWN = {'kind', 'step', 'epoch', 'count', 'brier', *(m.name for m in METRICS)}
_NOTHING = Cell('–', faint=True)
_NOT_MEASURED = Cell('not measured', faint=True)
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
    cells = [row, str(len(runs)), *(_mean(m, runs) for m in metrics)]
    rows.append(cells + (_published(paper.get(row)) if paper else []))
  yield TableBlock(caption, header, rows, 'l' + 'r' * (len(header) - 1))
  yield from _differences(results, metrics)
  yield from _hindsight(results)


def _differences(results: Results, metrics: Sequence[Metric]) -> Blocks:
  """The rows against the first, and which of that is more than noise."""
  baseline = results.rows[0]
  others = results.done(baseline)
  images = _images(others)
  rows, clear = [], {metric: [] for metric in metrics}
  for row in results.rows[1:]:
    runs = results.done(row)
    found = [summary.difference(runs, others, m.name) for m in metrics]
    cells, pairs = [], max(d.n if d else 0 for d in found)
    for metric, difference in zip(metrics, found, strict=True):
      if pairs and difference is None:
        cells.append(_NOT_MEASURED)
        continue
      cells.append(_difference(metric, difference, images))
      if difference and not cells[-1].note:
        clear[metric].append(f'{row} ({metric.text(difference.mean, "+")})')
    rows.append([row, str(pairs), *cells])
  if all(row[1] == '0' for row in rows):
    if rows:
      yield ParagraphBlock(_text('no_pair', baseline=baseline))
    return
  image = ''
  if images:
    image = _text('image', images=images, points=f'{100 / images:.2f}')
  caption = _text('differences', baseline=baseline, image=image)
  header = ['Method', 'Pairs', *(metric.label for metric in metrics)]
  yield TableBlock(caption, header, rows, 'l' + 'r' * (len(header) - 1))
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
      found = {name: summary.mean(done[name], metric.name) for name in fixed}
      means = {name: sign * found[name].mean for name in fixed if found[name]}
      if not means:
        cells += [_NOTHING, _NOT_MEASURED]
        continue
      best = min(means, key=means.get)
      difference = summary.difference(done[row], done[best], metric.name)
      cells += [best, _difference(metric, difference, _images(done[best]))]
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
  free = _WHEN + (('smoothing.theta',) if schedule == 'none' else ())
  fields = (config_lib.identity(each.record.fields) for each in (run, like))
  here, there = (
    {name: part[name] for name in part if not name.startswith(free)}
    for part in fields
  )
  return here == there and schedule in ('none', 'constant', 'two_stage')


def cells_of_run(run: RunResult, metrics: Sequence[Metric]) -> list[str | Cell]:
  """Its metrics."""
  if not run.done:
    return [_NOTHING] * len(metrics)
  found = ((metric, run.test.get(metric.name)) for metric in metrics)
  return [m.text(x) if is_number(x) else _NOT_MEASURED for m, x in found]


def _images(runs: list[RunResult]) -> int:
  """How many test images there are; 0 where no run says so."""
  counts = summary.measured(runs, 'count').values()
  return round(next(iter(counts), 0))


def _mean(metric: Metric, runs: list[RunResult]) -> str | Cell:
  """The cell of a row; its note says how many of the seeds measured it."""
  mean = summary.mean(runs, metric.name)
  if mean is None:
    return _NOT_MEASURED if runs else _NOTHING
  text = metric.text(mean.mean)
  if mean.std is not None:
    text += f' ± {metric.text(mean.std)}'
  return text if mean.n == len(runs) else Cell(text, f'of {mean.n} seeds')


def _published(row: published.Published | None) -> list[Cell]:
  if row is None:
    return [_NOTHING, _NOTHING]
  figures = (row.top1, row.top1_std), (row.top5, row.top5_std)
  return [Cell(f'{mean:.2f} ± {std:.2f}', faint=True) for mean, std in figures]


def _difference(
  metric: Metric, difference: summary.Difference | None, images: int
) -> Cell:
  """The cell; its note says why the difference may mean nothing."""
  if difference is None:
    return Cell('–', 'no pair', faint=True)
  _, mean, low, high = difference
  text, note = metric.text(mean, '+'), ''
  if low is None:
    return Cell(text, 'one pair: no interval', faint=True)
  text += f' [{metric.text(low, "+")}, {metric.text(high, "+")}]'
  if low <= 0 <= high:
    note = 'inside the noise'
  elif images and metric.counts and abs(mean) * images < 1 - 1e-6:
    note = 'less than one image'
  elif high - low < 1e-9:
    note = 'all pairs alike: too few'
  return Cell(text, note, faint=bool(note))
