"""A run whose config is changed: refused, or gone on with when allowed."""

import json
import shutil

import faults
import numpy as np
import pytest
from support import bad_weights, small_config, write_digits_npz

from tsla.errors import InputError
from tsla.runs.directory import RunDirectory
from tsla.training import loop
from tsla.training.reporter import Diverged

pytestmark = pytest.mark.usefixtures('compile_once')


def changed(config, **fields):
  """A copy with `section__name` set."""
  other = config.copy_and_resolve_references()
  for name, value in fields.items():
    *section, leaf = name.split('__')
    (other[section[0]] if section else other)[leaf] = value
  return other


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  return small_config(write_digits_npz(folder / 'digits.npz'))


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  loop.train_and_evaluate(config, workdir)
  return workdir


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
  # From here on it is the changed config's run.
  assert (
    loop.train_and_evaluate(other, stopped) == faults.status(stopped)['test']
  )
  with pytest.raises(InputError, match='another config'):
    loop.train_and_evaluate(config, stopped)


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
