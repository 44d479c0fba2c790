"""A run that begins with pretrained weights, or with what is not there."""

import functools
import types

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from support import WEIGHTS, bad_weights

from tsla.config import durations
from tsla.config.checks import validate
from tsla.config.forms import default_config
from tsla.errors import InputError
from tsla.models import resnet
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
      optimizer.create_schedules(config.smoothing, config.optimizer, STEPS),
    ),
    seed=0,
    image_shape=(32, 32, 3),
  )


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
    config.smoothing.target = 'teacher'
  monkeypatch.setattr('tsla.data.datasets.load_dataset', None)
  with pytest.raises(InputError, match=f'config.{field} = .nowhere'):
    train_and_evaluate(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
