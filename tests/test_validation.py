"""Selection looks at a part of the training set, never at the test set."""

import json

import pytest
from support import changed, small_config, write_digits_npz

from tsla.config import forms
from tsla.errors import InputError
from tsla.runs.directory import read_record, read_run
from tsla.training import loop

pytestmark = pytest.mark.usefixtures('compile_once')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  config = small_config(write_digits_npz(folder / 'digits.npz', train=80))
  return changed(config, data__validation=0.2, epochs=5)


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run') / 'run'
  config = changed(config, eval_test_curve=False)
  return workdir, loop.train_and_evaluate(config, workdir)


def rows(workdir, kind):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [row for row in map(json.loads, lines) if row['kind'] == kind]


@pytest.mark.ci
def test_the_test_set_is_looked_at_once_and_the_validation_split_always(
  finished,
):
  workdir, test = finished
  (row,) = rows(workdir, 'eval')
  assert row['count'] == 40 and row['epoch'] == 5
  assert test['top1'] == row['top1']
  validations = rows(workdir, 'validation')
  assert [row['epoch'] for row in validations] == [1, 2, 3, 4, 5]
  # Of 80 images a fifth of each class, rounded.
  assert {row['count'] for row in validations} == {16}


@pytest.mark.ci
def test_the_curve_on_the_test_set_is_an_option_and_changes_nothing_else(
  config, finished, tmp_path
):
  test = loop.train_and_evaluate(config, tmp_path)
  assert test == finished[1]
  assert [row['epoch'] for row in rows(tmp_path, 'eval')] == [1, 2, 3, 4, 5]
  assert rows(tmp_path, 'validation') == rows(finished[0], 'validation')


@pytest.mark.ci
def test_the_best_checkpoint_is_the_best_on_the_validation_split(
  config, tmp_path, monkeypatch
):
  """The evaluations are made up: the test set is best where it is not."""
  build = loop.build
  found = {'validation': [0.1, 0.9, 0.3, 0.2, 0.4], 'eval': [0.9, 0.1, 0, 0, 0]}

  def made_up(*args):
    run = build(*args)
    evaluate = {
      kind: lambda state, kind=kind, real=real: (
        real(state) | {'top1': found[kind][int(state.step) // per_epoch - 1]}
      )
      for kind, real in run.evaluate.items()
    }
    return run._replace(evaluate=evaluate)

  per_epoch = 4
  monkeypatch.setattr(loop, 'build', made_up)
  loop.train_and_evaluate(config, tmp_path / 'a')
  kept = {int(p.name) for p in (tmp_path / 'a/checkpoints').iterdir()}
  assert kept == {8, 16, 20}
  none = changed(config, data__validation=0.0)
  per_epoch = 5
  loop.train_and_evaluate(none, tmp_path / 'b')
  kept = {int(p.name) for p in (tmp_path / 'b/checkpoints').iterdir()}
  assert kept == {20, 25}  # nothing to select by


def test_a_config_of_before_is_read_or_refused_by_name(
  config, finished, tmp_path
):
  workdir, _ = finished
  fields = json.loads((workdir / 'config.json').read_text())
  for name in ('config', 'data', 'status'):
    text = (workdir / f'{name}.json').read_text()
    (tmp_path / f'{name}.json').write_text(text)
  (tmp_path / 'metrics.jsonl').write_text('')
  for name in ('data.validation', 'eval_test_curve', 'from_data'):
    del fields[name]
  old = tmp_path / 'config.json'
  old.write_text(json.dumps(fields | {'data.held_out': 0.0}))
  run = read_run(tmp_path, 'RUN')
  assert run.config.data.validation == 0
  plain = forms.identity(forms.flatten(changed(config, data__validation=0.0)))
  assert forms.identity(run.fields) == plain
  old.write_text(json.dumps(fields | {'data.held_out': 0.1}))
  assert read_record(tmp_path).fields['data.held_out'] == 0.1  # as it is shown
  with pytest.raises(InputError) as error:
    read_run(tmp_path, 'RUN')
  assert 'RUN: config.data.held_out' in str(error.value)
  assert '--config.data.validation=0.1' in str(error.value)
