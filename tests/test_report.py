"""The report: its numbers, its honesty, its page."""

import html
import html.parser
import io
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import matplotlib.cbook
import matplotlib.colors
import matplotlib.figure
import numpy as np
import pytest
from PIL import Image
from scipy import stats
from support import ROOT, small_config, write_digits_npz

from docs import methods_table, plots, variance_tables
from tsla.commands.report import main
from tsla.config import durations
from tsla.config.forms import default_config, flatten
from tsla.config.schema import RENAMED
from tsla.data import datasets, pipeline
from tsla.evaluation.two_way import Estimate
from tsla.pages import figures as pages
from tsla.pages.blocks import Picture
from tsla.report import comparison, figures, published, samples, summary
from tsla.report.results import read_results
from tsla.report.sections import write_report
from tsla.smoothing import rules
from tsla.smoothing.estimates import GradientStatistics
from tsla.training import parallel, step
from tsla.training.build import build

COUNT = 360


# What a title may hold at the worst.
EVIL = '<script>alert(1)</script>|`x`_*[a](b)&'


def write_run(
  folder,
  *,
  top1=0.9,
  nll=0.5,
  seed=0,
  epochs=2,
  state='done',
  first_epoch=0,
  switch=None,
  config=None,
  fingerprint='f' * 64,
  by_rule=False,
):
  """A run of 10 updates and 2 training rows an epoch, by hand."""
  folder.mkdir(parents=True)
  if config is None:
    config = default_config()
    config.data.name, config.data.path = 'npz', 'gone.npz'
  fields = config
  fields.seed, fields.epochs, fields.batch_size = seed, epochs, 16
  log = []
  for epoch in range(1, epochs + 1):
    for at in (10 * epoch - 6, 10 * epoch):
      log.append(
        {
          'kind': 'train',
          'step': at,
          'loss': 2.0,
          'hard_loss': float(at + seed),
          'theta': 0.1 if switch is not None and at <= 10 * switch else 0.0,
          'learning_rate': 0.1,
          'images_per_second': None if at == 10 * first_epoch + 4 else 100.0,
        }
      )
    if epoch == switch:
      at = {'step': 10 * epoch, 'epoch': float(epoch)}
      log.append({'kind': 'switch', **at, 'by_rule': float(by_rule)})
    log.append(
      {
        'kind': 'eval',
        'step': 10 * epoch,
        'top1': top1 - 0.01 * (epochs - epoch),
        'top5': 0.995,
        'nll': nll,
        'brier': 0.1,
        'ece': 0.02,
        'count': float(COUNT),
      }
    )
  write = {
    'config.json': flatten(fields),
    'data.json': {'fingerprint': fingerprint},
    'status.json': {'state': state, 'step': 10 * epochs},
  }
  for name, value in write.items():
    (folder / name).write_text(json.dumps(value))
  (folder / 'metrics.jsonl').write_text(
    ''.join(json.dumps(row) + '\n' for row in log)
  )
  return folder


def write_table(
  folder, rows, seeds, *, name='digits', title='T', first=None, epochs=2
):
  """A table.json that asks for every row and seed; first: row -> epoch."""
  first = first or {}
  folder.mkdir(parents=True, exist_ok=True)
  runs = [
    {
      'row': row,
      'seed': seed,
      'directory': f'r{index}-seed{seed}',
      'epochs': epochs,
      'first_epoch': first.get(row, 0),
      'trunk': f'r0-seed{seed}' if row in first else None,
      'teacher': None,
    }
    for seed in seeds
    for index, row in enumerate(rows)
  ]
  table = {
    'name': name,
    'title': title,
    'command': 'python -m sweep --seeds=3',
    'rows': rows,
    'seeds': list(seeds),
    'runs': runs,
  }
  (folder / 'table.json').write_text(json.dumps(table))
  return folder


def report(folder, *more, drawn=False):
  """The page; its figures are empty unless `drawn`, which takes long."""
  empty = Picture(svg='<svg></svg>')
  if drawn:
    return write_report([folder, *more], folder).read_text(encoding='utf-8')
  with mock.patch.object(pages, 'picture', lambda figure, name: empty):
    return report(folder, *more, drawn=True)


def words_of(page):
  """What a page says, its tags left out."""
  return html.unescape(re.sub('<[^>]*>', '', page))


def cells(page, number):
  """{row name: its other cells} of a table: `text (note)`, **best**."""

  def read(classes, content):
    text, _, note = (' '.join(x.split()) for x in content.partition('<small>'))
    text, note = words_of(text), words_of(note)
    text = f'**{text}**' if classes.endswith('best') else text
    return f'{text} ({note})' if note else text

  part = page.split('<table')[number].split('</table>')[0]
  classes = r'(?: data-of="[^"]*")?(?: class="(.*?)")?'
  cell = rf'<t[hd](?: scope="\w+")?{classes}>(.*?)</t[hd]>'
  lines = [
    [read(*found) for found in re.findall(cell, row, re.DOTALL)]
    for row in part.split('<tr>')[1:]
  ]
  assert len({len(line) for line in lines}) == 1, 'a ragged table'
  return {line[0]: line[1:] for line in lines}


BASE = [0.90, 0.93, 0.91, 0.92]
OTHER = {0: 0.95, 2: 0.97, 3: 0.96}


@pytest.fixture
def table(tmp_path):
  """baseline and LSR; LSR's seed 1 is still running, at a wild number."""
  folder = write_table(tmp_path / 't', ['baseline', 'LSR'], range(4))
  for seed in range(4):
    write_run(folder / f'r0-seed{seed}', top1=BASE[seed], nll=0.5, seed=seed)
  for seed, nll in zip(OTHER, (0.5, 0.6, 0.7), strict=True):
    write_run(folder / f'r1-seed{seed}', top1=OTHER[seed], nll=nll)
  write_run(folder / 'r1-seed1', top1=0.01, nll=99.0, state='running')
  return folder


def test_means_are_numpy_s_over_the_seeds_that_are_done(table):
  page = report(table)
  rows, other = cells(page, 1), list(OTHER.values())
  assert rows['baseline'][:2] == [
    '4',
    f'{100 * np.mean(BASE):.2f} ± {100 * np.std(BASE, ddof=1):.2f}',
  ]
  assert rows['LSR'][:2] == [
    '3',
    f'{100 * np.mean(other):.2f} ± {100 * np.std(other, ddof=1):.2f}',
  ]
  assert rows['LSR'][3] == '0.600 ± 0.100'


def test_differences_are_scipy_s_over_the_seeds_that_both_have(table):
  rows = cells(report(table), 2)
  other, base = list(OTHER.values()), [BASE[seed] for seed in OTHER]
  low, high = stats.ttest_rel(other, base).confidence_interval(0.95)
  middle = np.mean(np.subtract(other, base))
  expected = (
    f'{100 * middle:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]'
  ).replace('-', '−')
  assert rows['LSR'][0] == '3'
  assert rows['LSR'][1].startswith(expected)
  # Without predictions nothing is known of other images, and nothing claimed.
  assert rows['LSR'][1].endswith('(seeds only)')
  assert rows['LSR'][3].endswith('(seeds only)')
  page = report(table)
  (lead,) = re.findall(r'<p class="lead">(.*?)</p>', page)
  assert lead.startswith('Nothing is claimed against baseline')
  assert lead in words_of(page)
  assert 'The smallest true difference' not in words_of(page)
  low, high = stats.ttest_rel([0.5, 0.6, 0.7], [0.5] * 3).confidence_interval()
  assert f'[{low:+.3f}'.replace('-', '−') in rows['LSR'][3]


@pytest.mark.parametrize(
  ('mean', 'error', 'images', 'claim', 'note'),
  [
    (0.01, 0.001, COUNT, 0.01, ''),
    (0.01, 0.0025, COUNT, 0.01, 'inside the noise'),  # ± 4.60 errors
    (0.01, 0.0025, COUNT, None, ''),  # ± 2.78
    (0.01, 0.01, COUNT, None, ''),
    (0.9 / COUNT, 1e-5, COUNT, 0.01, 'less than one image'),
    (1 / COUNT, 1e-5, COUNT, 0.01, ''),
    (0.01, 0.0, COUNT, 0.01, 'all pairs alike: too few'),
    (0.01, 0.0, COUNT, None, 'all pairs alike: too few'),
    (0.01, 0.001, 0, 0.01, 'seeds only'),
    (0.01, math.nan, 1, 0.01, 'one image: no interval'),
  ],
)
def test_a_cell_says_why_it_claims_nothing(mean, error, images, claim, note):
  found = Estimate(mean, error, 4, 5, images, error**2, 0.0)
  cell = comparison.difference_cell(comparison.METRICS[0], found, claim)
  assert cell.note == note
  assert cell.faint == bool(note)
  if error == 0:
    assert cell.text == '+1.00'
  elif error > 0:
    half = stats.t.ppf(1 - (claim or 0.05) / 2, 4) * error
    ends = f'{100 * (mean - half):+.2f}, {100 * (mean + half):+.2f}'
    text = f'{100 * mean:+.2f} [{ends}]'.replace('-', '−')
    low, _, high = ends.partition(', ')
    if low == high:  # in two digits the interval would have no width
      ends = f'{100 * (mean - half):+.3f}, {100 * (mean + half):+.3f}'
      text = f'{100 * mean:+.3f} [{ends}]'
    assert cell.text == text


def test_one_pair_has_no_interval(tmp_path):
  folder = write_table(tmp_path, ['baseline', 'one'], (0, 1))
  for seed in (0, 1):
    write_run(folder / f'r0-seed{seed}', top1=0.5, seed=seed)
  write_run(folder / 'r1-seed0', top1=0.5 + 1 / COUNT)
  rows = cells(report(folder), 2)
  assert rows['one'][:2] == ['1', '+0.28 (one pair: no interval)']


def test_unfinished_runs_are_named_and_never_averaged(tmp_path):
  folder = write_table(tmp_path, ['baseline', 'LSR'], range(10))
  write_run(folder / 'r0-seed0')
  for seed in range(6):
    state = ('done', 'diverged', 'interrupted', 'running', 'done', 'done')[seed]
    write_run(folder / f'r1-seed{seed}', top1=0.5 + seed, state=state)
  # 6 is missing; 4 says it is done and its log ends early; 5's is not whole; 7
  # trained on other data under the same name; 8 stopped within an epoch; 9 has
  # its log twice.
  log = folder / 'r1-seed4' / 'metrics.jsonl'
  log.write_text('\n'.join(log.read_text().split('\n')[:-2]) + '\n')
  log = folder / 'r1-seed5' / 'metrics.jsonl'
  log.write_text(log.read_text().replace('"nll": 0.5', '"nll": null'))
  (folder / 'r1-seed1' / 'failure.txt').write_text('the loss blew up\nmore')
  write_run(folder / 'r1-seed7', fingerprint='e' * 64)
  log = write_run(folder / 'r1-seed9') / 'metrics.jsonl'
  log.write_text(2 * log.read_text())
  write_run(folder / 'r1-seed8')
  for name in ('status.json', 'metrics.jsonl'):
    path = folder / 'r1-seed8' / name
    path.write_text(path.read_text().replace('"step": 20', '"step": 21'))
  text = words_of(report(folder))
  for words in (
    'LSR, seed 1: diverged (the loss blew up)',
    'LSR, seed 2: interrupted (stopped by a signal',
    'LSR, seed 3: running (still running, or killed)',
    'LSR, seed 4: damaged (its log has no evaluation after update 20)',
    'LSR, seed 5: damaged (its last evaluation lacks nll)',
    'LSR, seed 6: missing (not started)',
    'LSR, seed 7: damaged (on other data than r0-seed0)',
    'LSR, seed 8: damaged (its 21 updates are not 2 epochs)',
    'LSR, seed 9: damaged (its log has train rows twice, or not in order)',
  ):
    assert words in text
  assert '2 of 20 runs are done' in text
  rows = cells(report(folder), 1)
  assert rows['LSR'][:2] == ['1', '50.00']  # one seed: no deviation
  tables = read_results([folder])
  assert [run.seed for run in tables[0].done('LSR')] == [0]


def settled(*, mean, size=0):
  """A config whose mean followed from its data."""
  config = default_config()
  config.data.name, config.data.path = 'npz', 'gone.npz'
  config.data.mean, config.data.image_size = (mean,), size or -1
  return config


def test_a_row_is_on_one_data_set_whatever_followed_from_it(tmp_path):
  folder = write_table(tmp_path, ['x', 'y', 'z'], range(3))
  for name, data, mean, size, top1 in (
    ('r0-seed0', 'f', 0.3, 8, 0.9),
    ('r0-seed1', 'e', 0.5, 8, 0.1),  # the file was overwritten
    ('r0-seed2', 'e', 0.5, 6, 0.1),  # by images of another size
    ('r1-seed0', 'e', 0.5, 8, 0.1),
    ('r1-seed1', 'f', 0.3, 8, 0.8),
    ('r1-seed2', 'f', 0.3, 8, 0.6),
    ('r2-seed2', 'f', 0.4, 8, 0.7),  # a row may normalise otherwise
  ):
    config = settled(mean=mean, size=size)
    fingerprint, seed = data * 64, int(name[-1])
    path = folder / name
    write_run(
      path, top1=top1, seed=seed, config=config, fingerprint=fingerprint
    )
  page = report(folder)
  text = words_of(page)
  assert '4 of 9 runs are done' in text
  for run in ('x, seed 1', 'x, seed 2', 'y, seed 0'):
    assert f'{run}: damaged (on other data than r0-seed0)' in text
  rows = cells(page, 1)
  assert rows['x'][:2] == ['1', '90.00']
  assert rows['y'][:2] == ['2', '70.00 ± 14.14']  # √2 / 10
  assert rows['z'][:2] == ['1', '70.00']


def test_a_run_that_was_gone_on_with_as_another_is_in_no_mean(tmp_path):
  folder = write_table(tmp_path / 't', ['x'], range(3))
  for seed in range(3):
    write_run(folder / f'r0-seed{seed}', top1=0.7 + seed / 10, seed=seed)
  config = json.loads((folder / 'r0-seed1' / 'config.json').read_text())
  before = folder / 'r0-seed1' / 'config-until-5.json'
  before.write_text(json.dumps(config | {'smoothing.theta': 0.0, 'format': 1}))
  assert cells(report(folder), 1)['x'][:2] == ['3', '80.00 ± 10.00']
  # Where the trunk lies is not another config, nor a name that is gone.
  config |= {'init.fork_from': 'moved@1', 'format': 1}
  config |= {old: default for old, (_, default) in RENAMED.items()}
  before.write_text(json.dumps(config))
  assert cells(report(folder), 1)['x'][0] == '3'
  for change in ({'batch_size': 32}, {'seed': 5}):
    before.write_text(json.dumps(config | change))
    page = report(folder)
    assert cells(page, 1)['x'][:2] == ['2', '80.00 ± 14.14']  # 70 and 90
    words = 'x, seed 1: changed (its config in mid-run: see config-until-5.json'
    assert words in words_of(page)
    text = words_of(report(*sorted(folder.glob('r0-*'))))
    assert words.partition(', ')[2] in text
    assert '2 of 3 runs are done' in text


def test_a_run_under_several_spellings_is_one(tmp_path, monkeypatch):
  write_run(tmp_path / 'd0', top1=0.8)
  (tmp_path / 'link').symlink_to('d0')
  monkeypatch.chdir(tmp_path)
  given = 'd0', tmp_path / 'd0', 'link', 'd0/../link', '.'
  (table,) = read_results([pathlib.Path(path) for path in given])
  assert table.rows == ('d0',)
  assert [str(run.record.path) for run in table.runs] == ['d0']


def write_taught(folder, teacher, network, seed):
  """A run that is taught by a run, whose network has the SHA-256."""
  config = default_config()
  config.data.name, config.data.path = 'npz', 'gone.npz'
  config.smoothing.schedule, config.smoothing.theta = 'constant', 0.1
  config.smoothing.target, config.teacher.run = 'teacher', str(teacher)
  write_run(folder, seed=seed, config=config)
  data = {'fingerprint': 'f' * 64, 'teacher': network * 64}
  (folder / 'data.json').write_text(json.dumps(data))
  return folder


def seeds_by_row(paths):
  (table,) = read_results(paths)
  found = {row: [] for row in table.rows}
  for run in table.runs:
    found[run.row].append(run.record.path.name)
  return sorted(found.values())


TAUGHT = ['s0', 's1', 'w0', 'w1', 'w2']


@pytest.mark.parametrize('gone', [False, True])
def test_a_row_s_teachers_are_of_one_family(tmp_path, gone):
  paths = []
  for seed, name in zip((0, 1, 0, 1, 2), TAUGHT, strict=True):
    teacher = tmp_path / f'teacher-{name}'
    if not gone:
      strong = default_config()
      strong.data.name, strong.epochs = 'npz', 2
      strong.optimizer.momentum = 0.5 if name.startswith('s') else 0.9
      write_run(teacher, seed=seed + 7, config=strong)
    paths.append(write_taught(tmp_path / name, teacher, str(seed + 1), seed))
  assert seeds_by_row(paths) == [['s0', 's1'], ['w0', 'w1', 'w2']]
  text = words_of(report(*paths))
  shown = ', '.join(f'teacher-w{n} ({str(n + 1) * 8})' for n in range(3))
  assert f'teacher.run = {shown}'.replace(' = ', '\xa0=\xa0') in text
  # A generation on: taught by those, who differ in their own teachers only.
  if not gone:
    later = [
      write_taught(tmp_path / f'{path.name}-2', path, 'a', int(path.name[1]))
      for path in paths
    ]
    expected = [['s0-2', 's1-2'], ['w0-2', 'w1-2', 'w2-2']]
    assert seeds_by_row(later) == expected


@pytest.mark.parametrize('gone', [False, True])
def test_a_teacher_that_was_replaced_where_it_lay_is_another(tmp_path, gone):
  teacher = tmp_path / 'teacher'
  if not gone:
    write_run(teacher)
  paths = [
    write_taught(tmp_path / name, teacher, {'s': 'a', 'w': 'b'}[name[0]], seed)
    for seed, name in zip((0, 1, 0, 1, 2), TAUGHT, strict=True)
  ]
  assert seeds_by_row(paths) == [['s0', 's1'], ['w0', 'w1', 'w2']]


def test_a_teacher_that_taught_itself_ends(tmp_path):
  path = write_taught(tmp_path / 'a', tmp_path / 'a', 'a', 0)
  assert seeds_by_row([path]) == [['a']]


def test_no_run_at_all_still_makes_a_report(tmp_path):
  folder = write_table(tmp_path, ['baseline', 'LSR'], (0, 1))
  page = report(folder)
  assert '0 of 4 runs are done' in words_of(page)
  assert cells(page, 1)['LSR'] == ['0', '–', '–', '–', '–', '–']
  assert '<svg' not in page.split('<main>')[1]


def test_a_log_without_training_rows_still_makes_a_report(table):
  for log in table.glob('*/metrics.jsonl'):
    lines = log.read_text().split('\n')
    log.write_text('\n'.join(line for line in lines if 'train' not in line))
  page = report(table)
  assert cells(page, 1)['LSR'][0] == '3'
  zero = '0:00:00'
  assert cells(page, 3)['all'] == ['0', '0', '–', zero, zero]


def test_published_figures_carry_their_label(tmp_path):
  assert 'unverified transcription' in published.__doc__
  folder = write_table(
    tmp_path, ['baseline', 'TSLA(30)', 'mine'], (0,), name='cub2011'
  )
  write_run(folder / 'r0-seed0')
  page = report(folder)
  rows = cells(page, 1)
  assert rows['TSLA(30)'][-2:] == ['77.44 ± 0.19', '93.92 ± 0.16']
  assert rows['mine'][-2:] == ['–', '–']
  head = [cell for cell in rows['Method'] if 'ublished' in cell]
  assert len(head) == 2
  assert all('unverified transcription' in cell for cell in head)
  shown = ''.join(Page(page).text)
  assert shown.count('unverified transcription') == 3  # and in the caption
  folder = write_table(tmp_path / 'other', ['baseline'], (0,), name='digits')
  assert 'ublished' not in report(folder)


def test_the_paper_s_rows_have_the_shape_of_the_paper_s_tables():
  shapes = {name: len(rows) for name, rows in published.TABLES.items()}
  assert shapes == {'cifar100': 11, 'stanford_dogs': 9, 'cub2011': 9}
  for rows in published.TABLES.values():
    for row in rows.values():
      assert 70 < row.top1 < row.top5 < 100
      assert 0 < row.top1_std < 0.5 and 0 < row.top5_std < 0.5


def test_curves_are_means_over_updates_and_over_seeds(tmp_path):
  folder = write_table(tmp_path, ['baseline'], (0, 2))
  for seed, top1 in ((0, 0.8), (2, 0.9)):
    write_run(folder / f'r0-seed{seed}', top1=top1, seed=seed)
  runs = read_results([folder])[0].done('baseline')
  curve = summary.training_curve(runs, 'hard_loss')
  # Rows of 4 and 6 updates hold 4, 10 and 14, 20; the other seed's 2 more.
  first = np.average([4, 10], weights=[4, 6])
  second = np.average([14, 20], weights=[4, 6])
  np.testing.assert_allclose(curve.epochs, [1, 2])
  np.testing.assert_allclose(curve.mean, [first + 1, second + 1])
  np.testing.assert_allclose(curve.low, [first, second])
  np.testing.assert_allclose(curve.high, [first + 2, second + 2])
  curve = summary.evaluation_curve(runs, 'top1')
  np.testing.assert_allclose(curve.mean, [0.84, 0.85])
  np.testing.assert_allclose(curve.high, [0.89, 0.90])


def test_what_the_trunk_spent_is_saved_not_spent(tmp_path):
  folder = write_table(tmp_path, ['LSR', 'TSLA(1)'], (0,), first={'TSLA(1)': 1})
  pretrained = default_config()
  pretrained.data.name = 'npz'
  pretrained.model.weights = 'w.safetensors'
  write_run(folder / 'r0-seed0', config=pretrained)
  write_run(folder / 'r1-seed0', first_epoch=1, switch=1)
  # The row that compiled has no rate and gets the median of its run: an epoch
  # is 10 updates of 16 images at 100 images/s, 1.6 s.
  log = folder / 'r1-seed0' / 'metrics.jsonl'
  text = log.read_text()
  log.write_text(
    text.replace(
      '"step": 20, "loss": 2.0, "hard_loss": 20.0, "theta": 0.0, '
      '"learning_rate": 0.1, "images_per_second": 100.0',
      '"step": 20, "hard_loss": 20.0, "images_per_second": 50.0',
    )
  )
  assert log.read_text() != text
  runs = read_results([folder])[0].runs
  whole, fork = (summary.cost([run]) for run in runs)
  np.testing.assert_allclose(whole, (2, 0, 3.2, 0))
  np.testing.assert_allclose(fork, (1, 1, 10 * 16 / 50, 1.6))
  np.testing.assert_allclose(summary.cost(runs), (3, 1, 6.4, 1.6))
  # The wall time is what the processes said, all of them.
  for index, seconds in enumerate((100.0, 58.0)):
    path = folder / f'r{index}-seed0' / 'status.json'
    status = json.loads(path.read_text()) | {'seconds': seconds}
    path.write_text(json.dumps(status))
  page = report(folder)
  times = '0:02:38', '0:00:06', '0:00:02'
  assert cells(page, 3)['all'] == ['3', '1', *times]
  assert '3 epochs instead of 4: 25 % saved' in words_of(page)
  assert cells(page, 4)['TSLA(1)'] == ['none', 'r0-seed0, epoch 1', '1']


def drawn(axes, marker):
  """The data of the lines with a marker, or of those without, by colour."""
  return {
    line.get_markeredgecolor() if marker else line.get_color(): line
    for line in axes.lines
    if (line.get_marker() == 'o') == marker and line.get_linestyle() != ':'
  }


def test_the_figures_show_the_switch_and_the_seeds_of_each_row(
  tmp_path, monkeypatch
):
  """A branch of epoch 2 that drops the smoothing there, of three epochs."""
  folder = write_table(
    tmp_path, ['LSR', 'TSLA(2)'], (0, 1), first={'TSLA(2)': 2}, epochs=3
  )
  for seed, top1 in ((0, 0.8), (1, 0.9)):
    for row, fork in ((0, {}), (1, {'first_epoch': 2, 'switch': 2})):
      name = f'r{row}-seed{seed}'
      write_run(folder / name, top1=top1, seed=seed, epochs=3, **fork)
  (done,) = read_results([folder])
  lsr, tsla = (key.colour for key in figures.keys(done))
  monkeypatch.setattr(figures, 'over_epochs', lambda figure, name: figure)

  top1 = figures.learning_curves(done).axes[2]  # two a row: loss, NLL first
  mean = [83, 84, 85]  # of 78, 79, 80 and 88, 89, 90 %
  for line in drawn(top1, marker=False).values():
    np.testing.assert_allclose(line.get_data(), [[1, 2, 3], mean])
  rings = drawn(top1, marker=True)
  assert list(rings) == [tsla]
  np.testing.assert_allclose(rings[tsla].get_data(), [[2], [84]])
  # The band is from the least to the most of the seeds; a branch's begins
  # where the branch does, for before that it is the trunk's.
  ends = {}
  for band in top1.collections:
    (path,) = band.get_paths()
    colour = matplotlib.colors.to_hex(band.get_facecolor()[0])
    ends[colour] = path.vertices.min(0), path.vertices.max(0)
  np.testing.assert_allclose(ends[lsr], [[1, 78], [3, 90]])
  np.testing.assert_allclose(ends[tsla], [[2, 79], [3, 90]])

  # θ falls where the last update with it ended, not a row later.
  theta = figures.schedules(done).axes[0]
  line = drawn(theta, marker=False)[tsla]
  steps = matplotlib.cbook.STEP_LOOKUP_MAP[line.get_drawstyle()]
  epochs, values = steps(*line.get_data())
  np.testing.assert_allclose(epochs[values > 0].max(), 2)
  np.testing.assert_allclose(epochs[values == 0].min(), 2)


class Page(html.parser.HTMLParser):
  """What a browser would load or run."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.loaded, self.text = [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    for name, value in attrs:
      assert not name.startswith('on'), name
      if name in ('src', 'href', 'xlink:href', 'srcset', 'data', 'action'):
        self.loaded.append(value)

  def handle_data(self, data):
    self.text.append(data)


def test_strings_from_outside_are_text(tmp_path):
  folder = tmp_path / 'a<b>|c'
  write_table(folder, ['baseline', EVIL], (0, 1), title=EVIL)
  write_run(folder / 'r0-seed0')
  write_run(folder / 'r1-seed0', switch=1)
  table = json.loads((folder / 'table.json').read_text())
  table['command'] = '```\n</code>' + EVIL
  (folder / 'table.json').write_text(json.dumps(table))
  (folder / 'r1-seed1').mkdir()
  (folder / 'r1-seed1' / 'failure.txt').write_text(EVIL)
  (folder / 'r0-seed0' / 'environment.json').write_text(
    json.dumps({EVIL: EVIL})
  )
  text = report(folder)
  page = Page(text)
  assert not {'script', 'a'} & set(page.tags)
  assert EVIL in ''.join(page.text)
  assert '<script' not in text
  assert EVIL in cells(text, 1)
  # The same tables as Markdown, where the one block of code holds it as it is.
  outside = (folder / 'report.md').read_text(encoding='utf-8').split('````')
  assert len(outside) == 3 and EVIL in outside[1]
  assert '<' not in outside[0] + outside[2]
  name = r'&lt;script&gt;alert(1)&lt;/script&gt;\|\`x\`\_\*\[a\](b)&amp;'
  assert outside[0].startswith(f'# {name}\n')
  assert f'\n| {name} | ' in outside[0]


def test_the_page_needs_nothing_but_itself_and_stays_small(tmp_path):
  rows = [f'row {index}' for index in range(11)]
  folder = write_table(tmp_path, rows, (0,), name='cifar100')
  rng = np.random.default_rng(0)
  for index in range(11):
    write_run(folder / f'r{index}-seed0', epochs=200, switch=150)
    log = folder / f'r{index}-seed0' / 'metrics.jsonl'
    log.write_text(
      re.sub(
        '"nll": 0.5',
        lambda _: f'"nll": {rng.uniform(1, 2)}',
        re.sub(
          '"ece": 0.02', lambda _: f'"ece": {rng.uniform()}', log.read_text()
        ),
      )
    )
  table = json.loads((folder / 'table.json').read_text())
  for run in table['runs']:
    run['epochs'] = 200
  (folder / 'table.json').write_text(json.dumps(table))
  text = report(folder, drawn=True)
  assert len(text.encode()) < 1_000_000
  (keys, *_) = re.findall(r'<ul class="keys">(.*?)</ul>', text)
  lines = re.findall(r'<li><svg[^>]*><line(.*?)</svg>row', keys)
  assert len(set(lines)) == 11, 'a line of its own for each row'
  grey = {re.sub('#[0-9a-f]{6}', '', line) for line in lines}
  assert len(grey) == 11, 'on paper without colours too'
  page = Page(text)
  assert page.loaded
  assert all(address.startswith('#') for address in page.loaded)
  assert (
    'http:' not in text
    and 'https:' not in text
    and 'url(' not in (re.sub(r'url\(#', '', text))
  )
  assert "default-src 'none'" in text


def test_svg_ids_are_one_of_a_kind(table):
  text = report(table, drawn=True)
  assert text.count('class="plot"') == 2
  ids = re.findall(r' id="([^"]*)"', text)
  assert ids and len(ids) == len(set(ids))
  for used in re.findall(r'(?:href="|url\()#([^")]*)', text):
    assert used in ids


def test_the_same_directories_give_the_same_bytes(table, tmp_path):
  first = report(table, drawn=True).encode()
  env = os.environ | {'PYTHONHASHSEED': '7', 'TZ': 'Asia/Tokyo'}
  result = subprocess.run(
    [
      *(sys.executable, '-m', 'tsla', 'report', str(table)),
      f'--out={tmp_path / "again"}',
    ],
    cwd=ROOT,
    env=env,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  assert pathlib.Path(result.stdout.strip()).read_bytes() == first


def test_the_sample_is_what_the_first_updates_train_on(tmp_path, monkeypatch):
  config = small_config(write_digits_npz(tmp_path / 'digits.npz'))
  config.augment.flip = True
  config.smoothing.drop_epochs = 1.0
  config.seed = 5
  folder = write_table(tmp_path / 't', ['TSLA(2)'], (5,))
  data = datasets.load_dataset(config.data)
  write_run(
    folder / 'r0-seed5', seed=5, config=config, fingerprint=data.fingerprint
  )
  images = samples.first_images(read_results([folder])[0].runs[0])

  seen = []

  def record(state, batch, *functions, **options):
    jax.debug.callback(lambda x: seen.append(np.asarray(x)), batch.images)
    row = step.TrainMetrics(*5 * [jnp.float32(0)])
    return state.replace(step=state.step + 1), row

  monkeypatch.setattr(step, 'train_step', record)
  monkeypatch.setattr(pipeline, '_normalized', lambda _, images: images)
  run = build(
    config,
    data,
    durations.resolve(config, steps_per_epoch=4),
    parallel.choose('jit', config.batch_size),
  )
  run.train_chunk(run.state, 2)
  jax.effects_barrier()
  np.testing.assert_array_equal(images, np.concatenate(seen))
  assert 'data:image/png' in report(folder)


def test_the_sheet_keeps_small_images_to_the_pixel_and_large_ones_light():
  rng = np.random.default_rng(0)
  small = rng.integers(0, 256, (32, 8, 8, 1), np.uint8)
  picture = samples.contact_sheet(small)
  sheet = np.asarray(Image.open(io.BytesIO(picture.png)))
  assert sheet.shape == (4 * 9 - 1, 8 * 9 - 1)
  np.testing.assert_array_equal(sheet[9:17, 18:26], small[8 + 2, ..., 0])
  assert picture.width % sheet.shape[1] == 0  # whole pixels become squares
  few = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
  sheet = np.asarray(Image.open(io.BytesIO(samples.contact_sheet(few).png)))
  assert sheet.shape == (32, 3 * 32 + 2 * 2, 3)
  np.testing.assert_array_equal(sheet[:, -32:], few[2])
  noise = rng.integers(0, 256, (32, 224, 224, 3), np.uint8)
  assert len(samples.contact_sheet(noise).png) < 300_000


def test_data_that_is_gone_or_another_costs_one_line(tmp_path):
  config = small_config(write_digits_npz(tmp_path / 'digits.npz'))
  folder = write_table(tmp_path / 't', ['TSLA(2)'], (0,))
  write_run(folder / 'r0-seed0', config=config)
  assert 'not the data of the run' in report(folder)
  (tmp_path / 'digits.npz').unlink()
  page = report(folder)
  assert 'Not shown, as the data set cannot be loaded' in words_of(page)
  assert 'data:image/png' not in page


def test_a_report_downloads_nothing(tmp_path):
  config = default_config()
  config.data.name, config.data.path = 'cifar100', str(tmp_path / 'none')
  assert config.data.download
  folder = write_table(tmp_path / 't', ['baseline'], (0,))
  write_run(folder / 'r0-seed0', config=config)
  assert 'data.download is false' in report(folder)


def test_plain_runs_are_rows_by_config_and_tables_by_data(tmp_path):
  lsr = default_config()
  lsr.data.name, lsr.data.path = 'npz', 'moved.npz'
  lsr.smoothing.schedule, lsr.smoothing.theta = 'constant', 0.1
  paths = [
    write_run(tmp_path / 'plain', top1=0.8),
    write_run(tmp_path / 'plain-1', top1=0.9, seed=1),
    write_run(tmp_path / 'lsr', top1=0.7, config=lsr),
    write_run(tmp_path / 'plain-0', top1=0.6),
    write_run(tmp_path / 'elsewhere', top1=0.5, fingerprint='e' * 64),
  ]
  tables = read_results([*paths, paths[0]])
  assert [table.rows for table in tables] == [
    ('plain', 'lsr', 'plain-0'),
    ('elsewhere',),
  ]
  assert [run.seed for run in tables[0].done('plain')] == [0, 1]
  page = report(*paths)
  titles = 'Runs on npz, data ffffffff', 'Runs on npz, data eeeeeeee'
  assert f'<h1>{", ".join(titles)}</h1>' in page
  assert cells(page, 1)['plain'][1] == '85.00 ± 7.07'
  assert page.count('<h2>') == 2
  taught = lsr.copy_and_resolve_references()
  taught.smoothing.target = 'class_similarity'
  for seed, name in enumerate('ab'):
    taught.teacher.matrix = f'{name}.csv'
    path = tmp_path / f'taught-{seed}'
    paths.append(write_run(path, seed=seed, config=taught))
  assert len(read_results(paths[-2:])[0].rows) == 2, 'two matrices'
  alike = write_run(tmp_path / 'other' / 'lsr', top1=0.6)
  alike = read_results([paths[2], alike])[0]
  assert alike.rows == (str(paths[2]), str(tmp_path / 'other' / 'lsr'))
  assert cells(report(paths[4]), 1) == {
    'Method': ['Seeds', 'Top-1 %', 'Top-5 %', 'NLL', 'Brier', 'ECE %'],
    'elsewhere': ['1', '50.00', '99.50', '0.500', '0.100', '2.00'],
  }


def test_the_environment_and_the_configs_are_shown(table):
  for seed, version in ((0, '0.10.2'), (1, '0.12.0')):
    (table / f'r0-seed{seed}' / 'environment.json').write_text(
      json.dumps({'jax': version, 'device_count': 8, 'command': 'main.py'})
    )
  path = table / 'r1-seed0' / 'config.json'
  fields = json.loads(path.read_text())
  fields |= {'smoothing.theta': 0.4, 'data.path': '/elsewhere', 'seed': 9}
  path.write_text(json.dumps(fields))
  page = report(table)
  environment = cells(page, 5)
  assert environment['jax'] == ['0.10.2 (1 run); 0.12.0 (1 run)']
  assert environment['device_count'] == ['8']
  assert cells(page, 4)['LSR'] == ['smoothing.theta = 0.4', 'epoch 0', '–']
  assert 'batch_size = 16' in cells(page, 4)['baseline'][0]
  assert 'python -m sweep --seeds=3' in words_of(page)


def break_file(name, text):
  def damage(folder):
    (folder / name).write_text(text)

  return damage


def change_table(**fields):
  def damage(folder):
    table = json.loads((folder / 'table.json').read_text())
    (folder / 'table.json').write_text(json.dumps(table | fields))

  return damage


@pytest.mark.parametrize(
  ('damage', 'words'),
  [
    (lambda folder: shutil.rmtree(folder) or folder.mkdir(), 'no table and no'),
    (break_file('table.json', '{"name": '), 'table.json'),
    (break_file('table.json', '[]'), 'no JSON object'),
    (change_table(title=3), 'title = 3, not str'),
    (change_table(rows=[]), 'rows = []'),
    (change_table(primary='top2'), "primary = 'top2', none of top1, top5"),
    (change_table(rows=['baseline', 'baseline']), 'different names'),
    (change_table(runs=[{'row': 'baseline'}]), 'runs[0].seed'),
    (change_table(rows=['baseline', 'TSLA']), "row = 'LSR' is not one of rows"),
    (break_file('r0-seed0/config.json', '{'), 'r0-seed0/config.json'),
    (break_file('r0-seed0/config.json', '{"seed": 0}'), 'epochs = None'),
    (break_file('r0-seed0/status.json', '"done"'), 'status.json'),
    (break_file('r0-seed0/metrics.jsonl', '{"kind"\n'), 'line 1'),
    (break_file('r0-seed0/metrics.jsonl', '{"kind": "eval"}\n'), 'step = None'),
    (break_file('r0-seed0/environment.json', '3'), 'environment.json'),
  ],
)
def test_bad_input_is_three_lines_and_exit_2(table, capsys, damage, words):
  damage(table)
  assert main([str(table)]) == 2
  said = capsys.readouterr().err
  assert words in said
  assert len(said.strip().split('\n')) <= 3
  assert not (table / 'report.html').exists()


def test_a_newer_table_is_refused_and_a_newer_run_is_named(table, capsys):
  for name, text in (
    ('config.json', '{"format": 2}'),
    ('metrics.jsonl', '{"kind": "format", "step": 0, "format": 2}\n'),
  ):
    path = table / 'r1-seed0' / name
    before = path.read_text()
    path.write_text(text)
    page = report(table)
    words = f'LSR, seed 0: not readable ({path}: format 2'
    assert words in words_of(page)
    assert cells(page, 1)['LSR'][0] == '2'
    path.write_text(before)
  change_table(format=2)(table)
  assert main([str(table)]) == 2
  said = capsys.readouterr().err
  assert f'{table / "table.json"}: format 2' in said
  assert len(said.strip().split('\n')) == 3


def test_a_metric_that_an_older_version_did_not_know_is_not_measured(table):
  """No run is damaged for it, and the others' numbers stay."""
  for log in table.glob('*/metrics.jsonl'):
    text = re.sub(r', "ece": 0\.02, "count": 360\.0', '', log.read_text())
    if log.parent.name == 'r1-seed0':
      text = text.replace('"top5": 0.995, ', '')
    log.write_text(text)
  page = report(table)
  assert 'damaged' not in words_of(page)
  rows = cells(page, 1)
  assert [rows[row][5] for row in ('baseline', 'LSR')] == 2 * ['not measured']
  assert rows['baseline'][2] == '99.50 (alike in these digits)'  # no certainty
  assert rows['LSR'][2] == '99.50 (alike in these digits, of 2 seeds)'
  differences = cells(page, 2)['LSR']
  assert differences[0] == '3' and differences[5] == 'not measured'
  assert 'test images is' not in words_of(page)
  assert page.count('not measured') == 3 + 8  # and of every run that is done


@pytest.mark.parametrize(
  ('kinds', 'ended'),
  [
    ([('switch', {'by_rule': 1.0})], '2 by its rule'),
    ([('switch', {'by_rule': 0.0})], '2 by max_epochs'),
    # As an earlier version wrote it: a rule decides on what a probe found.
    ([('probe', {}), ('switch', {})], '2 by its rule'),
    ([('switch', {}), ('probe', {})], '2 by max_epochs'),
    ([('probe', {})], 'never'),
  ],
)
def test_a_log_says_what_ended_the_smoothing(tmp_path, kinds, ended):
  config = default_config()
  config.smoothing.schedule = 'auto'
  run = write_run(tmp_path / 'auto', config=config)
  with (run / 'metrics.jsonl').open('a') as file:
    for kind, more in kinds:
      row = {'kind': kind, 'step': 20, 'epoch': 2.0, **more}
      file.write(json.dumps(row) + '\n')
  (results,) = read_results([run])
  assert results.runs[0].ended == ended


def test_theta_falls_where_the_log_says_so(tmp_path):
  """At update 14 of 10 an epoch, between rows 10 and 14, and 20."""
  run = write_run(tmp_path / 'run', switch=1)
  log = run / 'metrics.jsonl'
  text = log.read_text().replace('"epoch": 1.0', '"epoch": 1.3')
  log.write_text(text)
  (results,) = read_results([run])
  epochs, theta = summary.schedule(results.runs[0], 'theta')
  np.testing.assert_allclose(epochs, [0.4, 1, 1.3, 1.3, 1.4, 2])
  np.testing.assert_allclose(theta, [0.1, 0.1, 0.1, 0, 0, 0])


def test_smoothing_that_ends_before_the_first_row_was_there(tmp_path):
  """Of update 4, the first that the log has; θ was 0.4 until update 3."""
  run = write_run(tmp_path / 'run', switch=0.3)
  fields = json.loads((run / 'config.json').read_text())
  fields |= {'smoothing.schedule': 'two_stage', 'smoothing.theta': 0.4}
  (run / 'config.json').write_text(json.dumps(fields))
  with (run / 'metrics.jsonl').open('a') as log:
    log.write('{"kind": "switch", "step": 3, "epoch": 0.3}\n')
  (results,) = read_results([run])
  epochs, theta = summary.schedule(results.runs[0], 'theta')
  np.testing.assert_allclose(epochs, [0.3, 0.3, 0.4, 1, 1.4, 2])
  np.testing.assert_allclose(theta, [0.4, 0, 0, 0, 0, 0])


def test_one_seed_is_said_as_one(tmp_path):
  write_run(tmp_path / 'plain', top1=0.8)
  assert 'plain reaches Top-1 80.00 over 1 seed.' in report(tmp_path)


def test_a_folder_is_its_sweeps_and_its_runs_by_data(tmp_path):
  lsr = default_config()
  lsr.data.name, lsr.data.path = 'npz', 'gone.npz'
  lsr.smoothing.schedule, lsr.smoothing.theta = 'constant', 0.1
  write_run(tmp_path / 'all' / 'a-lsr', config=lsr)
  write_run(tmp_path / 'all' / 'b' / 'plain', top1=0.8)
  write_run(tmp_path / 'all' / 'c', fingerprint='e' * 64)
  sweep = write_table(tmp_path / 'all' / 'd' / 't', ['x', 'y', 'z'], (0,))
  for index in (0, 1):  # y is of other data; z has not begun
    config = default_config()
    config.data.name, config.data.path = 'npz', 'gone.npz'
    config.data.label_noise = 0.2 * index
    data = 'fe'[index] * 64
    write_run(sweep / f'r{index}-seed0', config=config, fingerprint=data)
  (tmp_path / 'all' / 'empty').mkdir()
  found = read_results([tmp_path / 'all'])
  assert [(results.title, results.rows) for results in found] == [
    ('T, data ffffffff', ('x', 'z')),
    ('T, data eeeeeeee', ('y',)),
    # What does not smooth comes first, for the others are compared with it.
    ('Runs on npz, data ffffffff', ('plain', 'a-lsr')),
    ('Runs on npz, data eeeeeeee', ('c',)),
  ]
  assert [len(results.runs) for results in found] == [2, 1, 2, 1]
  assert main([str(tmp_path / 'all' / 'empty')]) == 2


BROWSER = shutil.which('chromium') or shutil.which('google-chrome')
# Widths in CSS pixels: of two screens, of A4 and of Letter less 14 mm a side.
WIDTHS = {600: 'screen', 1200: 'screen', 688: 'print', 710: 'print'}
MEASURE = """<script>
onload = () => {
  for (const one of document.querySelectorAll('iframe')) {
    const page = one.contentDocument, width = page.documentElement.clientWidth
    for (const part of page.body.querySelectorAll('*')) {
      if (part.ownerSVGElement) continue
      const {left, right} = part.getBoundingClientRect()
      if (right > width + 1 || left < -1 || (part.clientWidth &&
          part.scrollWidth > part.clientWidth + 1))
        document.body.dataset.wide = (document.body.dataset.wide || '') +
          `${width}: ${part.tagName} ${part.textContent.slice(0, 60)};`
    }
    document.body.dataset.seen = (document.body.dataset.seen || '') +
      `${width}:${page.querySelectorAll('td').length} `
  }
}
</script>"""


def too_wide(page, folder):
  """What a browser finds beyond the edges of a page, on screens and paper."""
  frames = ''
  for width, medium in WIDTHS.items():
    own = page.replace('@media print', '@media all')
    if medium == 'print':
      own = own.replace('@media screen', '@media not all')
    else:
      own = page
    own = re.sub('<meta http-equiv[^>]*>', '', own)
    look = f'style="width: {width}px; height: 900px; border: 0"'
    frames += f'<iframe {look} srcdoc="{html.escape(own)}"></iframe>'
  path = folder / 'frames.html'
  path.write_text(f'<meta charset="utf-8"><body>{frames}{MEASURE}')
  result = subprocess.run(
    [
      *(BROWSER, '--headless=new', '--no-sandbox', '--disable-gpu'),
      *('--hide-scrollbars', '--virtual-time-budget=20000', '--dump-dom'),
      *(f'--user-data-dir={folder / "browser"}', path.as_uri()),
    ],
    capture_output=True,
    text=True,
    timeout=120,
  )
  (body,) = re.findall('<body[^>]*>', result.stdout)
  for width in WIDTHS:
    assert f'{width}:{page.count("<td")} ' in body, 'it was not measured'
  return re.findall('data-wide="([^"]*)"', body)


@pytest.mark.skipif(not BROWSER, reason='needs Chromium')
def test_nothing_is_wider_than_a_screen_or_a_sheet(tmp_path):
  """Long names, wide intervals, metrics of one's own, curves, pictures."""
  rows = ['baseline', 'a method of many words', 'x' * 60, 'TSLA-pre(120)']
  data = write_digits_npz(tmp_path / 'digits.npz')
  config = small_config(data)
  digest = datasets.load_dataset(config.data).fingerprint
  folder = write_table(tmp_path / 't', rows, range(3), title='T' * 90)
  for index in range(4):
    for seed in range(3):
      top1, name = 0.5 + 0.1 * index + 0.01 * seed, f'r{index}-seed{seed}'
      given = {'config': config, 'seed': seed, 'fingerprint': digest}
      run = write_run(folder / name, top1=top1, nll=500 * top1, **given)
      add_probes(run, [1.0, 2.0], [0.0, 1.0])
      if index > 1:
        log = run / 'metrics.jsonl'
        own = ''.join(f'"own_{n}": {top1}, ' for n in range(index * 3))
        log.write_text(log.read_text().replace('"top1"', f'{own}"top1"'))
  page = report(folder, drawn=True)
  assert 'class="wide"' in page and 'class="widest"' in page
  assert too_wide(page, tmp_path) == []
  wide = page.replace('main { max-width: 62rem;', 'main { width: 62rem;')
  assert '600: MAIN' in too_wide(wide, tmp_path)[0]


def test_a_folder_that_is_not_there_and_an_out_that_cannot_be(table, capsys):
  assert main([str(table / 'nowhere')]) == 2
  assert 'no such folder' in capsys.readouterr().err
  assert main([str(table), f'--out={table / "table.json"}']) == 2
  assert '--out=' in capsys.readouterr().err


def test_half_a_last_row_is_a_run_that_is_writing(table):
  log = table / 'r1-seed1' / 'metrics.jsonl'
  log.write_text(log.read_text() + '{"kind": "tr')
  assert 'LSR, seed 1: running' in report(table)


def beyond_delta(name):
  """How much larger a number of `add_probes` is than δ: each is another."""
  names = GradientStatistics._fields
  return abs(names.index(name) - names.index('delta'))


def add_probes(folder, deltas, firings):
  """Probe rows every epoch, of an error of 0.1 each."""
  with (folder / 'metrics.jsonl').open('a') as file:
    for epoch, (delta, fired) in enumerate(zip(deltas, firings, strict=True)):
      row = {'kind': 'probe', 'step': 10 * epoch, 'theta': 0.1}
      for name in GradientStatistics._fields:
        row |= {name: delta + beyond_delta(name), f'{name}_error': 0.1}
      row |= {f'rule_{name}': 0.0 for name in rules.RULES}
      row |= {'rule_mse': fired, 'cosine': None}
      file.write(json.dumps(row) + '\n')


def test_probes_are_drawn_with_their_errors_and_rules_are_listed(table):
  before = report(table)
  assert 'The gradient' not in before
  add_probes(table / 'r0-seed0', [1.0, 2.0, 4.0], [0.0, 1.0, 2.0])
  for seed in (1, 2, 3):
    add_probes(table / f'r0-seed{seed}', [3.0, 2.0, 5.0], [1.0, 0.0, 1.0])
  (done,) = read_results([table])
  curve = summary.probe_curve(done.done('baseline'), 'delta')
  np.testing.assert_allclose(curve.epochs, [0, 1, 2])
  np.testing.assert_allclose(curve.mean, [2.5, 2.0, 4.75])
  np.testing.assert_allclose(curve.low, [0.9, 1.9, 3.9])
  np.testing.assert_allclose(curve.high, [3.1, 2.1, 5.1])
  assert not len(summary.probe_curve(done.done('baseline'), 'cosine').epochs)
  assert [*variance_tables.probed(done, 'delta')][::2] == [
    '| δ at epoch | 0 | 1 | 2 |',
    '| baseline | 2.5 (0.9 to 3.1) | 2 (1.9 to 2.1) | 4.8 (3.9 to 5.1) |',
  ]
  page = report(table)
  assert page.count('class="plot"') == 3
  number = re.findall(r'Table (\d+)\. When each rule', words_of(page))[0]
  rows = cells(page, int(number))
  assert list(rows) == ['Method', 'baseline']  # LSR was not probed
  assert rows['baseline'][1] == '2, never, never, never'
  assert rows['baseline'][0] == 'never, never, never, never'


def test_the_methods_table_has_each_number_of_its_own_epoch(table):
  known = {'mse_ratio': (0.75, 2.0, None), 'theta_star': (0.5, None, 0.25)}
  for seed in (0, 1, 2, 3):
    with (table / f'r1-seed{seed}' / 'metrics.jsonl').open('a') as file:
      for epoch in range(3):
        row = {'kind': 'probe', 'step': 10 * epoch, 'theta': 0.1}
        for name, values in known.items():
          row |= {name: values[epoch], f'{name}_error': 0.1}
        file.write(json.dumps(row) + '\n')
  (done,) = read_results([table])
  assert [*methods_table.errors(done, (0, 0.5, 1))] == [
    '| LSR | 0.75 (0.5) | 2 (–) | – |'
  ]


def test_a_rule_is_held_against_the_fixed_s_that_turned_out_best(tmp_path):
  """Each metric against its own best; rows of another θ or ŷ do not count."""
  smoothing = {
    'baseline': {},
    'LSR': {'schedule': 'constant', 'theta': 0.1},
    'TSLA(1)': {'schedule': 'two_stage', 'theta': 0.1, 'drop_epochs': 1.0},
    'LSR(0.4)': {'schedule': 'constant', 'theta': 0.4},
    'linear': {'schedule': 'linear', 'theta': 0.1, 'drop_epochs': 1.0},
    'auto': {'schedule': 'auto', 'theta': 0.1, 'rule': 'mse'},
  }
  nll = dict(zip(smoothing, (0.5, 0.9, 0.4, 0.1, 0.1, 0.45), strict=True))
  top1 = dict(zip(smoothing, (0.9, 0.8, 0.7, 0.99, 0.99, 0.6), strict=True))
  seeds = (0, 1, 2)
  write_table(tmp_path, list(smoothing), seeds)
  for index, (row, fields) in enumerate(smoothing.items()):
    for seed in seeds:
      config = default_config()
      config.data.name, config.data.path = 'npz', 'gone.npz'
      config.smoothing.update(fields)
      write_run(
        tmp_path / f'r{index}-seed{seed}',
        config=config,
        seed=seed,
        nll=nll[row] + (0.01 * seed if row == 'auto' else 0),
        top1=top1[row] + (0.01 * seed if row == 'auto' else 0),
        switch=1 if row == 'auto' and seed else None,
        by_rule=seed == 1,
      )
  page = report(tmp_path)
  number = re.findall(r'Table (\d+)\. Each rule against', words_of(page))[0]
  rows = cells(page, int(number))
  assert list(rows) == ['Rule', 'auto']
  ended, by_top1, change_of_top1, by_nll, change_of_nll = rows['auto']
  assert (ended, by_top1, by_nll) == (
    'never, 1 by its rule, 1 by max_epochs',
    'baseline',
    'TSLA(1)',
  )
  half = stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
  assert change_of_nll.startswith(
    f'+0.060 [+{0.06 - half:.3f}, +{0.06 + half:.3f}]'
  )
  assert change_of_top1.startswith('−29.00')


def test_the_figure_of_several_tables_has_a_row_for_each(
  table, tmp_path, monkeypatch
):
  tables = {'0': table, '0.4': shutil.copytree(table, tmp_path / 'noisy')}
  found = {'0': np.array([0.5, 2.0, 4.0]), '0.4': np.array([1.0, 3.0, 3.5])}
  for noise, folder in tables.items():
    for seed in range(4):
      add_probes(folder / f'r0-seed{seed}', found[noise] + seed, [0, 1, 2])
  saved, save = [], matplotlib.figure.Figure.savefig

  def savefig(figure, *args, **options):
    saved.append(figure)
    save(figure, *args, **options)

  monkeypatch.setattr(matplotlib.figure.Figure, 'savefig', savefig)
  out = tmp_path / 'figure.png'
  arguments = [f'{noise}={folder}' for noise, folder in tables.items()]
  assert plots.main([str(out), *arguments]) == 0
  with Image.open(out) as image:
    assert image.format == 'PNG'
  (figure,) = saved
  panels = iter(figure.axes)
  for noise, wrong in (('0', '0%'), ('0.4', '40%')):
    for name, title in (
      ('delta', 'δ'),
      ('theta_star', 'θ*'),
      ('grad_norm', '‖∇F‖'),
    ):
      panel = next(panels)
      assert panel.get_title('left').startswith(f'{wrong} wrong: {title}')
      (line,) = drawn(panel, marker=False).values()  # LSR was not probed
      values = found[noise] + beyond_delta(name)
      # The mean of seeds 0 to 3; the band goes an error beyond them.
      np.testing.assert_allclose(line.get_data(), [[0, 1, 2], values + 1.5])
      corners = panel.collections[0].get_paths()[0].vertices[:, 1]
      assert {*np.round(corners, 3)} == {
        *np.round([*(values - 0.1), *(values + 3.1)], 3)
      }
  assert next(panels, None) is None
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.texts] == ['baseline', 'LSR']
  assert plots.main([str(tmp_path / 'x.png'), f'0={tmp_path}']) == 2  # two


def test_the_figure_of_the_switch_draws_what_was_logged(tmp_path, monkeypatch):
  rows, saved = [*plots.SWITCH_ROWS], []
  folder = write_table(tmp_path / 't', rows, (0, 1), epochs=4)
  for index in range(3):
    for seed in (0, 1):
      run = folder / f'r{index}-seed{seed}'
      write_run(run, seed=seed, epochs=4, switch=2 if index == 2 else None)
  save = plots.picture
  monkeypatch.setattr(
    plots, 'picture', lambda *args: saved.append(args[0]) or save(*args)
  )
  out = tmp_path / 'switch.svg'
  assert plots.main([str(out), str(folder)]) == 0
  assert '</svg>' in out.read_text()
  (figure,) = saved
  epochs = np.arange(1, 5)
  # 4 updates at 10 e − 6 and 6 at 10 e, and half a point of seed 1.
  panels = zip(figure.axes, (10 * epochs - 2.4 + 0.5, [2.0] * 4), strict=True)
  for panel, values in panels:
    *lines, switch = panel.get_lines()
    assert [*switch.get_xdata()] == [2, 2]
    for line, begins in zip(lines, (0, 0, 1), strict=True):
      np.testing.assert_allclose(
        line.get_data(), [epochs[begins:], values[begins:]]
      )
    assert [text.get_text() for text in panel.texts] == rows
  shutil.rmtree(folder / 'r2-seed0')
  shutil.rmtree(folder / 'r2-seed1')
  assert plots.main([str(out), str(folder)]) == 2
