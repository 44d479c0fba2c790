"""A table's runs → the blocks of its part of the report."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from tsla.config import forms as config_lib
from tsla.errors import InputError
from tsla.pages.blocks import (
  Block,
  CodeBlock,
  FigureBlock,
  HeadingBlock,
  NoticeBlock,
  ParagraphBlock,
  TableBlock,
)
from tsla.report import comparison, figures, probe_figures, samples, summary
from tsla.report.results import Results, RunResult
from tsla.smoothing import rules

# Other values of these make no other method.
_NO_METHOD = ('seed', 'init.fork_from')


def of_results(results: Results, level: int) -> list[Block]:
  """Everything the report says of one table.

  Args:
    results: its runs.
    level: of the headings of the sections.
  """
  sections = (
    ('Results', comparison.of_results),
    ('Learning curves', _curves),
    ('The gradient’s error', _probes),
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
      content += [HeadingBlock(title, level), *found]
  return content


def _standing(results: Results) -> Iterator[Block]:
  """How many runs are done, and which are not."""
  runs = results.runs
  done = sum(run.done for run in runs)
  yield ParagraphBlock(
    f'{done} of {len(runs)} runs are done; methods: {len(results.rows)}, '
    f'seeds: {", ".join(map(str, sorted({run.seed for run in runs})))}. '
    'The numbers are those of the last evaluation on the test set, of the runs '
    'that are done.'
  )
  if done < len(runs):
    yield NoticeBlock(
      'Not in the numbers:',
      [
        f'{run.row}, seed {run.seed}: {run.state} ({run.reason or "no reason"})'
        for run in runs
        if not run.done
      ],
    )


def _curves(results: Results) -> Iterator[Block]:
  keys = [key for key in figures.keys(results) if results.done(key.label)]
  if not keys:
    yield ParagraphBlock('No run is done.')
    return
  yield FigureBlock(
    'Mean over the seeds, with the band from the least to the most; the hard '
    'loss (cross-entropy against the true label) as the mean over the updates '
    'of an epoch. A ring and a dotted line mark the epoch where a method drops '
    'its label smoothing; until there it coincides with the run it began in. '
    'The axis of top-1 fits all but the first quarter of the epochs.',
    figures.learning_curves(results),
    keys,
  )
  yield FigureBlock(
    'θ and learning rate as the updates used them, first seed of each '
    'method. Methods that share a line lie below each other, the later ones '
    'wider; grey stands for all.',
    figures.schedules(results),
    keys,
  )


def _probes(results: Results) -> Iterator[Block]:
  """Nothing where no run was probed."""
  keys = [
    key
    for key in figures.keys(results)
    if any(run.rows('probe') for run in results.done(key.label))
  ]
  if not keys:
    return
  yield FigureBlock(
    'What probes at fixed weights found: δ, the best θ, the mean square error '
    'of the smoothed gradient over that of the plain one, the norms of the two '
    'gradients and the cosine between them. Mean over the seeds; the band goes '
    'from the least to the most, with one standard error (jackknife) to each '
    'side. A number that the probe could not tell from 0 is left out.',
    probe_figures.probes(results),
    keys,
  )

  def firings(row: str, rule: str) -> str:
    found = (summary.first_firing(run, rule) for run in results.done(row))
    return ', '.join('never' if at is None else f'{at:g}' for at in found)

  yield TableBlock(
    'When each rule would have ended the smoothing of a run, as it went: the '
    'epoch at which it had fired as often in a row as it must, a seed each. '
    'Where a run no longer smooths, mse and floor see nothing to end.',
    ['Method', *rules.RULES],
    [
      [key.label, *(firings(key.label, rule) for rule in rules.RULES)]
      for key in keys
    ],
    'l' + 'r' * len(rules.RULES),
  )


def _images(results: Results) -> Iterator[Block]:
  run = next((run for run in results.runs if run.record.fields), None)
  if run is None:
    yield ParagraphBlock('No run has begun.')
    return
  try:
    images = samples.first_images(run)
  except InputError as error:
    why = str(error).split('\n')[0]
    yield ParagraphBlock(f'Not shown, as the data set cannot be loaded: {why}')
    return
  augmentation = ', '.join(
    f'{name} = {run.record.fields.get(f"augment.{name}")}'
    for name in ('pad', 'crop', 'flip')
  )
  yield FigureBlock(
    f'The first {len(images)} training images of {run.row}, seed {run.seed}, '
    'epoch 0, as the network sees them but for normalisation '
    f'({augmentation}).',
    samples.contact_sheet(images),
  )


def _costs(results: Results) -> Iterator[Block]:
  parts = {
    row: [r for r in results.runs if r.row == row] for row in results.rows
  }
  costs = [
    (row, summary.cost(runs))
    for row, runs in [*parts.items(), ('all', results.runs)]
  ]
  yield TableBlock(
    'Epochs trained over all seeds, and epochs that were not, because a run '
    'began in another one’s: the two have every update in common until there. '
    'Training time without compilation and evaluation, from the rates in the '
    'logs.',
    ['Method', 'Epochs', 'Time', 'Epochs saved', 'Time saved'],
    [
      [
        row,
        f'{cost.epochs:,.0f}',
        _clock(cost.seconds),
        f'{cost.shared_epochs:,.0f}',
        _clock(cost.shared_seconds),
      ]
      for row, cost in costs
    ],
    'lrrrr',
  )
  _, cost = costs[-1]
  whole = cost.epochs + cost.shared_epochs
  if cost.shared_epochs:
    yield ParagraphBlock(
      f'{cost.epochs:,.0f} epochs instead of {whole:,.0f}: '
      f'{100 * cost.shared_epochs / whole:.0f} % saved.'
    )


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
    text = ', '.join(
      f'{name}\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{value}'
      for name, value in fields.items()
      if name not in _NO_METHOD
    )
    begins = f'{run.trunk}, epoch {run.first_epoch}' if run.trunk else 'epoch 0'
    rows.append([row, text or 'none', begins])
  yield TableBlock(
    f'Each method’s config, of its first seed: how {first} differs from the '
    f'defaults, and the others from {first}.',
    ['Method', 'Config', 'Begins at'],
    rows,
    'lll',
  )


def _differing_fields(run: RunResult, base: dict[str, Any]) -> dict[str, Any]:
  """The fields that make a run another method than that of `base`."""
  config = run.record.fields
  # A fork began with the weights that its trunk began with.
  hidden = ('model.weights', 'model.weights_sha256') if run.trunk else ()
  return {
    name: config.get(name)
    for name in sorted(base.keys() | config.keys())
    if config.get(name) != base.get(name)
    and name not in hidden
    and (name not in config_lib.FIELDS or config_lib.FIELDS[name].identity)
  }


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

  def told(counts: Counter[str]) -> str:
    if len(counts) == 1:
      return next(iter(counts))
    return '; '.join(f'{value} ({n} runs)' for value, n in counts.items())

  begun = sum(bool(run.record.fields) for run in results.runs)
  yield TableBlock(
    f'What {len(known)} of {begun} runs recorded.',
    ['Field', 'Value'],
    [[name, told(counts)] for name, counts in values.items()],
    'll',
  )


def _command(results: Results) -> Iterator[Block]:
  if results.command:
    yield CodeBlock(results.command)
  else:
    yield ParagraphBlock('The command was not recorded.')


def _runs(results: Results) -> Iterator[Block]:
  metrics = comparison.METRICS
  rows = []
  for run in results.runs:
    cells = [comparison.value(metric, run) for metric in metrics]
    rows.append(
      [run.row, str(run.seed), run.state, *cells, run.record.path.name]
    )
  labels = [metric.label for metric in metrics]
  yield TableBlock(
    'The numbers behind the means.',
    ['Method', 'Seed', 'State', *labels, 'Directory'],
    rows,
    'lrlrrrrl',
  )


def _clock(seconds: float) -> str:
  if math.isnan(seconds):
    return '–'
  minutes, seconds = divmod(round(seconds), 60)
  return f'{minutes // 60}:{minutes % 60:02}:{seconds:02}'
