"""Another run's directory, read."""

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import jax.numpy as jnp
import pytest
from support import ROOT, Disk

from tsla.config.forms import default_config, flatten, unflatten
from tsla.errors import InputError
from tsla.files import NewerFormat
from tsla.runs import directory as runs
from tsla.runs.checkpoint import Checkpoints
from tsla.runs.directory import (
  RunDirectory,
  note_failure,
  read_record,
  read_run,
  state_of,
)


@pytest.fixture
def run(tmp_path):
  config = default_config()
  config.optimizer.milestone_epochs = (60.0, 120.0)
  directory = RunDirectory(tmp_path, config)
  with directory.claim('f' * 64):
    directory.begin(0, 8)
    with directory.log(0) as log:
      log.write('train', 4, loss=0.5)
      log.write('eval', 4, loss=float('nan'))
  return directory


def test_what_a_resume_reads_is_on_the_disk_before_it_has_its_name(
  run, monkeypatch
):
  disk = Disk(monkeypatch)
  with run.claim('f' * 64):
    run.begin(4, 8)
    with run.log(4):
      pass
  names = ('config', 'data', 'environment', 'status')
  for name in (*(f'{name}.json' for name in names), 'metrics.jsonl'):
    disk.assert_whole_or_nothing(run.path / name)


def test_rows_are_on_the_disk_before_the_state_that_they_belong_to(
  tmp_path, monkeypatch
):
  disk = Disk(monkeypatch)
  directory = RunDirectory(tmp_path / 'new', default_config())
  log_file = tmp_path / 'new/metrics.jsonl'
  manifest = directory.checkpoints / '8.partial' / 'manifest.json'
  with (
    directory.claim('f' * 64),
    directory.log(0) as log,
    Checkpoints(directory.checkpoints) as checkpoints,
  ):
    log.write('train', 8, loss=0.25)
    checkpoints.save(8, {'x': jnp.zeros(2)}, log=log)
    checkpoints.wait()
    disk.assert_before(manifest, log_file, directory.path, tmp_path)
    disk.assert_lasting(directory.checkpoints / '8', directory.path)
    position = checkpoints.run_of(8)['log']
  content = log_file.read_bytes()
  assert position == {
    'bytes': len(content),
    'sha256': hashlib.sha256(content).hexdigest(),
  }


def test_what_was_written_is_read(run):
  with (run.path / 'metrics.jsonl').open('a') as file:
    file.write('{"kind": "train", "st')  # by a process that was killed
  record = read_run(run.path, 'x')
  assert record.config.optimizer.milestone_epochs == (60.0, 120.0)
  assert record.fingerprint == 'f' * 64
  assert (record.status['state'], record.status['step']) == ('running', 0)
  assert [(row['kind'], row['loss']) for row in record.rows] == [
    ('train', 0.5),
    ('eval', None),
  ]
  assert record.checkpoints == run.checkpoints


@pytest.mark.parametrize(
  ('name', 'text', 'message'),
  [
    ('status.json', None, 'no status.json is there'),
    ('metrics.jsonl', None, 'no metrics.jsonl is there'),
    ('data.json', '{"finger', 'Unterminated'),
    ('data.json', '{}', 'fingerprint'),
    ('config.json', '[]', 'no JSON object'),
    ('config.json', '{"sede": 1}', 'no such field'),
    ('config.json', '{"seed": -1}', 'config.seed = -1'),
    ('config.json', '{"seed": "1"}', "config.seed = '1'"),
  ],
)
def test_what_is_no_run_is_named(run, name, text, message):
  (run.path / name).unlink()
  if text is not None:
    (run.path / name).write_text(text)
  with pytest.raises(InputError, match=message) as error:
    read_run(run.path, "config.teacher.run = 'runs/a'")
  assert str(error.value).startswith("config.teacher.run = 'runs/a': ")
  assert len(str(error.value).splitlines()) <= 3


def test_a_config_survives_its_form_on_disk():
  config = default_config()
  config.seed, config.data.mean = 7, (0.1, 0.2, 0.3)
  config.checkpoint_keep_epochs = (1, 2)
  again = unflatten(json.loads(json.dumps(flatten(config))))
  assert again.to_json() == config.to_json()
  assert again.data.mean == (0.1, 0.2, 0.3) and again.is_locked


def test_a_run_that_is_refused_leaves_no_folder(tmp_path):
  path = tmp_path / 'run'
  directory = RunDirectory(path, default_config())
  with pytest.raises(InputError), directory.claim('f' * 64):
    assert (path / '.lock').exists()
    raise InputError('refused')
  assert not path.exists()


def test_a_reader_tells_a_run_that_lives_from_one_that_was_killed(
  run, monkeypatch
):
  where = f'on {socket.gethostname()}, pid {os.getpid()}'
  assert read_record(run.path).standing() == ('running', where)
  assert state_of(run.path) == 'running'
  monkeypatch.setenv('TZ', 'UTC')
  time.tzset()
  killed = 86400 * 365 + 3600
  os.utime(run.path / 'status.json', (killed, killed))
  since = f'or dead since 1971-01-01 01:00:00, {where}'
  assert read_record(run.path).standing() == ('killed', since)
  assert state_of(run.path) == 'killed'
  # It goes on, and shows it again and again.
  monkeypatch.setattr(runs, '_BEAT_SECONDS', 0.01)
  with run.claim('f' * 64):
    wait_for(lambda: state_of(run.path) == 'running')
  # An earlier version did not say where it runs.
  (run.path / 'status.json').write_text('{"state": "running", "step": 0}')
  os.utime(run.path / 'status.json', (killed, killed))
  reason = 'still running, or killed'
  assert read_record(run.path).standing() == ('running', reason)


def wait_for(condition):
  deadline = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


@pytest.mark.parametrize('lost', ['lock', 'replaced', 'directory'])
def test_a_run_that_lost_its_directory_is_not_done(tmp_path, lost):
  directory = RunDirectory(tmp_path / 'run', default_config())
  with directory.claim('f' * 64):
    directory.begin(0, 8)
    lose(directory.path, lost)
    with pytest.raises(InputError, match='deleted or replaced') as error:
      directory.write_status('done', 8)
  assert len(str(error.value).splitlines()) == 3
  assert state_of(directory.path) != 'done'


def lose(path, what):
  if what == 'directory':
    shutil.rmtree(path)
  else:
    (path / '.lock').unlink()
  if what == 'replaced':
    (path / '.lock').touch()


def test_a_run_that_lost_its_directory_ends_wherever_it_is(tmp_path):
  code = """
import sys, threading
from tsla.config.forms import default_config
from tsla.runs import directory
directory._BEAT_SECONDS = 0.05
run = directory.RunDirectory(sys.argv[1], default_config())
with run.claim('f' * 64):
  run.begin(0, 8)
  print('ready', flush=True)
  threading.Event().wait()
"""
  process = subprocess.Popen(
    [sys.executable, '-c', code, str(tmp_path / 'run')],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'ready\n'
  lose(tmp_path / 'run', 'directory')
  try:
    _, error = process.communicate(timeout=60)
  finally:
    process.kill()
  assert process.returncode == 2
  assert 'its .lock was deleted or replaced' in error
  assert len(error.splitlines()) == 3
  assert not (tmp_path / 'run').exists()


def test_a_start_clears_what_a_kill_and_a_failure_left(run):
  for name in ('8', '4.old', '12.partial', '12.partial.orbax-checkpoint-tmp'):
    (run.checkpoints / name).mkdir(parents=True)
    (run.checkpoints / name / 'file').touch()
  note_failure(run.path, 'of an earlier start')
  with run.claim('f' * 64):
    run.begin(8, 8)
  assert [path.name for path in run.checkpoints.iterdir()] == ['8']
  assert not (run.path / 'failure.txt').exists()


@pytest.mark.parametrize('code', [errno.EIO, errno.EFBIG, errno.ENOSPC])
def test_what_the_disk_refuses_while_a_run_begins_is_three_lines(
  tmp_path, monkeypatch, code
):
  def refuse(handle):
    raise OSError(code, os.strerror(code))

  directory = RunDirectory(tmp_path / 'run', default_config())
  with (
    pytest.raises(InputError, match=os.strerror(code)) as error,
    directory.claim('f' * 64),
  ):
    monkeypatch.setattr(os, 'fsync', refuse)
    directory.begin(0, 8)
  assert len(str(error.value).splitlines()) == 3


def test_a_disk_that_is_full_for_tensorboard_ends_the_run_in_three_lines(
  run, monkeypatch
):
  class Full:
    def __init__(self, path):
      self.room = 100

    def write(self, data):
      self.room -= 1
      if self.room < 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self):
      pass

    close = flush

  monkeypatch.setattr('tensorboardX.record_writer.open_file', Full)
  with (
    pytest.raises(InputError, match='No space left') as error,
    run.claim('f' * 64),
    run.log(0) as log,
  ):
    for step in range(1000):
      log.write('train', step, loss=0.5)
  assert len(str(error.value).splitlines()) == 3


def test_a_run_that_is_given_up_is_at_its_newest_checkpoint(tmp_path):
  directory = RunDirectory(tmp_path, default_config())
  for saved in ((), (4,), (4, 8, 12)):
    for step in saved:
      (directory.checkpoints / str(step)).mkdir(parents=True, exist_ok=True)
    directory.give_up('stuck')
    status = json.loads((tmp_path / 'status.json').read_text())
    assert status.pop('seconds') >= 0
    assert status == {'state': 'stuck', 'step': max(saved, default=0)}


def test_the_time_of_all_processes_adds_up(tmp_path):
  """One was interrupted after 100 s, one killed 50 s after it had begun."""
  status = tmp_path / 'status.json'
  ended = {'state': 'interrupted', 'step': 4, 'seconds': 100.0}
  status.write_text(json.dumps(ended))
  with RunDirectory(tmp_path, default_config()).claim('f' * 64):
    pass
  directory = RunDirectory(tmp_path, default_config())
  with directory.claim('f' * 64):
    directory.begin(0, 8)
  begun = json.loads(status.read_text())
  assert 100 <= begun['seconds'] < 110
  os.utime(status, (begun['at'] + 50, begun['at'] + 50))
  known = begun['seconds'] + 50
  assert read_record(tmp_path).status['seconds'] == pytest.approx(known, abs=1)
  RunDirectory(tmp_path, default_config()).write_status('done', 8)
  done = json.loads(status.read_text())
  assert done['seconds'] == pytest.approx(known, abs=5)
  os.utime(status, (1, 1))  # of a run that has ended it says nothing
  assert read_record(tmp_path).status['seconds'] == done['seconds']


def test_config_and_log_say_of_which_format_they_are(run):
  assert json.loads((run.path / 'config.json').read_text())['format'] == 1
  first, *rows = (run.path / 'metrics.jsonl').read_text().splitlines()
  assert json.loads(first) == {'kind': 'format', 'step': 0, 'format': 1}
  assert len(rows) == 2
  with run.log(3) as log:  # all rows are cut away, and the run may change
    assert not run.has_begun
    log.write('train', 4)
    log.write('train', 8)
  kinds = [
    json.loads(line)['kind']
    for line in (run.path / 'metrics.jsonl').read_text().splitlines()
  ]
  assert kinds == ['format', 'train', 'train']


def test_a_run_without_formats_is_read_and_gone_on_with(run):
  """As versions wrote it that did not know of formats."""
  before = read_run(run.path, 'x')
  config = json.loads((run.path / 'config.json').read_text())
  del config['format']
  (run.path / 'config.json').write_text(json.dumps(config))
  log = run.path / 'metrics.jsonl'
  log.write_text(log.read_text().split('\n', 1)[1])
  assert read_run(run.path, 'x') == before
  again = RunDirectory(run.path, before.config)
  with again.claim('f' * 64), again.log(4) as rows:
    rows.write('train', 8)
  assert [row['step'] for row in read_run(run.path, 'x').rows] == [4, 4, 8]


@pytest.mark.parametrize('name', ['config.json', 'metrics.jsonl'])
def test_a_run_of_a_newer_format_is_refused_by_name(run, name):
  path, config = run.path / name, read_run(run.path, 'x').config
  text = path.read_text()
  path.write_text(text.replace('"format": 1', '"format": 2'))
  assert path.read_text() != text
  with pytest.raises(InputError) as error:
    read_run(run.path, 'config.teacher.run')
  first, *rest = str(error.value).splitlines()
  assert first.startswith(f'config.teacher.run: {path}: format 2')
  assert len(rest) == 2 and 'update this program' in rest[1]
  with pytest.raises(NewerFormat, match='format 2'):
    RunDirectory(run.path, config)


def test_a_line_that_is_no_row_is_named_or_mended(run):
  """A power cut may leave anything where rows were not on the disk yet."""
  path = run.path / 'metrics.jsonl'
  path.write_text(path.read_text() + '\0\0\n')
  with pytest.raises(InputError, match='line 4: '):
    read_run(run.path, 'x')
  with run.log(4):
    pass
  assert len(read_run(run.path, 'x').rows) == 2
