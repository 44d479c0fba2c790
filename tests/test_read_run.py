"""Another run's directory, read."""

import json

import pytest
from support import Disk

from tsla.config.forms import default_config, flatten, unflatten
from tsla.errors import InputError
from tsla.runs.directory import RunDirectory, read_run


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


def test_what_was_written_is_read(run):
  with (run.path / 'metrics.jsonl').open('a') as file:
    file.write('{"kind": "train", "st')  # by a process that was killed
  record = read_run(run.path, 'x')
  assert record.config.optimizer.milestone_epochs == (60.0, 120.0)
  assert record.fingerprint == 'f' * 64
  assert record.status == {'state': 'running', 'step': 0}
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
    ('config.json', '[]', 'list'),
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


def test_a_run_that_is_given_up_is_at_its_newest_checkpoint(tmp_path):
  directory = RunDirectory(tmp_path, default_config())
  for saved in ((), (4,), (4, 8, 12)):
    for step in saved:
      (directory.checkpoints / str(step)).mkdir(parents=True, exist_ok=True)
    directory.give_up('stuck')
    status = json.loads((tmp_path / 'status.json').read_text())
    assert status == {'state': 'stuck', 'step': max(saved, default=0)}
