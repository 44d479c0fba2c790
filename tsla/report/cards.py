"""The card of each method: what its predictions on the test set are worth.

Its words are in `cards.toml`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tsla.evaluation.metrics import NUM_BINS
from tsla.evaluation.per_class import class_changes
from tsla.evaluation.two_way import ALPHA
from tsla.pages import blocks
from tsla.pages import figures as pages
from tsla.pages.blocks import Block, Key, ParagraphBlock, Picture, read_texts
from tsla.report import comparison, figures, summary
from tsla.report.comparison import FIGURES, NOTHING, Metric
from tsla.report.results import Results, RunResult, Runs

_SHARE = Metric('', '', 100, 1, counts=True)  # of a class
_WAYS = {'': 'as trained', 'calibrated_': 'calibrated'}
_MOST_CLASSES = 10
_text = read_texts(__file__)
Pairs = Sequence[tuple[RunResult, RunResult]]


def of_results(results: Results, level: int) -> Iterator[Block]:
  """A page for each method, under headings of a level."""
  looks, cards, old = figures.keys(results), {}, []
  for look in looks:
    done = results.done(look.label)
    if runs := [run for run in done if run.card]:
      cards[look] = runs
    if without := len(done) - len(runs):
      seeds = blocks.counted(len(done), 'seed')
      old.append(f'{look.label} ({without} of {seeds})')
  if old:
    yield ParagraphBlock(_text('not_measured', names=', '.join(old)))
  if cards:
    yield ParagraphBlock(_text('cards', baseline=looks[0].label))
  for look, runs in cards.items():
    yield blocks.HeadingBlock(look.label, level, look != next(iter(cards)))
    others = cards.get(looks[0], ()) if look != looks[0] else ()
    pairs, images = summary.pairs(runs, others), {runs[0].card['images']}
    pairs = [p for p in pairs if {run.card['images'] for run in p} == images]
    yield from _card(runs, pairs, look, looks[0])


def _card(runs: Runs, pairs: Pairs, look: Key, base: Key) -> Iterator[Block]:
  """Of a method's runs, and of those that have a partner in the baseline."""
  card, others = runs[0].card, [other for _, other in pairs]
  ways = [w for w in _WAYS if all(f'{w}bins' in run.card for run in runs)]
  if len(ways) == 1:
    yield ParagraphBlock(_text('not_calibrated'))
  count = sum(f'{way}{m.name}' in card for m in FIGURES for way in ways)
  header, rows = [''], [[metric.label] for metric in FIGURES]
  for way in ways:
    header += [_WAYS[way].capitalize(), *['Difference'] * bool(others)]
    for metric, row in zip(FIGURES, rows, strict=True):
      own = metric._replace(name=way + metric.name)
      cells = [comparison.mean_cell(own, runs)]
      if others:
        found = summary.difference(runs, others, own.name)
        cells.append(comparison.difference_cell(own, found, ALPHA / count))
      row += cells if own.name in card else [NOTHING] * len(cells)
  caption = _text('pair_figures' if others else 'figures', count=count)
  yield blocks.TableBlock(caption, header, rows)
  keys = [Key('maximum softmax', look.colour)]
  keys.append(Key('normalised logits', look.colour, (3, 1)))
  if others:
    keys.append(Key(f'{base.label}, maximum softmax', base.colour, (1, 1)))
  caption = _text('figure', images=len(card['labels']), seeds=len(runs))
  picture = _draw(ways, (runs, runs, others), keys)
  yield blocks.FigureBlock(caption, picture, keys)
  yield _classes(pairs or [(r, r) for r in runs], 6 if others else 3)


def _classes(pairs: Pairs, columns: int) -> Block:
  """By class, the worst first."""
  labels, names = (pairs[0][0].card[n] for n in ('labels', 'class_names'))
  right = [[run.card['top1_by_image'] for run in pair] for pair in pairs]
  found = class_changes(*np.swapaxes(right, 0, 1), labels, len(names))
  change, count, rows = found['change'], found['count'], []
  seen, means = np.count_nonzero(count), [part.mean for part in change]
  for k in np.lexsort((found['accuracy'], means))[:seen]:
    shares = [_SHARE.text(found[n][k]) for n in ('accuracy', 'gave', 'took')]
    cell = comparison.difference_cell(_SHARE, change[k], ALPHA / seen)
    rows.append([names[k], f'{count[k]:,}', *shares, cell][:columns])
  text, most = 'pair_classes' if columns > 3 else 'classes', _MOST_CLASSES
  caption = _text(text, count=len(rows), most=most)
  rows[most // 2 : len(rows) - most // 2] = []
  header = ['Class', 'Images', 'Accuracy, %', 'Gave', 'Took', 'Change']
  return blocks.TableBlock(caption, header[:columns], rows)


@pages.styled
def _draw(ways: list[str], runs: tuple[Runs, ...], keys: list[Key]) -> Picture:
  """Reliability, and the confidences each way; risk and coverage."""
  figure, (top, risk, *under) = pages.panels(2, 2, 5.4)
  under[1].set_visible(len(ways) > 1)
  colour = keys[0].colour
  top.set(title='Reliability', xlabel='confidence, %', ylabel='right, %')
  top.plot([0, 100], [0, 100], color=pages.NEUTRAL, lw=0.8, dashes=(4, 2))
  for way, face, below in zip(ways, (colour, 'white'), under, strict=False):
    bins = sum(run.card[f'{way}bins'] for run in runs[0])
    seen = np.flatnonzero(bins[0])
    count, right, confidence = bins[:, seen]
    x, y = 100 * confidence / count, 100 * right / count
    top.vlines(x, x, y, color=colour, alpha=0.4)
    look = {'color': colour, 'facecolor': face, 'zorder': 3}
    top.scatter(x, y, 8 * np.log2(1 + count), **look)
    middles = 100 * (seen + 0.5) / NUM_BINS
    bars = below.bar(middles, count, 6, color=colour, alpha=0.25)
    below.bar_label(bars, fmt='%d', size=7, padding=2, rotation=90)
    below.bar(middles, count - right, 6, color=colour)
    below.set(title=f'Confidence, {_WAYS[way]}', ylabel='images')
    below.set(xlabel='confidence, %', xlim=top.get_xlim(), yscale='log')
    below.set_ylim(0.6, 9 * count.max())
    pages.plain_log_ticks(below)
  risk.set(title='Risk', xlabel='coverage, %', ylabel='wrong, %')
  names = 'risk', 'normalized_risk', 'risk'
  for key, part, name in zip(keys, runs, names, strict=False):
    figures.draw_curve(risk, summary.risk_curve(part, name), key)
  return pages.picture(figure, f'card of {keys[0].label} {colour}')
