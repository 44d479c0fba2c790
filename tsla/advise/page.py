"""An advice in words: for a terminal, as JSON, and as a page.

The words are in `page.toml`.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tsla import files
from tsla.advise import plan
from tsla.advise.decision import BASELINE, FORMS, Arm, Finding, Runs
from tsla.advise.study import Advice
from tsla.evaluation import two_way
from tsla.evaluation.two_way import ALPHA, Estimate, detectable, spending
from tsla.pages import blocks, figures
from tsla.pages.blocks import Block, ParagraphBlock, Picture, read_texts
from tsla.pages.render import render_html
from tsla.report import comparison
from tsla.report.comparison import Metric
from tsla.report.results import read_results

_FORMAT = 1
_ECE = Metric('ece', 'ECE, %', 100, 2)
_UNITS = {
  'top1': (Metric('top1', 'Top-1', 100, 2), 'points'),
  'nll': (Metric('nll', 'NLL', 1, 4), 'nats'),
  'calibration': (Metric('squared_error', 'Calibration', 1e4, 2), 'points²'),
}
_text = read_texts(__file__)


def describe(asked: plan.Plan, workdir: pathlib.Path) -> str:
  """What is planned, and what it costs at most."""
  values = {'arms': ', '.join(arm.name for arm in asked.arms)}
  values |= {'epochs': asked.budget * asked.epochs, 'workdir': workdir}
  values['seeds'] = asked.confirmed(())[1][-1]
  worth = ', '.join(_amount(*gain) for gain in asked.worth.items())
  values['worth'] = worth or 'any gain'
  lines = ['plan', 'ways', 'stages' if asked.screen else 'one_stage', 'most']
  if asked.images[1] * asked.worth.get('top1', 1) < 1:
    values['image'] = _amount('top1', 1 / asked.images[1])
    values['top1'] = _amount('top1', asked.worth['top1'])
    lines.append('below_one')
  return '\n  '.join(_text(name, asked=asked, **values) for name in lines)


def too_small(budget: float, epochs: int) -> str:
  """What runs could tell, where there are too few of them."""
  seed = plan.cost(plan.fixed('', epochs), epochs)
  unit = Estimate(0, 1, 1, 1, 1, seed_variance=1, image_variance=0)
  few, many = detectable(unit, (10, 16), ALPHA / 2)
  told = {'least': 10 * seed, 'few': few, 'more': 16 * seed, 'many': many}
  return _text('too_small', budget=budget, **told)


class Answer(NamedTuple):
  """A verdict in words."""

  metric: str  # as a person says it
  heading: str
  text: str
  advised: Arm | None  # None: the baseline


def answers(advice: Advice) -> list[Answer]:
  """A verdict in words for each metric."""
  return [_answer(advice, finding) for finding in advice.verdicts]


def _amount(
  metric: str,
  value: float,
  ends: Sequence[float] = (),
  level: float = 0.0,
  sign: str = '',
) -> str:
  """A difference with its unit, and its interval; without `sign` its size."""
  unit, name = _UNITS[metric]
  if not sign:
    ends = sorted(math.copysign(1, value) * end for end in ends)
    value = abs(value)
  text = f'{unit.text(value, sign)} {name}'
  if not ends:
    return text
  interval = ', '.join(unit.text(end, sign) for end in ends)
  return f'{text} ({100 * (1 - level):.4g} % interval [{interval}])'


def _answer(advice: Advice, finding: Finding) -> Answer:
  kind, compared, worth = finding.kind, finding.comparison, advice.plan.worth
  metric, lead, arm = finding.question.metric, finding.lead, compared.arm
  label, known = _UNITS[metric][0].label, (finding.interval, finding.level)
  own = f'{arm.name} {FORMS[1]}' if compared.form else arm.name
  base = finding.form(compared)
  which = f' {FORMS[base]}' if len(compared.against) > 1 else ''
  tried = {'arms': len(advice.plan.arms), 'own': own, 'which': which}
  by = _amount(metric, lead.mean, *known)
  if kind == 'smooth':
    forms = _text('both_forms') if len(compared.against) > 1 else ''
    better = {'own': own, 'forms': forms, 'lead': lead}
    texts = [_text('better', metric=label, by=by, **better)]
    if compared.form:
      texts.append(_text('tempered'))
    if lead.mean**2 < lead.seed_variance:
      texts.append(_text('small'))
    more, arm = _companion(finding, label)
    heading = _text(f'smooth_{"drop" if arm.drop else "end"}', arm=arm)
    return Answer(label, heading, ' '.join([*texts, more]), arm)
  if finding.told:
    text = _text('worse', by=by, **tried)
  elif kind in ('dont', 'calibrate'):
    below = _amount(metric, finding.gain_below)
    need = _amount(metric, worth.get(metric, 0.0))
    name = 'excluded' if finding.gain_below > 0 else 'no_gain'
    text = _text(name, below=below, worth=need, **tried)
  elif lead.known:
    guess = _amount(metric, lead.mean, *known, '+')
    text = f'{_text("guess", guess=guess, **tried)} {_told(advice, finding)}'
  else:
    text = _text('unknown')
  if kind in ('calibrate', 'beyond_temperature'):
    gain = _amount(metric, compared.against[0].mean)
    name = 'repaired' if kind == 'calibrate' else 'untold'
    text += ' ' + _text(name, by=gain)
  return Answer(label, _text(kind), text, None)


def _companion(finding: Finding, label: str) -> tuple[str, Arm]:
  """Whether to drop it, in words; and the arm that is advised."""
  arm, other = finding.comparison.arm, finding.question.companion
  estimate, level = finding.companion, finding.companion_level
  if estimate is None or other is None:
    return _text('not_asked'), arm
  if not finding.companion_told:
    drop = other.drop or arm.drop
    return _text('no_difference', drop=drop, metric=label), arm
  better, worse = (arm, other) if finding.companion_told > 0 else (other, arm)
  ends = estimate.interval(level)
  by = _amount(finding.question.metric, estimate.mean, ends, level)
  name = 'drop_worse' if worse.drop else 'keep_worse'
  return _text(name, arm=worse, by=by), better


def _told(advice: Advice, finding: Finding) -> str:
  """Which difference could have been told, and what would tell the worth."""
  lead, metric, more = finding.lead, finding.question.metric, ''
  waiting = sum(not other.told for other in advice.verdicts)
  alpha = ALPHA / (waiting * len(finding.question.candidates))
  level, most = spending(advice.looks, alpha)[-1], advice.looks[-1]
  if lead.seeds < most:
    full = _amount(metric, detectable(lead, most, level))
    more = _text('all_seeds_tell', most=most, full=full)
  if worth := advice.plan.worth.get(metric):
    seeds = two_way.seeds_needed(lead, worth, level)
    needed = seeds or two_way.images_needed(lead, worth, level)
    name = 'more_seeds' if seeds else 'more_images'
    name = 'too_many_seeds' if (seeds or 0) > plan.MOST_SEEDS else name
    more += _text(name, needed=needed, worth=_amount(metric, worth))
  least = _amount(metric, detectable(lead, lead.seeds, finding.level))
  return _text('told', lead=lead, least=least, more=more)


def rests_on(advice: Advice) -> list[str]:
  """What the verdicts rest on, and what they speak of."""
  asked, found = advice.plan, advice.decision
  seeds = plan.seeds_of(found.seeds)
  values = {
    'first': seeds[0],
    'last': seeds[-1],
    'arms': ', '.join(arm.name for arm in advice.arms),
    'looks': ', '.join(map(str, advice.looks)),
    'choices': len(asked.arms),
    'advice': advice,
  }
  names = ['screen'] * bool(asked.screen) + ['confirm', 'spent', found.ended]
  first = ' '.join(_text(name, **values) for name in names)
  return [first, _text('speaks', **values)]


def beware(advice: Advice) -> list[str]:
  """What to know before the verdicts."""
  trained, calibrated = advice.runs[BASELINE]['nll'].mean((1, 2))
  tops = (f for f in advice.verdicts if f.told and f.question.metric == 'top1')
  leads = [finding.lead for finding in tops]
  applies = {
    'diverged': advice.diverged,
    'small_selection': advice.plan.select == 'test',
    'worse_temperature': calibrated < trained,
    'below_image': any(abs(x.mean) * x.images < 1 for x in leads),
    'again': advice.earlier,
  }
  values = {'gone': ', '.join(advice.diverged), 'count': len(advice.earlier)}
  return [_text(name, **values) for name, true in applies.items() if true]


def _plain(value: Any) -> Any:
  """For JSON: tuples with names as objects, NaN and inf as None."""
  if hasattr(value, '_asdict'):
    value = value._asdict()
  if isinstance(value, dict):
    return {name: _plain(part) for name, part in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(part) for part in value]
  unknown = isinstance(value, float) and not math.isfinite(value)
  return None if unknown else value


def _means(runs: Runs) -> dict[str, dict[str, list[float]]]:
  """By arm and metric, over seeds and images, a form each."""
  return {
    arm: {metric: x.mean((1, 2)).tolist() for metric, x in own.items()}
    for arm, own in runs.items()
  }


def write(advice: Advice, workdir: pathlib.Path, train: str) -> None:
  """Writes `advice.json` and `advice.html`; `train` trains the baseline."""
  content = advice._asdict() | {
    'plan': {**dataclasses.asdict(advice.plan), 'hash': advice.plan.hash},
    'screen': _means(advice.screen),
    'runs': _means(advice.runs),
    'answers': answers(advice),
    'beware': beware(advice),
    'rests_on': rests_on(advice),
  }
  files.write_object(workdir / plan.ADVICE, _plain(content), version=_FORMAT)
  page = render_html(list(_blocks(advice, workdir, train)))
  files.write_whole(workdir / 'advice.html', page)


def commands(advice: Advice, train: str) -> dict[str, str]:
  """What trains what is advised, by metrics; `train` trains the baseline."""
  metrics: dict[Arm | None, list[str]] = {}
  for answer in answers(advice):
    metrics.setdefault(answer.advised, []).append(answer.metric)
  found = {}
  for arm, labels in metrics.items():
    given = arm.fields if arm else {}
    flags = (f'--config.smoothing.{name}={v}' for name, v in given.items())
    what = _text('next', metrics=', '.join(labels))
    found[what] = ' \\\n  '.join([train, *flags])
  return found


def _blocks(
  advice: Advice, workdir: pathlib.Path, train: str
) -> Iterator[Block]:
  yield blocks.HeadingBlock('Whether to smooth', 1)
  yield ParagraphBlock(_text('counts'))
  if notes := beware(advice):
    yield blocks.NoticeBlock('Beware:', notes)
  for answer in answers(advice):
    yield blocks.HeadingBlock(f'For {answer.metric}: {answer.heading}')
    yield ParagraphBlock(answer.text)
  yield blocks.HeadingBlock('What to train')
  for what, command in commands(advice, train).items():
    yield from (ParagraphBlock(what), blocks.CodeBlock(command))
  yield _measured(advice, workdir)
  yield blocks.HeadingBlock('What it rests on')
  yield from map(ParagraphBlock, rests_on(advice))
  yield blocks.FigureBlock(_text('figure'), _draw(advice))
  rows = []
  for finding in advice.verdicts:
    lead = finding.lead
    unit, name = _UNITS[finding.question.metric]
    reduced = max(0.0, lead.error**2 - lead.image_variance)  # but for rounding
    parts = reduced, lead.image_variance
    errors = map(unit.text, (*np.sqrt(parts), lead.error))
    if lead.known:
      rows.append([f'{unit.label}, {name}', *errors])
  header = ['', 'Seeds', 'Images', 'Both']
  yield blocks.TableBlock(_text('noise'), header, rows)
  if advice.screen:
    yield _screened(advice)


def _measured(advice: Advice, workdir: pathlib.Path) -> Block:
  (results,) = read_results([workdir / 'confirm'])
  units, rows = [*(unit for unit, _ in _UNITS.values()), _ECE], []
  for row in results.rows:
    runs = results.done(row)
    for form, way in zip(FORMS, ('', 'calibrated_'), strict=True):
      shown = [unit._replace(name=way + unit.name) for unit in units]
      shown[0] = units[0]  # which a temperature does not change
      cells = (comparison.mean_cell(metric, runs) for metric in shown)
      rows.append([f'{row}, {form}', *cells])
  header = ['', *(unit.label for unit in units)]
  caption = _text('forms', seeds=advice.decision.seeds)
  return blocks.TableBlock(caption, header, rows)


def _screened(advice: Advice) -> Block:
  metrics, rows = advice.plan.metrics, []
  for name, found in _means(advice.screen).items():
    cells = [_UNITS[m][0].text(mean) for m in metrics for mean in found[m]]
    rows.append([name, *cells])
  columns = [(m, f) for m in metrics for f in FORMS[: 1 + (m != 'top1')]]
  header = ['Arm', *(f'{_UNITS[m][0].label}, {form}' for m, form in columns)]
  count = {'seeds': len(advice.plan.screen), 'arms': len(advice.plan.arms)}
  return blocks.TableBlock(_text('screened', **count), header, rows)


@figures.styled
def _draw(advice: Advice) -> Picture:
  shares = len(advice.verdicts)
  figure, panels = figures.panels(1, shares, 2.7)
  levels = spending(advice.looks, ALPHA / shares)
  for axes, finding in zip(panels, advice.verdicts, strict=True):
    unit, name = _UNITS[finding.question.metric]
    axes.axhline(0, color=figures.NEUTRAL, linewidth=0.8)
    for look, compared in enumerate(finding.comparisons):
      lead = compared.against[finding.form(compared)]
      seeds = advice.looks[look]
      colour = figures.COLOURS[1 if look == finding.look else 0]
      axes.plot([seeds], [unit.scale * lead.mean], 'o', color=colour)
      if lead.known:
        ends = lead.interval(levels[look])
        counts = look == finding.look
        ends = unit.scale * np.array(finding.interval if counts else ends)
        axes.vlines(seeds, *ends, color=colour)
    axes.set(title=f'{unit.label}, {name}', xlabel='seeds')
    axes.set_xticks(advice.looks, map(str, advice.looks))
  return figures.picture(figure, 'advice')
