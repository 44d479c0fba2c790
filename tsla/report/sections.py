"""Tables of runs → the blocks of the report, and `report.md`, `report.html`.

The longer texts are in `sections.toml`.
"""

import math
import pathlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from tsla.config import forms as config_lib
from tsla.errors import InputError
from tsla.files import untrusted, write_whole
from tsla.pages import blocks
from tsla.pages.blocks import Block, ParagraphBlock, TableBlock, read_texts
from tsla.pages.parts import write_parts
from tsla.pages.render import render_html, render_markdown
from tsla.report import cards, comparison, figures, samples, summary
from tsla.report.results import Results, RunResult, read_results
from tsla.smoothing import rules

# Other values of these make no other method.
_NO_METHOD = ('seed', 'init.fork_from')
_EQUALS = '\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}'
_AUGMENT = ('pad', 'crop', 'flip')
_text = read_texts(__file__)


def write_report(
  workdirs: Sequence[pathlib.Path], out: pathlib.Path
) -> pathlib.Path:
  """Writes the report of some directories into `out`; returns its page.

  The page opens offline and holds all it needs; `report.md` says the same
  without figures, and its tables and figures are files in `report/` too. The
  same directories give the same bytes.
  """
  tables = read_results(workdirs)
  title = ', '.join(table.title for table in tables)
  content: list[Block] = [blocks.HeadingBlock(title, 1)]
  for table in tables:  # one table needs no chapters
    if len(tables) > 1:
      content.append(blocks.HeadingBlock(table.title, 2))
    content += of_results(table, 2 if len(tables) == 1 else 3)
  page, text = out / 'report.html', render_html(content)
  markdown = render_markdown(content, page.name)
  with untrusted(f'--out={out}', allowed='a folder', cure='--out=DIR'):
    write_parts(out / 'report', content)
    write_whole(out / 'report.md', markdown)
    write_whole(page, text)
  return page


def of_results(results: Results, level: int) -> list[Block]:
  """Everything the report says of one table, under headings of a level."""
  sections = (
    ('Results', comparison.of_results),
    ('Learning curves', _curves),
    ('The gradient’s error', _probes),
    ('Cards', lambda found: cards.of_results(found, level + 1)),
    ('Training images', _images),
    ('Epochs and time', _costs),
    ('Configuration', _configs),
    ('Environment', _environment),
    ('To run it again', _command),
    ('Every run', _runs),
  )
  content = [*_standing(results)]
  for title, section in sections:
    if found := list(section(results)):
      content += [blocks.HeadingBlock(title, level, title == 'Cards'), *found]
  return content


def _standing(results: Results) -> Iterator[Block]:
  """What the report says in a sentence; which runs are done, and which not."""
  yield ParagraphBlock(comparison.headline(results), lead=True)
  runs = results.runs
  missing = [
    f'{run.row}, seed {run.seed}: {run.state} ({run.reason or "no reason"})'
    for run in runs
    if not run.done
  ]
  asked, methods = len(runs), len(results.rows)
  numbers = {'done': asked - len(missing), 'asked': asked, 'methods': methods}
  seeds = ', '.join(map(str, sorted({run.seed for run in runs})))
  yield ParagraphBlock(_text('standing', **numbers, seeds=seeds))
  if missing:
    yield blocks.NoticeBlock('Not in the numbers:', missing)


def _curves(results: Results) -> Iterator[Block]:
  keys = [key for key in figures.keys(results) if results.done(key.label)]
  if not keys:
    yield ParagraphBlock('No run is done.')
    return
  curves = figures.learning_curves(results)
  yield blocks.FigureBlock(_text('curves'), curves, keys)
  yield blocks.FigureBlock(_text('schedules'), figures.schedules(results), keys)


def _probes(results: Results) -> Iterator[Block]:
  """Nothing where no run was probed."""
  probed = [run for run in results.runs if run.done and run.rows('probe')]
  rows = {run.row for run in probed}
  keys = [key for key in figures.keys(results) if key.label in rows]
  if not keys:
    return
  yield blocks.FigureBlock(_text('probes'), figures.probes(results), keys)

  def firings(row: str, rule: str) -> str:
    found = [summary.first_firing(run, rule) for run in results.done(row)]
    epochs = [at for at in found if at is not None]
    texts = ('never' if at == math.inf else f'{at:g}' for at in epochs)
    return ', '.join(texts) or '–'

  logged = {name for run in probed for row in run.rows('probe') for name in row}
  asked = {name[5:] for name in logged if name.startswith('rule_')}
  names = (*rules.RULES, *sorted(asked - {*rules.RULES}))
  rows = [[k.label, *(firings(k.label, rule) for rule in names)] for k in keys]
  header = ['Method', *names]
  yield TableBlock(_text('firings'), header, rows, 'l' * len(header))


def _images(results: Results) -> Iterator[Block]:
  run = next((run for run in results.runs if run.record.fields), None)
  if run is None:
    yield ParagraphBlock('No run has begun.')
    return
  try:
    images = samples.first_images(run)
  except InputError as error:
    yield ParagraphBlock(_text('no_images', why=str(error).split('\n')[0]))
    return
  given = {n: run.record.fields.get(f'augment.{n}') for n in _AUGMENT}
  how = ', '.join(f'{name} = {value}' for name, value in given.items())
  caption = _text('images', count=len(images), run=run, augmentation=how)
  yield blocks.FigureBlock(caption, samples.contact_sheet(images))


def _costs(results: Results) -> Iterator[Block]:
  rows = []
  for row in (*results.rows, None):
    runs = [run for run in results.runs if row in (run.row, None)]
    spent, saved, seconds, saved_seconds = summary.cost(runs)
    begun = [run.record.status for run in runs if run.record.fields]
    wall = sum(status.get('seconds', math.nan) for status in begun)
    times = map(_clock, (wall, seconds, saved_seconds))
    rows.append([row or 'all', f'{spent:,.0f}', f'{saved:,.0f}', *times])
  header = ['Method', 'Epochs', 'Saved', 'Wall time', 'Training', 'Saved']
  yield TableBlock(_text('costs'), header, rows)
  if saved:
    whole = spent + saved
    numbers = {'spent': spent, 'whole': whole, 'share': 100 * saved / whole}
    yield ParagraphBlock(_text('saved', **numbers))


def _configs(results: Results) -> Iterator[Block]:
  found = {row: run for row in results.rows if (run := results.first(row))}
  if not found:
    yield ParagraphBlock('No run has begun.')
    return
  first, *_ = found
  base = found[first].record.fields
  rows = []
  for row, run in found.items():
    fields = _differing_fields(run, base)
    if row == first:
      fields = config_lib.identity(base)
    mine = [run.record for run in results.runs if run.row == row]
    pairs = {(str(r.fields.get('teacher.run') or ''), r.teacher) for r in mine}
    names = {f'{pathlib.Path(p).name} ({sha[:8]})' for p, sha in pairs if p}
    if names:
      fields['teacher.run'] = ', '.join(sorted(names))
    shown = (name for name in fields if name not in _NO_METHOD)
    text = ', '.join(f'{name}{_EQUALS}{fields[name]}' for name in shown)
    begins = f'{run.trunk}, epoch {run.first_epoch}' if run.trunk else 'epoch 0'
    ends = ', '.join(sorted({run.ended for run in results.done(row)}))
    rows.append([row, text or 'none', begins, ends or '–'])
  header = ['Method', 'Config', 'Begins at', 'Smoothing ended at epoch']
  yield TableBlock(_text('configs', first=first), header, rows, 'llll')


def _differing_fields(run: RunResult, base: dict[str, Any]) -> dict[str, Any]:
  """The fields that make a run another method than that of `base`."""
  config, known = run.record.fields, config_lib.FIELDS.items()
  hidden = {name for name, field in known if not field.identity}
  if run.trunk:  # whose weights are those that its trunk began with
    hidden |= {'model.weights', 'model.weights_sha256'}
  names = sorted({*base, *config} - hidden)
  return {n: config.get(n) for n in names if config.get(n) != base.get(n)}


def _environment(results: Results) -> Iterator[Block]:
  values: dict[str, Counter[str]] = defaultdict(Counter)
  known = [run for run in results.runs if run.record.environment]
  for run in known:
    for name, value in run.record.environment.items():
      text = (value or '–') if isinstance(value, str) else repr(value)
      if name != 'command':
        values[name][text] += 1
  if not values:
    yield ParagraphBlock('The runs did not record it.')
    return
  rows = []
  for name, counts in values.items():
    told = (f'{v} ({blocks.counted(n, "run")})' for v, n in counts.items())
    rows.append([name, '; '.join(told if len(counts) > 1 else counts)])
  begun = sum(bool(run.record.fields) for run in results.runs)
  caption = _text('environment', known=len(known), begun=begun)
  yield TableBlock(caption, ['Field', 'Value'], rows, 'll')


def _command(results: Results) -> Iterator[Block]:
  missing = ParagraphBlock('The command was not recorded.')
  yield blocks.CodeBlock(results.command) if results.command else missing


def _runs(results: Results) -> Iterator[Block]:
  metrics, rows = comparison.metrics_of(results), []
  for run in results.runs:
    done, name = [run] if run.done else [], run.record.path.name
    cells = [comparison.mean_cell(metric, done) for metric in metrics]
    rows.append([run.row, str(run.seed), run.state, *cells, name])
  labels = [metric.label for metric in metrics]
  header = ['Method', 'Seed', 'State', *labels, 'Directory']
  align = 'lrl' + 'r' * len(labels) + 'l'
  yield TableBlock('The numbers behind the means.', header, rows, align)


def _clock(seconds: float) -> str:
  if math.isnan(seconds):
    return '–'
  minutes, seconds = divmod(round(seconds), 60)
  return f'{minutes // 60}:{minutes % 60:02}:{seconds:02}'
