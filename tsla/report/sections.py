"""A table's runs → the blocks of its part of the report."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tsla.config import forms as config_lib
from tsla.errors import InputError
from tsla.pages import blocks as b
from tsla.report import comparison, figures, probe_figures, samples, summary
from tsla.report.results import Results, RunResult
from tsla.smoothing import rules

# Other values of these make no other method.
_NO_METHOD = ('seed', 'init.fork_from')


def of_table(table: Results, level: int) -> list[b.Block]:
  """Everything the report says of one table.

  Args:
    table: its runs.
    level: of the headings of the sections.
  """
  sections = (
    ('Results', comparison.of_table),
    ('Learning curves', _curves),
    ('The gradient’s error', _probes),
    ('Training images', _images),
    ('Epochs and time', _costs),
    ('Configuration', _configs),
    ('Environment', _environment),
    ('To run it again', _command),
    ('Every run', _runs),
  )
  content = [*_standing(table)]
  for title, section in sections:
    if found := list(section(table)):
      content += [b.Heading(title, level), *found]
  return content


def _standing(table: Results) -> Iterator[b.Block]:
  """How many runs are done, and which are not."""
  done = sum(run.done for run in table.runs)
  yield b.Paragraph(
    f'{done} of {len(table.runs)} runs are done; methods: {len(table.rows)}, '
    f'seeds: {", ".join(map(str, sorted({run.seed for run in table.runs})))}. '
    'The numbers are those of the last evaluation on the test set, of the runs '
    'that are done.'
  )
  if done < len(table.runs):
    yield b.Notice(
      'Not in the numbers:',
      tuple(
        f'{run.row}, seed {run.seed}: {run.state} ({run.reason or "no reason"})'
        for run in table.runs
        if not run.done
      ),
    )


def _curves(table: Results) -> Iterator[b.Block]:
  if not any(run.done for run in table.runs):
    yield b.Paragraph('No run is done.')
    return
  keys = tuple(k for k in figures.keys(table) if table.done(k.label))
  yield b.Figure(
    'Mean over the seeds, with the band from the least to the most; the hard '
    'loss (cross-entropy against the true label) as the mean over the updates '
    'of an epoch. A ring and a dotted line mark the epoch where a method drops '
    'its label smoothing; until there it coincides with the run it began in. '
    'The axis of top-1 fits all but the first quarter of the epochs.',
    figures.learning_curves(table),
    keys,
  )
  yield b.Figure(
    'θ and learning rate as the updates used them, first seed of each '
    'method. Methods that share a line lie below each other, the later ones '
    'wider; grey stands for all.',
    figures.schedules(table),
    keys,
  )


def _probes(table: Results) -> Iterator[b.Block]:
  """Nothing where no run was probed."""
  keys = tuple(
    key
    for key in figures.keys(table)
    if any(run.rows('probe') for run in table.done(key.label))
  )
  if not keys:
    return
  yield b.Figure(
    'What probes at fixed weights found: δ, the best θ, the mean square error '
    'of the smoothed gradient over that of the plain one, the norms of the two '
    'gradients and the cosine between them. Mean over the seeds; the band goes '
    'from the least to the most, with one standard error (jackknife) to each '
    'side. A number that the probe could not tell from 0 is left out.',
    probe_figures.probes(table),
    keys,
  )
  yield b.Table(
    'When each rule would have ended the smoothing of a run, as it went: the '
    'epoch at which it had fired as often in a row as it must, a seed each. '
    'Where a run no longer smooths, mse and floor see nothing to end.',
    ('Method', *rules.RULES),
    tuple(
      (
        key.label,
        *(
          ', '.join(
            'never' if epoch is None else f'{epoch:g}'
            for run in table.done(key.label)
            for epoch in [summary.first_firing(run, rule)]
          )
          for rule in rules.RULES
        ),
      )
      for key in keys
    ),
    'l' + 'r' * len(rules.RULES),
  )


def _images(table: Results) -> Iterator[b.Block]:
  run = next((run for run in table.runs if run.record.fields), None)
  if run is None:
    yield b.Paragraph('No run has begun.')
    return
  try:
    images = samples.first_images(run)
  except InputError as error:
    why = str(error).split('\n')[0]
    yield b.Paragraph(f'Not shown, as the data set cannot be loaded: {why}')
    return
  augmentation = ', '.join(
    f'{name} = {run.record.fields.get(f"augment.{name}")}'
    for name in ('pad', 'crop', 'flip')
  )
  yield b.Figure(
    f'The first {len(images)} training images of {run.row}, seed {run.seed}, '
    'epoch 0, as the network sees them but for normalisation '
    f'({augmentation}).',
    samples.contact_sheet(images),
  )


def _costs(table: Results) -> Iterator[b.Block]:
  rows, parts = [], [*table.rows, None]
  for part in parts:
    cost = summary.cost(r for r in table.runs if part in (r.row, None))
    rows.append(
      (
        'all' if part is None else part,
        f'{cost.epochs:,.0f}',
        _clock(cost.seconds),
        f'{cost.shared_epochs:,.0f}',
        _clock(cost.shared_seconds),
      )
    )
  yield b.Table(
    'Epochs trained over all seeds, and epochs that were not, because a run '
    'began in another one’s: the two have every update in common until there. '
    'Training time without compilation and evaluation, from the rates in the '
    'logs.',
    ('Method', 'Epochs', 'Time', 'Epochs saved', 'Time saved'),
    tuple(rows),
    'lrrrr',
  )
  whole = cost.epochs + cost.shared_epochs
  if cost.shared_epochs:
    yield b.Paragraph(
      f'{cost.epochs:,.0f} epochs instead of {whole:,.0f}: '
      f'{100 * cost.shared_epochs / whole:.0f} % saved.'
    )


def _configs(table: Results) -> Iterator[b.Block]:
  found = {row: run for row in table.rows if (run := table.first(row))}
  if not found:
    yield b.Paragraph('No run has begun.')
    return
  first, *_ = found
  base = found[first].record.fields
  rows = []
  for row, run in found.items():
    if row == first:
      fields = {
        name: value
        for name, value in config_lib.identity(base).items()
        if name not in _NO_METHOD
      }
    else:
      fields = _differing_fields(run, base)
    text = ', '.join(
      f'{name}\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{value}'
      for name, value in fields.items()
    )
    begins = f'{run.trunk}, epoch {run.first_epoch}' if run.trunk else 'epoch 0'
    rows.append((row, text or 'none', begins))
  yield b.Table(
    f'Each method’s config, of its first seed: how {first} differs from the '
    f'defaults, and the others from {first}.',
    ('Method', 'Config', 'Begins at'),
    tuple(rows),
    'lll',
  )


def _differing_fields(run: RunResult, base: dict[str, Any]) -> dict[str, Any]:
  """The fields that make a run another method than that of `base`."""
  config = run.record.fields
  hidden = {*_NO_METHOD}
  if run.trunk:  # it began with the weights that its trunk began with
    hidden |= {'model.weights', 'model.weights_sha256'}
  return {
    name: config.get(name)
    for name in sorted(base.keys() | config.keys())
    if config.get(name) != base.get(name)
    and name not in hidden
    and (name not in config_lib.FIELDS or config_lib.FIELDS[name].identity)
  }


def _environment(table: Results) -> Iterator[b.Block]:
  values: dict[str, Counter[str]] = {}
  known = [run for run in table.runs if run.record.environment]
  for run in known:
    for name, value in run.record.environment.items():
      if name != 'command':
        values.setdefault(name, Counter())[_plain(value)] += 1
  if not values:
    yield b.Paragraph('The runs did not record it.')
    return
  begun = sum(bool(run.record.fields) for run in table.runs)
  yield b.Table(
    f'What {len(known)} of {begun} runs recorded.',
    ('Field', 'Value'),
    tuple((name, _counted(counts)) for name, counts in values.items()),
    'll',
  )


def _counted(counts: Counter[str]) -> str:
  if len(counts) == 1:
    return next(iter(counts))
  return '; '.join(f'{value} ({n} runs)' for value, n in counts.items())


def _plain(value: Any) -> str:
  return (value or '–') if isinstance(value, str) else repr(value)


def _command(table: Results) -> Iterator[b.Block]:
  yield (
    b.Code(table.command)
    if table.command
    else b.Paragraph('The command was not recorded.')
  )


def _runs(table: Results) -> Iterator[b.Block]:
  rows = []
  for run in table.runs:
    cells = [comparison.value(metric, run) for metric in comparison.METRICS]
    rows.append(
      (run.row, str(run.seed), run.state, *cells, run.record.path.name)
    )
  yield b.Table(
    'The numbers behind the means.',
    (
      'Method',
      'Seed',
      'State',
      *(metric.label for metric in comparison.METRICS),
      'Directory',
    ),
    tuple(rows),
    'lrlrrrrl',
  )


def _clock(seconds: float | None) -> str:
  if seconds is None:
    return '–'
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}'
