"""A run whose config is changed: refused, or gone on with when allowed."""

import hashlib
import json
import shutil

import faults
import numpy as np
import pytest
from support import bad_weights, changed

from tsla.config import tables
from tsla.errors import InputError
from tsla.runs.directory import RunDirectory, read_record, read_run
from tsla.sweep import plan, worker
from tsla.sweep.table import Row, Table
from tsla.training import loop
from tsla.training.reporter import Diverged

pytestmark = pytest.mark.usefixtures('compile_once')


@pytest.fixture
def stopped(finished, tmp_path):
  """The run as it was after 8 of 16 updates, at its switch."""
  workdir = shutil.copytree(finished, tmp_path / 'run')
  (workdir / 'status.json').unlink()
  for step in ('12', '16'):
    shutil.rmtree(workdir / 'checkpoints' / step, ignore_errors=True)
  return workdir


def refused(config, workdir, message, **options):
  def files():
    return {
      path: path.stat().st_mtime_ns
      for path in workdir.rglob('*')
      if path.name != '.lock'
    }

  before = files()
  with pytest.raises(InputError, match=message) as error:
    loop.train_and_evaluate(config, workdir, **options)
  assert len(str(error.value).splitlines()) <= 3
  assert files() == before


def test_a_changed_config_is_refused_with_its_difference(config, stopped):
  other = changed(config, smoothing__theta=0.1, seed=3)
  with pytest.raises(InputError) as error:
    loop.train_and_evaluate(other, stopped)
  first, second, third = str(error.value).splitlines()
  assert first == f'workdir = {stopped}: holds a run of another config'
  assert second == (
    '  allowed: the same; now seed = 0 there, 3 here; '
    'smoothing.theta = 0.4 there, 0.1 here'
  )
  assert third.endswith('or --allow_changed_config')


def test_an_allowed_change_takes_effect_at_once_and_is_on_record(
  config, stopped
):
  """The saved θ of update 8 is 0; the changed run still smooths there."""
  other = changed(
    config,
    smoothing__theta=0.3,
    smoothing__drop_epochs=3.0,
    optimizer__learning_rate=0.05,
  )
  loop.train_and_evaluate(other, stopped, allow_changed_config=True)
  rows = [row for row in faults.rows(stopped) if row['kind'] == 'train']
  assert [row['step'] for row in rows] == list(range(1, 17))
  thetas = [row['theta'] for row in rows]
  expected = [0.4] * 8 + [0.3] * 4 + [0.0] * 4
  np.testing.assert_allclose(thetas, expected, rtol=1e-6)
  rates = [row['learning_rate'] for row in rows]
  np.testing.assert_allclose(rates, [0.1] * 8 + [0.05] * 8, rtol=1e-6)
  now = json.loads((stopped / 'config.json').read_text())
  assert now['smoothing.theta'] == 0.3
  then = json.loads((stopped / 'config-until-8.json').read_text())
  assert then['smoothing.theta'] == 0.4
  why = 'its config in mid-run: see config-until-8.json'
  assert read_record(stopped).standing() == ('changed', why)
  # From here on it is the changed config's run.
  assert (
    loop.train_and_evaluate(other, stopped) == faults.status(stopped)['test']
  )
  with pytest.raises(InputError, match='another config'):
    loop.train_and_evaluate(config, stopped)


@pytest.mark.ci
def test_a_state_of_other_shapes_is_refused_though_allowed(config, stopped):
  for fields, name in (
    ({'model__width': 8}, 'batch_stats/'),
    ({'optimizer__name': 'adamw'}, 'opt_state/'),
  ):
    refused(
      changed(config, **fields),
      stopped,
      rf'checkpoint of update 8: {name}.* there and .* here',
      allow_changed_config=True,
    )


@pytest.mark.parametrize('epochs', [4, 3])
def test_a_change_with_nothing_left_to_train_is_refused(
  config, finished, epochs
):
  """It would name a config that no update was made with."""
  refused(
    changed(config, smoothing__theta=0.3, epochs=epochs),
    finished,
    rf'update 16, and the changed run ends at update {4 * epochs}',
    allow_changed_config=True,
  )


def test_a_first_start_that_failed_stands_in_nobody_s_way(config, tmp_path):
  for path in bad_weights(tmp_path).values():
    with pytest.raises(InputError, match=r'config\.model\.weights'):
      loop.train_and_evaluate(
        changed(config, model__weights=str(path)), tmp_path / 'run'
      )
  with RunDirectory(tmp_path / 'run', config).claim('f' * 64):
    pass  # as far as the corrected command can be refused
  # Also where it failed in the first compiled call, for want of memory.
  large = RunDirectory(tmp_path / 'run', changed(config, batch_size=32))
  with large.claim('f' * 64):
    large.begin(0, 8)
    with large.log(0):
      pass
  with RunDirectory(tmp_path / 'run', config).claim('f' * 64):
    pass


@pytest.mark.slow
def test_a_run_that_diverged_early_may_go_on_at_another_rate(config, tmp_path):
  diverges = changed(config, optimizer__learning_rate=1e30)
  with pytest.raises(Diverged):
    loop.train_and_evaluate(diverges, tmp_path)
  with pytest.raises(InputError, match='another config'):
    loop.train_and_evaluate(config, tmp_path)
  loop.train_and_evaluate(config, tmp_path, allow_changed_config=True)
  loop.train_and_evaluate(config, tmp_path / 'alone')
  assert faults.rows(tmp_path) == faults.rows(tmp_path / 'alone')


OWN = """
import optax
from flax import linen as nn
import tsla


def soft(strength: float = 1.0):
  def penalty(z, labels, y_hat, kept):
    return strength * z.max(-1)
  return tsla.Method(tsla.penalised(penalty))


def ramp(theta, durations):
  return tsla.two_stage(theta, durations.at('smoothing.drop'))


class Net(nn.Module):
  classes: int

  @nn.compact
  def __call__(self, x, *, train):
    return nn.Dense(self.classes, name='fc')(x.reshape(len(x), -1))


def net(num_classes):
  return Net(num_classes)
"""


@pytest.fixture
def own(config, tmp_path):
  """The config of a run with a method and a network of one's own."""
  (tmp_path / 'mine.py').write_text(OWN)
  return changed(
    config,
    epochs=2,
    checkpoint_keep_epochs=(1,),
    model__name=f'{tmp_path}/mine.py:net',
    smoothing__method=f'{tmp_path}/mine.py:soft',
    smoothing__schedule='constant',
  )


@pytest.mark.ci
def test_a_run_with_an_edited_file_is_refused_by_name(own, tmp_path):
  mine, run = tmp_path / 'mine.py', tmp_path / 'run'
  result = loop.train_and_evaluate(own, run)
  kept = json.loads((run / 'data.json').read_text())['parts']
  digest = hashlib.sha256(OWN.encode()).hexdigest()
  assert kept == {'smoothing.method': digest, 'model.name': digest}
  for field in kept:
    assert (run / f'parts/{field}.py').read_text() == OWN
  mine.write_text(OWN + '# edited\n')
  message = (
    f'another smoothing.method: {mine}:soft was edited since\n.*SHA-256 '
    f'{digest[:12]}… there, (?!{digest[:12]}).* here\n'
    f'.*{run}/parts/smoothing.method.py'
  )
  for stop in (False, True):
    if stop:  # after 4 of 8 updates
      (run / 'status.json').write_text('{"state": "running", "step": 4}')
      shutil.rmtree(run / 'checkpoints/8')
    for allow in (False, True):
      refused(own, run, message, allow_changed_config=allow)
  (tmp_path / 'moved.py').write_text(OWN)  # it is its content that counts
  moved = changed(
    own,
    model__name=f'{tmp_path}/moved.py:net',
    smoothing__method=f'{tmp_path}/moved.py:soft',
  )
  assert loop.train_and_evaluate(moved, run) == result


@pytest.mark.ci
def test_a_fork_from_a_run_with_another_file_is_refused(own, tmp_path):
  mine, trunk = tmp_path / 'mine.py', tmp_path / 'trunk'
  loop.train_and_evaluate(own, trunk)
  branch = changed(
    own,
    init__fork_from=f'{trunk}@1',
    smoothing__schedule=f'{mine}:ramp',
    smoothing__drop_epochs=1.0,
  )
  loop.train_and_evaluate(branch, tmp_path / 'branch')
  rows = [r for r in faults.rows(tmp_path / 'branch') if r['kind'] == 'train']
  assert [round(r['theta'], 6) for r in rows] == [0.4] * 4 + [0.0] * 4
  # Its own schedule may be in another file: what counts is theta.
  other = tmp_path / 'other.py'
  other.write_text(OWN + '# edited\n')
  branch.smoothing.schedule = f'{other}:ramp'
  loop.train_and_evaluate(branch, tmp_path / 'again')
  # The trunk is read although the file that it named is another one now.
  mine.write_text(OWN.replace('z.max(-1)', 'z.min(-1)'))
  with pytest.raises(
    InputError,
    match=r'@1.: config.smoothing.method = .* is '
    'another file there: SHA-256',
  ):
    loop.train_and_evaluate(branch, tmp_path / 'edited')
  assert not (tmp_path / 'edited').exists()


@pytest.mark.ci
def test_a_sweep_takes_no_trunk_and_no_run_with_an_edited_file(own, tmp_path):
  two_stage = changed(
    own, smoothing__schedule='two_stage', smoothing__drop_epochs=1.0
  )
  rows = (Row('LSR', own), Row('TSLA', two_stage))
  table, workdir = Table('t', 'T', rows), tmp_path / 'sweep'
  trunk, branch = plan.plan(table, [0], workdir)
  assert branch.trunk == trunk.directory
  assert worker.train(trunk, workdir).exit_code == 0
  (tmp_path / 'mine.py').write_text(OWN + '# edited\n')
  outcome = worker.train(branch, workdir)
  assert outcome.exit_code == 2 and 'edited meanwhile' in outcome.text
  assert not (workdir / branch.directory).exists()
  anew, _ = plan.plan(table, [0], workdir)
  assert anew.directory != trunk.directory


@pytest.mark.ci
def test_a_run_is_read_when_its_files_are_gone(own, tmp_path):
  teacher = tmp_path / 'teacher'
  loop.train_and_evaluate(own, teacher)
  (tmp_path / 'mine.py').unlink()
  student = changed(
    own,
    model__name='resnet8',
    smoothing__method='label_smoothing',
    smoothing__target='teacher',
    teacher__run=str(teacher),
  )
  loop.train_and_evaluate(student, tmp_path / 'student')
  config = read_run(teacher, 'where').config
  assert config.model.name == f'{teacher}/parts/model.name.py:net'
  assert tables.method_of(config.smoothing).lowest == 0
