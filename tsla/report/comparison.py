"""The tables of numbers: the methods, and the methods against the first.

Their captions are in `comparison.toml`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tsla.config import forms as config_lib
from tsla.evaluation.two_way import ALPHA, Estimate, detectable
from tsla.pages import blocks
from tsla.pages.blocks import Block, Cell, ParagraphBlock, counted, read_texts
from tsla.report import published, summary
from tsla.report.results import Results, RunResult, Runs


class Metric(NamedTuple):
  """How a number of an evaluation is shown."""

  name: str  # in the log
  label: str  # in a header
  scale: float  # what it is multiplied by
  digits: int  # after the point
  counts: bool = False  # a part of the test images, of which more is better

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
SQUARED = Metric('squared_error', 'Squared cal. error', 1e4, 2)
# Of a card, as trained or with a temperature.
FIGURES = (
  Metric('temperature', 'Temperature', 1, 3),
  *(metric for metric in METRICS if metric.name in ('nll', 'brier')),
  Metric('ece', 'ECE (equal width), %', 100, 2),
  Metric('ece_equal_mass', 'ECE (equal mass), %', 100, 2),
  SQUARED._replace(label='Squared cal. error, points²'),
  Metric('aurc', 'AURC, ‰', 1000, 2),
  Metric('augrc', 'AUGRC, ‰', 1000, 2),
  Metric('normalized_aurc', 'AURC (normalised logits), ‰', 1000, 2),
  Metric('normalized_augrc', 'AUGRC (normalised logits), ‰', 1000, 2),
)
# What a run with a rule and one with a fixed s may differ in.
_WHEN = ('schedule', 'drop_', 'rule', 'patience', 'min_', 'max_')
_FREE = ('seed', 'init.', 'variance.', *(f'smoothing.{x}' for x in _WHEN))
# Of an evaluation's row; what else is there is a metric of one's own.
_KNOWN = {'kind', 'step', 'epoch', 'count', *(m.name for m in METRICS)}
_FEW, _MANY = 5, 10  # seeds
_ALIKE = 'alike in these digits'
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
  done = {row: results.done(row) for row in results.rows}
  best = {metric: _best(metric, done, True) for metric in metrics}
  for row, runs in done.items():
    means = [mean_cell(m, runs)._replace(best=best[m] == row) for m in metrics]
    cells = [row, str(len(runs)), *means]
    rows.append(cells + (_published(paper.get(row)) if paper else []))
  yield blocks.TableBlock(caption, header, rows)
  yield from _differences(results, metrics)
  yield from _hindsight(results)


def _best(metric: Metric, rows: Mapping[str, Runs], told: bool = False) -> str:
  """The row of the best mean, if `told` beyond the noise; '' for none."""
  found = {r: summary.measured(runs, metric.name) for r, runs in rows.items()}
  means = {r: np.mean([*v.values()]) for r, v in found.items() if v}
  best = (max if metric.counts else min)(means, key=means.get, default='')
  others = [rows[row] for row in means if row != best and told]
  own = _deciding(metric, rows[best]) if others else metric
  for runs in others:
    part = summary.difference(rows[best], runs, own.name)
    noise = difference_cell(own, part, ALPHA / len(others)).note
    if noise or (part.mean > 0) != own.counts or metric not in METRICS:
      return ''
  return best if others or not told else ''


def _deciding(metric: Metric, runs: Runs) -> Metric:
  """What tells differences in a metric: of ECE the squared error if known."""
  squared = metric.name == 'ece' and summary.measured(runs, SQUARED.name)
  return SQUARED if squared else metric


def _claims(results: Results) -> tuple[Metric, float, dict[str, Estimate]]:
  """The metric that decides, its level, and the differences to the first."""
  baseline, *names = results.rows
  others = results.done(baseline)
  metric = next(m for m in METRICS if m.name == results.primary)
  metric, found = _deciding(metric, others), {}
  for row in names:
    if part := summary.difference(results.done(row), others, metric.name):
      found[row] = part
  return metric, ALPHA / max(len(names), 1), found


def headline(results: Results) -> str:
  """What the table says, in a sentence."""
  (metric, level, found), told = _claims(results), []
  for row, part in found.items():
    if not difference_cell(metric, part, level).note:
      way = 'better' if (part.mean > 0) == metric.counts else 'worse'
      told.append(f'{row} ({metric.text(part.mean, "+")}, {way})')
  name = 'told' if told else 'untold'
  if not any(part.images for part in found.values()):
    name = 'seeds_only' if found else 'no_pair' if results.rows[1:] else 'alone'
  runs = results.done(results.rows[0])
  values = {'metric': metric.label.removesuffix(' %'), 'told': ', '.join(told)}
  seeds = counted(len(runs), 'seed')
  values |= {'baseline': results.rows[0], 'seeds': seeds}
  return _text(name, mean=mean_cell(metric, runs).text, **values)


def _differences(results: Results, metrics: Sequence[Metric]) -> Blocks:
  """The rows against the first, and which of that is more than noise."""
  baseline, *names = results.rows
  others, rows = results.done(baseline), []
  metrics = [_deciding(metric, others) for metric in metrics]
  metric, level, decided = _claims(results)
  if not decided:
    return
  for row in names:
    runs = results.done(row)
    found = {m: summary.difference(runs, others, m.name) for m in metrics}
    pairs = max(part.seeds if part else 0 for part in found.values())
    cells = [
      difference_cell(m, part, level if m == metric else None)
      if part or not pairs
      else NOT_MEASURED
      for m, part in found.items()
    ]
    rows.append([row, str(pairs), *cells])
  images = round(max(summary.measured(others, 'count').values(), default=0))
  image = _text('image', images=images, points=100 / images) if images else ''
  caption = _text('differences', baseline=baseline, image=image, rows=len(rows))
  primary = f'primary, {100 * (1 - level):.4g} %'
  notes = [primary if m == metric else 'secondary, 95 %' for m in metrics]
  header = ['Method', 'Pairs', *map(Cell, [m.label for m in metrics], notes)]
  yield blocks.TableBlock(caption, header, rows)
  known = [part for part in decided.values() if part.images and part.known]
  if known:
    known.sort(key=lambda part: detectable(part, part.seeds, level))
    half, worst = known[(len(known) - 1) // 2], known[-1]
    words = {'metric': metric.label.removesuffix(' %'), 'seeds': half.seeds}
    asked = {'least': (half, half.seeds), 'then': (half, _MANY)}
    asked['most'] = worst, worst.seeds
    for name, (part, seeds) in asked.items():
      words[name] = metric.text(detectable(part, seeds, level))
    few = f' {_text("few")}' * (half.seeds < _FEW)
    yield ParagraphBlock(_text('detectable', many=_MANY, **words) + few)


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
      best = _best(metric, {name: done[name] for name in fixed})
      part = best and summary.difference(done[row], done[best], metric.name)
      cell = difference_cell(metric, part) if best else NOT_MEASURED
      cells += [best or NOTHING, cell]
    ends = ', '.join(run.ended for run in done[row])
    rows.append([row, ends, *cells])
  if rows:
    header = ['Rule', 'Smoothing ended at']
    for metric in metrics:
      header += [f'Best by {metric.label.removesuffix(" %")}', metric.label]
    align = 'll' + 'lr' * len(metrics)
    yield blocks.TableBlock(_text('hindsight'), header, rows, align)


def _is_fixed(run: RunResult, like: RunResult) -> bool:
  """Whether a run is TSLA(s), s from 0 to the end, of the same experiment."""
  schedule = run.record.fields.get('smoothing.schedule', 'none')
  free = _FREE + (('smoothing.theta',) if schedule == 'none' else ())
  here, there = (config_lib.identity(r.record.fields) for r in (run, like))
  others = (n for n in {*here, *there} if here.get(n) != there.get(n))
  fixed = schedule in ('none', 'constant', 'two_stage')
  return fixed and all(name.startswith(free) for name in others)


def mean_cell(metric: Metric, runs: Runs) -> Cell:
  """Of finished runs; its note says how many of the seeds measured it."""
  values = [*summary.measured(runs, metric.name).values()]
  if not values:
    return NOT_MEASURED if runs else NOTHING
  n, text = len(values), metric.text(float(np.mean(values)))
  note = f'of {counted(n, "seed")}' * (n < len(runs))
  spread = metric.text(float(np.std(values, ddof=1))) if n > 1 else ''
  if spread == metric.text(0):  # which is no certainty
    spread, note = '', ', '.join(filter(None, [_ALIKE, note]))
  return Cell(text + f' ± {spread}' * bool(spread), note)


def _published(row: published.Published | None) -> list[Cell]:
  if row is None:
    return [NOTHING, NOTHING]
  figures = (row.top1, row.top1_std), (row.top5, row.top5_std)
  return [Cell(f'{mean:.2f} ± {std:.2f}', faint=True) for mean, std in figures]


def difference_cell(
  metric: Metric, found: Estimate | None, claim: float | None = None
) -> Cell:
  """The cell, with the interval at the level of a claim, or a 95 % one.

  The note says why it may mean nothing. Where a claim is asked for, a cell
  without one makes it: the difference is outside the noise.
  """
  if found is None:
    return Cell('–', 'no pair', faint=True)
  low, high = found.interval(claim or ALPHA)
  while found.known and metric.text(low) == metric.text(high):
    metric = metric._replace(digits=metric.digits + 1)
  text, note = metric.text(found.mean, '+'), ''
  if np.isnan(found.error):
    few = 'pair' if found.seeds == 1 else 'image'
    return Cell(text, f'one {few}: no interval', faint=True)
  if found.known:
    text += f' [{metric.text(low, "+")}, {metric.text(high, "+")}]'
  if not found.images:
    note = 'seeds only'
  elif not found.known:
    note = 'all pairs alike: too few'
  elif claim and low <= 0 <= high:
    note = 'inside the noise'
  elif metric.counts and abs(found.mean) * found.images < 1 - 1e-6:
    note = 'less than one image'
  return Cell(text, note, faint=bool(note))
