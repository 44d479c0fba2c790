"""A teacher from a file of pretrained weights, and those that are refused."""

import hashlib

import jax
import numpy as np
import pytest
from support import WEIGHTS, bad_weights, teacher_of, teacher_target

import tsla
from tsla.config import forms as config_lib
from tsla.config.checks import validate
from tsla.data.datasets import Dataset, Split
from tsla.errors import InputError


def dataset(num_classes=5, channels=3):
  images = np.zeros((6, 64, 64, channels), np.uint8)
  split = Split(images, np.arange(6, dtype=np.int32) % num_classes)
  names = tuple(map(str, range(num_classes)))
  return Dataset('birds', split, split, names, 'f' * 64)


@pytest.fixture
def config():
  config = config_lib.default_config()
  config.smoothing.schedule, config.smoothing.theta = 'constant', 0.1
  config.smoothing.target = 'teacher'
  config.teacher.weights = str(WEIGHTS)
  validate(config)
  return config


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_y_hat_is_pytorchs_softmax(config, suffix):
  golden = np.load(WEIGHTS.with_suffix('.npz'))
  config.teacher.weights = str(WEIGHTS.with_suffix(suffix))
  config.teacher.temperature = 0.1
  network = teacher_of(config, dataset())
  target = teacher_target(config, dataset(), network)
  images = golden['images'].transpose(0, 2, 3, 1)
  seen = tsla.Seen(labels=None, indices=None, images=images)
  got = jax.jit(target.y_hat)(target.arrays, target.state, seen)
  exp = np.exp(golden['logits'].astype(np.float64) / 0.1)
  expected = exp / exp.sum(-1, keepdims=True)
  assert np.abs(expected - 0.2).max() > 0.1  # not uniform
  np.testing.assert_allclose(got, expected, rtol=5e-4)


def test_a_file_of_no_use_is_refused(config, tmp_path):
  for message, path in bad_weights(tmp_path).items():
    config.teacher.weights = str(path)
    with pytest.raises(InputError, match=message) as error:
      teacher_of(config, dataset())
    lines = str(error.value).splitlines()
    assert lines[0].startswith('config.teacher.weights') and len(lines) == 3
  assert not (tmp_path / 'trace').exists()


@pytest.mark.parametrize(
  ('shape', 'allowed'),
  [
    ({'num_classes': 7}, '7 classes, images of 3 channels, as of birds'),
    ({'channels': 1}, '5 classes, images of 1 channels, as of birds'),
  ],
)
def test_a_network_of_other_classes_or_images_is_refused(
  config, shape, allowed
):
  with pytest.raises(InputError, match='5 classes, images of 3') as error:
    teacher_of(config, dataset(**shape))
  lines = str(error.value).splitlines()
  assert lines[1] == f'  allowed: {allowed}' and len(lines) == 3


def test_the_sha256_is_checked(config):
  config.teacher.weights_sha256 = hashlib.sha256(
    WEIGHTS.read_bytes()
  ).hexdigest()
  assert teacher_of(config, dataset()).model.num_classes == 5
  config.teacher.weights_sha256 = '0' * 64
  with pytest.raises(InputError, match=r'config\.teacher\.weights_sha256 = '):
    teacher_of(config, dataset())


@pytest.mark.parametrize('fields', [{}, {'run': 'a', 'weights': 'b'}])
def test_a_teacher_comes_from_one_place(config, fields):
  config.teacher.weights = ''
  config.teacher.update(fields)
  with pytest.raises(InputError, match='exactly one') as error:
    validate(config)
  assert 'teacher.run=WORKDIR_OF_A_FINISHED_RUN' in str(error.value)


@pytest.mark.parametrize('target', ['uniform', 'prior'])
def test_a_teacher_that_no_target_asks_is_left_out(config, target):
  config.smoothing.target, config.teacher.temperature = target, 2.0
  normal = validate(config)
  assert (normal.teacher.weights, normal.teacher.temperature) == ('', 1.0)
  assert config.teacher.temperature == 2.0, 'the caller keeps its config'
