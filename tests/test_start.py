"""A run that begins with weights, in another run, or with what is not there."""

import functools
import types

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from support import WEIGHTS, bad_weights

from tsla.config import durations, tables
from tsla.config.checks import validate
from tsla.config.forms import default_config
from tsla.errors import InputError
from tsla.models import resnet
from tsla.runs.directory import RunDirectory
from tsla.training import optimizer
from tsla.training.build import tables_of
from tsla.training.loop import train_and_evaluate
from tsla.training.start import find_start
from tsla.training.step import create_state

STEPS = durations.resolve(default_config(), steps_per_epoch=4)
NO_CHECKPOINTS = types.SimpleNamespace(latest_step=None)


@functools.cache
def first_state(num_classes):
  config = default_config()
  model = resnet.create(
    'resnet18', num_classes=num_classes, stem='imagenet', width=3
  )
  return create_state(
    model,
    optimizer.create(
      config.optimizer,
      optimizer.Schedules(
        tables.theta_schedule(config.smoothing, STEPS),
        tables.learning_rate(config.optimizer, STEPS),
      ),
    ),
    seed=0,
    image_shape=(32, 32, 3),
  )


TRUNK = 'f' * 64  # the SHA-256 of the trunk's data


def start(config, num_classes):
  first = first_state(num_classes)
  tables = tables_of(config, STEPS)
  return first, find_start(config, first, tables, NO_CHECKPOINTS, STEPS, '')


@pytest.fixture
def config():
  config = default_config()
  config.model.weights = str(WEIGHTS)
  return config


def test_the_run_begins_with_the_weights_of_the_file(config):
  file = load_file(WEIGHTS)
  first, begin = start(config, num_classes=len(file['fc.bias']))
  assert begin.step == 0
  counters = sum(name.endswith('num_batches_tracked') for name in file)
  assert f'{len(file) - counters} arrays taken' in begin.note
  kernel = begin.state.params['layer2_0']['conv1']['kernel']
  expected = file['layer2.0.conv1.weight'].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(kernel, expected)
  mean = begin.state.batch_stats['layer4_1']['bn2']['mean']
  np.testing.assert_array_equal(mean, file['layer4.1.bn2.running_mean'])
  assert jax.tree.structure(begin.state) == jax.tree.structure(first)


def test_another_class_count_draws_the_head_anew(config):
  first, begin = start(config, num_classes=7)
  assert 'head drawn anew' in begin.note
  np.testing.assert_array_equal(
    begin.state.params['fc']['kernel'], first.params['fc']['kernel']
  )


def test_weights_of_no_use_are_refused_with_their_reason(config, tmp_path):
  for message, path in bad_weights(tmp_path).items():
    config.model.weights = str(path)
    with pytest.raises(InputError, match=message) as error:
      start(config, num_classes=5)
    lines = str(error.value).splitlines()
    assert lines[0].startswith('config.model.weights') and len(lines) == 3
  assert not (tmp_path / 'trace').exists()


def test_a_run_cannot_begin_in_two_places(config):
  config.init.fork_from = 'run@3'
  with pytest.raises(InputError, match='one place'):
    validate(config)


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('model.weights', 'nowhere.pth'),
    ('init.fork_from', 'nowhere@1'),
    ('teacher.run', 'nowhere'),
    ('teacher.weights', 'nowhere.pth'),
  ],
)
def test_what_is_not_there_is_named_before_the_data_set_is_built(
  config, tmp_path, monkeypatch, field, value
):
  section, name = field.split('.')
  config.model.weights = ''
  config[section][name] = value
  if section == 'teacher':
    config.smoothing.target, config.smoothing.theta = 'teacher', 0.1
    config.smoothing.schedule = 'constant'
  monkeypatch.setattr('tsla.data.datasets.load_dataset', None)
  with pytest.raises(InputError, match=f'config.{field} = .nowhere'):
    train_and_evaluate(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.fixture(scope='module')
def trunk(tmp_path_factory):
  """A run of 4 updates an epoch that has begun and saved nothing yet.

  It smooths and keeps its rate until update 12, where epoch 3 ends.
  """
  config = default_config()
  config.epochs = 8
  config.smoothing.schedule = 'two_stage'
  config.smoothing.theta = 0.4
  config.smoothing.drop_steps = 12
  config.optimizer.schedule = 'step'
  config.optimizer.milestone_steps = (12,)
  directory = RunDirectory(tmp_path_factory.mktemp('trunk'), config)
  with directory.claim(TRUNK):
    directory.begin(0, 32)
    with directory.log(0):
      pass
  return directory.path, config


def fork(trunk, fields, fingerprint=TRUNK):
  """Why no run with these fields can begin at the trunk's epoch 3."""
  path, config = trunk
  config = config.copy_and_resolve_references()
  for field, value in {'init.fork_from': f'{path}@3', **fields}.items():
    *section, leaf = field.split('.')
    (config[section[0]] if section else config)[leaf] = value
  steps = durations.resolve(config, steps_per_epoch=4)
  with pytest.raises(InputError) as error:
    tables = tables_of(config, steps)
    find_start(config, None, tables, NO_CHECKPOINTS, steps, fingerprint)
  assert str(error.value).startswith('config.init.fork_from = ')
  assert len(str(error.value).splitlines()) <= 3
  return str(error.value)


@pytest.mark.parametrize(
  ('field', 'there', 'here'),
  [
    ('seed', 0, 1),
    ('batch_size', 32, 8),
    ('augment.pad', 0, 1),
    ('smoothing.target', 'uniform', 'prior'),
    ('optimizer.name', 'sgd', 'adamw'),
    ('optimizer.momentum', 0.9, 0.8),
    ('optimizer.nesterov', False, True),
    ('optimizer.weight_decay', 0.0, 5e-4),
  ],
)
def test_a_fork_from_a_run_that_differed_before_it_is_refused(
  trunk, field, there, here
):
  message = f'config.{field} is {there!r} there, {here!r} here'
  assert message in fork(trunk, {field: here})


@pytest.mark.parametrize(
  ('fields', 'epoch'),
  [
    ({'smoothing.theta': 0.1}, '0'),
    ({'optimizer.learning_rate': 0.2}, '0'),
    ({'smoothing.drop_steps': 4}, '1'),
    # Only in update 11, counted from 0, the last one before the fork.
    ({'smoothing.drop_steps': 11}, '2.75'),
    ({'optimizer.milestone_steps': (11,)}, '2.75'),
  ],
)
def test_a_fork_after_theta_or_the_rate_went_apart_is_refused(
  trunk, fields, epoch
):
  message = fork(trunk, fields)
  assert f'from epoch {epoch} on theta or the learning rate' in message
  assert f'allowed: an epoch <= {epoch}\n' in message + '\n'


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'smoothing.drop_steps': 13, 'optimizer.milestone_steps': (13,)},
    {'epochs': 9, 'smoothing.reset_momentum': True},
  ],
)
def test_runs_may_differ_from_the_fork_on(trunk, fields):
  """Nothing is wrong with the fork but that its state is not there."""
  assert 'that epoch was not saved' in fork(trunk, fields)


def test_a_fork_from_a_run_on_other_data_is_refused(trunk):
  assert 'on another data set' in fork(trunk, {}, fingerprint='e' * 64)
