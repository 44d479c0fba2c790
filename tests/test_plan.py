"""A table becomes a tree of runs: what is shared, in which order."""

import json
import pathlib

import jax.numpy as jnp
import pytest
from support import Disk

from tsla.config import forms as config_lib
from tsla.config.checks import validate
from tsla.config.forms import default_config
from tsla.errors import InputError
from tsla.runs.checkpoint import Checkpoints
from tsla.runs.directory import RunDirectory
from tsla.sweep import outline, plan, table
from tsla.sweep.table import Row, Table

# (rows, epochs a run, epochs a seed with ŷ uniform, with a teacher), counted by
# hand: trunks whole, a branch from its drop epoch on.
TABLES = {
  'digits': (6, 30, 30 + 30 + 20 + 10, 30 + 10),
  'cifar100': (
    11,
    200,
    200 + 200 + 80 + 60 + 40 + 20,
    200 + 80 + 60 + 40 + 20,
  ),
  'stanford_dogs': (9, 90, 90 + 90 + 70 + 60 + 50 + 40 + 30 + 20 + 10, 0),
  'cub2011': (9, 90, 90 + 90 + 70 + 60 + 50 + 40 + 30 + 20 + 10, 0),
}


def lsr():
  config = default_config()
  config.epochs = 10
  config.smoothing.schedule = 'constant'
  config.smoothing.theta = 0.1
  return config


def tsla(drop, unit='epochs'):
  config = lsr()
  config.smoothing.schedule = 'two_stage'
  config.smoothing[f'drop_{unit}'] = drop
  return config


def planned(*rows, seeds=(0,), workdir='runs'):
  rows = tuple(Row(*row) for row in rows)
  return plan.plan(Table('t', 'T', rows), seeds, workdir)


def by_row(runs):
  return {run.row: run for run in runs}


@pytest.mark.parametrize('name', TABLES)
def test_the_paper_s_tables_cost_what_sharing_leaves(name, tmp_path, capsys):
  rows, epochs, uniform, taught = TABLES[name]
  loaded = table.load_table(f'configs/sweeps/{name}.py')
  runs = plan.plan(loaded, range(5), tmp_path)
  assert len(runs) == 5 * rows
  assert {run.config.epochs for run in runs} == {epochs}
  assert {run.config.seed for run in runs} == set(range(5))
  trained = {
    target: sum(
      run.config.epochs - run.first_epoch
      for run in runs
      if run.config.smoothing.target == target
    )
    for target in ('uniform', 'teacher')
  }
  assert trained == {'uniform': 5 * uniform, 'teacher': 5 * taught}
  text = outline.describe(loaded, runs, tmp_path)
  alone = epochs * sum(
    run.config.smoothing.target == 'uniform' and run.seed == 0 for run in runs
  )
  assert f'({uniform:,} instead of {alone:,} a seed)' in text
  together = f'all: {5 * (uniform + taught):,} epochs'
  assert (together in text) == bool(taught)


@pytest.mark.parametrize(
  ('name', 'epochs', 'drops'),
  [
    ('digits', 30, (10, 20)),
    ('fashion_mnist', 10, (4, 7)),
    ('cifar100', 200, (120, 160)),
  ],
)
def test_the_methods_tables_share_a_trunk_a_method(
  name, epochs, drops, tmp_path
):
  """Baseline, MaxSup's ramp, and eight methods, each with two branches."""
  loaded = table.load_table(f'configs/sweeps/{name}_methods.py')
  runs = by_row(plan.plan(loaded, (0,), tmp_path))
  assert len(runs) == len(loaded.rows) == 2 + 8 * 3
  for run in runs.values():
    assert run.config.epochs == epochs
    assert run.config.variance.every_epochs == 1, 'each has its own probes'
    method, _, drop = run.row.partition('(')
    trunk = runs[method].directory if drop else ''
    assert run.trunk == trunk
    assert run.first_epoch == (float(drop[:-1]) if drop else 0)
    taught = run.config.smoothing.target == 'class_similarity'
    assert taught == (method == 'class_similarity') == bool(run.teacher)
  trunks = [row for row in runs if '(' not in row][2:]
  assert list(runs[trunks[0]].config.checkpoint_keep_epochs) == [*drops]
  ramp = runs['max_suppression, ramp'].config.smoothing
  assert (ramp.method, ramp.schedule) == ('max_suppression', 'ramp')


def test_branches_fork_where_their_smoothing_ends():
  configs = {
    'TSLA(4)': tsla(4.0),
    'LSR': lsr(),
    'TSLA': tsla(70.0, 'percent'),
  }
  for config in configs.values():
    config.model.weights, config.model.weights_sha256 = 'w.pth', 'a' * 64
  runs = by_row(planned(*configs.items()))
  trunk = runs['LSR']
  assert (trunk.trunk, trunk.first_epoch, trunk.stage) == ('', 0, 0)
  assert trunk.config.checkpoint_keep_epochs == (4, 7)
  for row, epoch in (('TSLA(4)', 4), ('TSLA', 7)):
    assert runs[row].trunk == trunk.directory
    assert (runs[row].first_epoch, runs[row].stage) == (epoch, 1)
    config = plan.config_to_train(runs[row], pathlib.Path('w'))
    assert config.init.fork_from == f'w/{trunk.directory}@{epoch}'
    # The trunk began with the weights, and nobody begins in two places.
    assert (config.model.weights, config.model.weights_sha256) == ('', '')
    validate(config)
  config = plan.config_to_train(trunk, pathlib.Path('w'))
  assert config.model.weights == 'w.pth' and not config.init.fork_from


def test_without_lsr_the_longest_smoothing_is_the_trunk():
  runs = by_row(planned(('a', tsla(4.0)), ('b', tsla(8.0))))
  assert runs['a'].trunk == runs['b'].directory
  assert runs['b'].trunk == ''


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('smoothing.theta', 0.2),
    ('smoothing.target', 'prior'),
    ('smoothing.reset_momentum', True),
    ('batch_size', 16),
    ('optimizer.momentum', 0.8),
    ('model.width', 8),
  ],
)
def test_what_differs_before_the_switch_is_not_shared(field, value):
  other = tsla(4.0)
  section, _, leaf = field.rpartition('.')
  (other[section] if section else other)[leaf] = value
  runs = by_row(planned(('LSR', lsr()), ('TSLA', other)))
  assert runs['TSLA'].trunk == ''


@pytest.mark.parametrize(
  'config', [tsla(4.5), tsla(0.0), tsla(40, 'steps')], ids=str
)
def test_smoothing_that_ends_within_an_epoch_is_not_shared(config):
  runs = by_row(planned(('LSR', lsr()), ('TSLA', config)))
  assert runs['TSLA'].trunk == ''


def test_what_others_need_comes_first():
  pre = lsr()
  pre.smoothing.target = 'teacher'
  pre.teacher.run = 'elsewhere'
  tsla_pre = pre.copy_and_resolve_references()
  tsla_pre.smoothing.schedule = 'two_stage'
  tsla_pre.smoothing.drop_epochs = 5.0
  runs = planned(
    ('TSLA-pre', tsla_pre, 'baseline'),
    ('LSR-pre', pre, 'baseline'),
    ('baseline', default_config()),
    seeds=(0, 1),
    workdir='/w',
  )
  seen = set()
  for run in runs:
    assert seen.issuperset(run.needs), run
    seen.add(run.directory)
  assert [run.stage for run in runs] == [0, 0, 1, 1, 2, 2]
  for run in runs[2:]:
    (teacher,) = (r for r in runs if (r.row, r.seed) == ('baseline', run.seed))
    assert run.teacher == teacher.directory
    assert run.config.teacher.run == f'/w/{teacher.directory}'


def test_a_changed_config_is_another_run_and_a_moved_sweep_is_not():
  def directory(workdir='runs', **fields):
    teacher = default_config()
    pre = lsr()
    pre.smoothing.target, pre.teacher.run = 'teacher', 'x'
    for name, value in fields.items():
      teacher[name] = value
    runs = planned(
      ('baseline', teacher), ('LSR-pre', pre, 'baseline'), workdir=workdir
    )
    return by_row(runs)['LSR-pre'].directory

  assert directory() == directory(workdir='elsewhere')
  assert directory() != directory(batch_size=16), 'another teacher'
  assert by_row(planned(('LSR', lsr())))['LSR'].directory != (
    by_row(planned(('LSR', tsla(4.0))))['LSR'].directory
  )


def record(folder, config, state, step, rows=()):
  """Writes a run's directory, as far as others read it."""
  texts = {
    'config.json': json.dumps(config_lib.flatten(config)),
    'data.json': json.dumps({'fingerprint': ''}),
    'metrics.jsonl': ''.join(json.dumps(row) + '\n' for row in rows),
    'status.json': json.dumps({'state': state, 'step': step}),
  }
  folder.mkdir(exist_ok=True)
  for name, text in texts.items():
    (folder / name).write_text(text)


@pytest.mark.parametrize('state', ['done', 'diverged'])
@pytest.mark.parametrize(
  ('saved', 'damaged', 'first'),
  [
    ((4, 6, 9), (), 6),
    ((1, 9), (), 1),
    ((6.4, 7, 9), (), 7),
    ((4, 6, 7, 9), (6, 7), 4),
    ((6.4, 9), (), 0),
  ],
)
def test_a_branch_begins_where_its_ended_trunk_lets_it(
  tmp_path, saved, damaged, first, state
):
  run = by_row(planned(('LSR', lsr()), ('TSLA', tsla(7.0))))['TSLA']
  assert plan.resolve_fork(run, tmp_path) == run, 'the trunk will save epoch 7'
  trunk = tmp_path / run.trunk
  trunk.mkdir()
  with Checkpoints(trunk / 'checkpoints', range(100)) as checkpoints:
    for epoch in saved:
      checkpoints.save(round(5 * epoch), {'step': jnp.zeros(1)})
  for epoch in damaged:
    for file in (trunk / 'checkpoints' / str(5 * epoch)).rglob('*'):
      if file.is_file() and file.stat().st_size:
        file.write_bytes(file.read_bytes()[:-1])
  rows = [{'kind': 'eval', 'step': 45, 'epoch': 9.0}]
  record(trunk, lsr(), 'running', 45, rows)
  assert plan.resolve_fork(run, tmp_path) == run
  record(trunk, lsr(), state, 45, rows)
  resolved = plan.resolve_fork(run, tmp_path)
  assert resolved.first_epoch == first
  fork = plan.config_to_train(resolved, tmp_path).init.fork_from
  assert fork == (f'{trunk}@{first}' if first else '')


def test_a_branch_that_has_begun_goes_on_where_it_began(tmp_path):
  """Whatever became of its trunk, and wherever the sweep lies now."""
  run = by_row(planned(('LSR', lsr()), ('TSLA', tsla(7.0))))['TSLA']
  config = plan.config_to_train(run, tmp_path / 'elsewhere')
  config.init.fork_from = config.init.fork_from.replace('@7', '@5')
  record(tmp_path / run.directory, config, 'interrupted', 40)
  assert plan.resolve_fork(run, tmp_path) == run, (
    'nothing was saved: it begins anew'
  )
  folder = tmp_path / run.directory / 'checkpoints'
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(40, {'step': jnp.zeros(1)})
  resolved = plan.resolve_fork(run, tmp_path)
  assert (resolved.trunk, resolved.first_epoch) == (run.trunk, 5)


def test_a_rehearsal_scales_every_duration():
  adapted = table.adapt(table.load_table('configs/sweeps/cifar100.py'), {}, 10)
  configs = {row.name: row.config for row in adapted.rows}
  assert {config.epochs for config in configs.values()} == {10}
  milestones = validate(configs['LSR']).optimizer.milestone_epochs
  assert milestones == (3, 6, 8)
  assert configs['TSLA(9)'].smoothing.drop_epochs == 9, 'as it is: 180 of 200'
  assert configs['TSLA-pre(6)'].smoothing.drop_epochs == 6
  assert configs['LSR'].smoothing.drop_epochs == -1, 'unset stays unset'
  assert adapted.name != 'cifar100', 'no published figures beside it'
  auto = lsr()
  auto.smoothing.schedule = 'auto'
  auto.smoothing.min_epochs, auto.smoothing.max_epochs = 4.0, 8.0
  auto.optimizer.warmup_epochs, auto.checkpoint_keep_epochs = 2.0, (2, 6)
  late = lsr()
  late.smoothing.schedule, late.smoothing.drop_epochs = 'two_stage', 5.0
  pair = Row('TSLA(5), late', late), Row('towards it', lsr(), 'TSLA(5), late')
  rows = table.adapt(Table('t', 'T', pair), {}, 5).rows
  drop = rows[0].config.smoothing.drop_epochs
  assert (rows[0].name, rows[1].teacher) == 2 * (f'TSLA({drop:g}), late',)
  assert (
    table.adapt(Table('t', 'T', pair), {}, None).rows[1].teacher == pair[0].name
  )
  adapted = table.adapt(Table('t', 'T', (Row('auto', auto),), 'nll'), {}, 5)
  assert adapted.primary == 'nll'
  short = adapted.rows[0].config
  assert (short.smoothing.min_epochs, short.smoothing.max_epochs) == (2, 4)
  assert short.optimizer.warmup_epochs == 1
  assert short.checkpoint_keep_epochs == (1, 3)


def test_rows_keep_their_names_where_nothing_is_rehearsed():
  for s in (112.5, 1000.0):
    row = Row(f'TSLA({s:g})', tsla(s))
    row.config.epochs = 2000
    assert (
      table.adapt(Table('t', 'T', (row,)), {}, None).rows[0].name == row.name
    )


def test_fields_are_set_in_all_rows():
  loaded = table.load_table('configs/sweeps/digits.py')
  fields = {'model.width': '8', 'data.mean': '(0.1,)', 'augment.flip': 'true'}
  adapted = table.adapt(loaded, fields, None)
  assert {row.config.model.width for row in adapted.rows} == {8}
  assert {row.config.augment.flip for row in adapted.rows} == {True}
  assert {row.config.data.mean for row in adapted.rows} == {(0.1,)}
  assert {row.config.model.width for row in loaded.rows} == {16}


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'seed': '3'}, 'config.seed=3: the table itself sets it'),
    ({'smoothing.drop_epochs': '3'}, 'the table itself sets it'),
    ({'model.widht': '3'}, r'config.model.widht: no such field'),
    ({'model.width': 'x'}, r"config.model.width = 'x': not of type int"),
    ({'model.width': '1.5'}, 'not of type int'),
    ({'augment.flip': 'maybe'}, 'not of type bool'),
  ],
)
def test_fields_that_cannot_be_set_are_explained(fields, message):
  with pytest.raises(InputError, match=message):
    table.adapt(table.load_table('configs/sweeps/digits.py'), fields, None)


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    ([('a', lsr()), ('a', tsla(4.0))], "2 rows are named 'a'"),
    ([('a', lsr(), 'b')], "has the teacher 'b'"),
    ([('a', tsla(12.0))], "row 'a': config.smoothing.drop_epochs = 12"),
  ],
)
def test_a_table_that_cannot_be_is_explained(rows, message):
  with pytest.raises(InputError, match=message) as error:
    planned(*rows)
  assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (None, r'no such file\n.*\n.*other\.py'),
    ('def get_table(:', 'SyntaxError'),
    ('1 / 0', 'ZeroDivisionError'),
    ('x = 1', "no function 'get_table'"),
    ('def get_table(): return 3', 'returned int'),
    (
      'from tsla.sweep.table import Table\n'
      "def get_table(): return Table('t', 'T', (), 'top2')",
      r"primary = 'top2'\n.*top1, top5, nll, brier, ece",
    ),
  ],
)
def test_a_table_file_that_cannot_be_read_is_explained(tmp_path, text, message):
  (tmp_path / 'other.py').touch()
  if text:
    (tmp_path / 'mine.py').write_text(text)
  with pytest.raises(InputError, match=message) as error:
    table.load_table(tmp_path / 'mine.py')
  assert len(str(error.value).splitlines()) <= 3


def test_a_plan_is_read_as_it_was_written(tmp_path, monkeypatch):
  rows = (Row('LSR', lsr()), Row('TSLA', tsla(7.0)))
  small = Table('t', 'ŷ', rows, primary='nll')
  disk = Disk(monkeypatch)
  outline.write(tmp_path, small, plan.plan(small, (0, 1), tmp_path), 'command')
  disk.assert_lasting(tmp_path / 'table.json')
  assert json.loads((tmp_path / 'table.json').read_text())['format'] == 1
  read = outline.read(tmp_path)
  assert (read['title'], read['rows']) == ('ŷ', ['LSR', 'TSLA'])
  assert read.pop('primary') == 'nll'
  (tmp_path / 'table.json').write_text(json.dumps(read))
  assert outline.read(tmp_path)['primary'] == 'top1'  # as before it was named
  assert [(r['row'], r['seed'], r['first_epoch']) for r in read['runs']] == [
    ('LSR', 0, 0),
    ('LSR', 1, 0),
    ('TSLA', 0, 7),
    ('TSLA', 1, 7),
  ]


def test_a_plan_of_a_newer_version_is_not_written_over(tmp_path):
  table_file = tmp_path / 'table.json'
  rows = Table('t', 'T', (Row('LSR', lsr()),))
  runs = plan.plan(rows, [0], tmp_path)
  table_file.write_text('{"format": 2}')
  with pytest.raises(InputError, match='format 2, of a newer version'):
    outline.write(tmp_path, rows, runs, 'command')
  assert table_file.read_text() == '{"format": 2}'
  table_file.write_text('{damaged')
  outline.write(tmp_path, rows, runs, 'command')
  assert outline.read(tmp_path)['title'] == 'T'


def test_a_folder_holds_one_table_and_no_run_beside_it(tmp_path):
  first, other = (
    Table(name, name, (Row('baseline', default_config()),))
    for name in ('first', 'other')
  )
  runs = plan.plan(first, (0,), tmp_path)
  outline.write(tmp_path, first, runs, 'command')
  before = (tmp_path / 'table.json').read_bytes()
  with pytest.raises(InputError, match="table 'first' was begun there"):
    outline.write(tmp_path, other, runs, 'command')
  with pytest.raises(InputError, match='a sweep is there'):
    RunDirectory(tmp_path, default_config())
  assert (tmp_path / 'table.json').read_bytes() == before
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run/config.json').write_text('{}')
  with pytest.raises(InputError, match='a single run is there'):
    outline.write(tmp_path / 'run', first, runs, 'command')
