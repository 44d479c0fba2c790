"""A run's states know their run, their step and their log."""

import contextlib
import json
import shutil

import faults
import numpy as np
import pytest
from support import changed

from tsla.data import datasets
from tsla.errors import InputError
from tsla.runs import log as log_lib
from tsla.runs import manifest
from tsla.training import loop

pytestmark = pytest.mark.usefixtures('compile_once')
CLOCK = ('images_per_second', 'seconds')


@pytest.fixture
def stopped(finished, tmp_path):
  """The run without its last state, its log whole."""
  workdir = shutil.copytree(finished, tmp_path / 'run')
  (workdir / 'status.json').unlink()
  shutil.rmtree(workdir / 'checkpoints/16')
  return workdir


def rows(workdir):
  return [
    {name: value for name, value in row.items() if name not in CLOCK}
    for row in faults.rows(workdir)
  ]


def arrays(workdir):
  return manifest.read(workdir / 'checkpoints/16').arrays


def refused(config, workdir, *texts, **options):
  with pytest.raises(InputError) as error:
    loop.train_and_evaluate(config, workdir, **options)
  assert len(str(error.value).splitlines()) <= 3
  for text in texts:
    assert text in str(error.value)


@contextlib.contextmanager
def without(path):
  """`path` is not there meanwhile."""
  aside = path.with_name('aside')
  path.rename(aside)
  yield
  aside.rename(path)


@pytest.mark.ci
def test_a_run_that_is_killed_before_its_first_state_decides_again(
  config, tmp_path
):
  """The log had the probe of update 0 by then, no state had its decision."""
  config = changed(
    config,
    epochs=2,
    smoothing__schedule='auto',
    smoothing__rule='optimal',
    smoothing__drop_epochs=-1.0,
    variance__every_epochs=1,
    variance__num_batches=3,
    variance__mode='last_layer',
  )
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  loop.train_and_evaluate(config, whole)
  shutil.copytree(whole, killed)
  shutil.rmtree(killed / 'checkpoints')
  (killed / 'status.json').write_text('{"state": "running", "step": 0}')
  lines = (killed / 'metrics.jsonl').read_text().splitlines(keepends=True)
  assert json.loads(lines[1])['kind'] == 'probe'
  (killed / 'metrics.jsonl').write_text(''.join(lines[:4]))
  loop.train_and_evaluate(config, killed)
  assert rows(killed) == rows(whole)


@pytest.mark.ci
def test_a_fork_that_is_killed_before_its_first_state_has_its_rows_once(
  config, tmp_path
):
  probed = changed(
    config,
    variance__every_epochs=1,
    variance__num_batches=3,
    variance__mode='last_layer',
    checkpoint_keep_epochs=(2,),
  )
  trunk, branch = tmp_path / 'trunk', tmp_path / 'branch'
  endless = changed(
    probed, smoothing__schedule='constant', smoothing__drop_epochs=-1.0
  )
  loop.train_and_evaluate(endless, trunk)
  forked = changed(probed, init__fork_from=f'{trunk}@2')
  loop.train_and_evaluate(forked, branch)
  whole = rows(branch)
  shutil.rmtree(branch / 'checkpoints')
  (branch / 'status.json').write_text('{"state": "running", "step": 8}')
  text = (branch / 'metrics.jsonl').read_text().splitlines(keepends=True)
  upto = next(i for i, line in enumerate(text) if json.loads(line)['step'] == 9)
  (branch / 'metrics.jsonl').write_text(''.join(text[:upto]))
  loop.train_and_evaluate(forked, branch)
  assert rows(branch) == whole


@pytest.mark.ci
def test_what_is_logged_after_the_state_is_logged_again(
  config, finished, stopped
):
  # Another process's rows, that no state refers to.
  with (stopped / 'metrics.jsonl').open('a') as file:
    file.write('{"kind": "train", "step": 12, "loss": 7.0}\nno row\n')
  loop.train_and_evaluate(config, stopped)
  assert rows(stopped) == rows(finished)
  assert arrays(stopped) == arrays(finished)


@pytest.mark.parametrize('what', ['changed', 'shorter', 'missing', 'garbage'])
def test_a_log_that_is_not_the_states_is_named(config, stopped, what):
  path = stopped / 'metrics.jsonl'
  text = path.read_text()
  half = text.index('\n', len(text) // 3) + 1
  path.unlink()
  if what != 'missing':
    contents = {
      'changed': text.replace('"accuracy": 0', '"accuracy": 1', 1),
      'shorter': text[:half],
      'garbage': f'{text[:half]}?\n{text[half:]}',
    }
    path.write_text(contents[what])
  refused(config, stopped, 'metrics.jsonl', 'newest checkpoint was saved with')


@pytest.mark.ci
def test_a_state_under_another_update_is_passed_over(
  config, finished, stopped, capsys
):
  (stopped / 'checkpoints/12').rename(stopped / 'checkpoints/9999')
  loop.train_and_evaluate(config, stopped)
  told = 'the checkpoint of update 9999 is damaged: it is the state of update'
  assert f'{told} 12' in capsys.readouterr().err
  assert rows(stopped) == rows(finished)
  assert arrays(stopped) == arrays(finished)


def test_a_state_of_another_run_is_refused(config, stopped, tmp_path):
  other = changed(config, seed=1, epochs=3)
  loop.train_and_evaluate(other, tmp_path / 'other')
  shutil.rmtree(stopped / 'checkpoints/12')
  shutil.copytree(tmp_path / 'other/checkpoints/12', stopped / 'checkpoints/12')
  refused(config, stopped, 'another config', 'seed = 1 there, 0 here')
  # Whatever its folder says that it is.
  (stopped / 'config.json').unlink()
  refused(changed(config, seed=2), stopped, 'seed = 1 there, 2 here')


def test_a_fork_from_a_state_of_another_run_is_refused(
  config, finished, tmp_path
):
  trunk = shutil.copytree(finished, tmp_path / 'trunk')
  fields = json.loads((trunk / 'config.json').read_text())
  fields['augment.flip'] = True  # the states were saved without
  (trunk / 'config.json').write_text(json.dumps(fields))
  forked = changed(
    config, augment__flip=True, init__fork_from=f'{trunk}@3', epochs=5
  )
  refused(forked, tmp_path / 'branch', 'is of another run')


def test_a_damaged_state_of_a_teacher_is_no_teacher(config, finished, tmp_path):
  run = shutil.copytree(finished, tmp_path / 'teacher')
  config = changed(
    config, smoothing__target='teacher', teacher__run=str(run), epochs=3
  )
  (largest,) = sorted(
    (run / 'checkpoints/16').rglob('*'), key=lambda path: path.stat().st_size
  )[-1:]
  content = largest.read_bytes()
  largest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  refused(config, tmp_path / 'student', str(run), 'damaged')


def test_a_finished_run_is_looked_at_again(config, finished, tmp_path, capsys):
  run = shutil.copytree(finished, tmp_path / 'run')
  path = tmp_path / 'digits.npz'
  shutil.copy(config.data.path, path)
  moved = changed(config, data__path=str(path))
  result = loop.train_and_evaluate(moved, run)
  assert capsys.readouterr().out == f'{run}: this run is finished\n'

  with without(path):
    assert loop.train_and_evaluate(moved, run) == result
  assert 'its data cannot be' in capsys.readouterr().out

  with np.load(path) as data:
    other = dict(data, train_labels=data['train_labels'][::-1])
  np.savez(path, **other)
  refused(moved, run, 'another data set')

  with without(run / 'checkpoints/16'):
    refused(config, run, 'checkpoints/16')


@pytest.mark.ci
def test_what_another_process_finished_meanwhile_counts(
  config, finished, tmp_path, monkeypatch
):
  """Both begin; while one waits for its data the other one trains."""
  run, load = tmp_path / 'run', datasets.load_dataset

  def wait(options):
    if not run.exists():
      shutil.copytree(finished, run)
    return load(options)

  monkeypatch.setattr(datasets, 'load_dataset', wait)
  before = (finished / 'metrics.jsonl').read_bytes()
  refused(changed(config, optimizer__learning_rate=0.3), run, 'another config')
  assert loop.train_and_evaluate(config, run) == faults.status(run)['test']
  assert (run / 'metrics.jsonl').read_bytes() == before


@pytest.mark.ci
def test_the_log_is_on_the_disk_before_a_state_that_refers_to_it(
  config, tmp_path, monkeypatch
):
  events = []
  sync, write = log_lib.RunLog.sync, manifest.write

  def spy_sync(log):
    sync(log)
    events.append(log.position()['bytes'])

  def spy_write(folder, arrays, run):
    if 'log' in run:  # predictions have none
      events.append(run['log'])
    write(folder, arrays, run)

  monkeypatch.setattr(log_lib.RunLog, 'sync', spy_sync)
  monkeypatch.setattr(manifest, 'write', spy_write)
  loop.train_and_evaluate(changed(config, epochs=3), tmp_path / 'run')
  synced, saved = events[::2], events[1::2]
  assert len(saved) == 3
  content = (tmp_path / 'run/metrics.jsonl').read_bytes()
  for size, position in zip(synced, saved, strict=True):
    assert size >= position['bytes']
    last = content[: position['bytes']].splitlines()[-1]
    assert json.loads(last)['kind'] in ('train', 'switch')
