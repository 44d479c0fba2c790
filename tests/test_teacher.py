"""A teacher from a file of pretrained weights, and those that are refused."""

import hashlib
import types

import flax.linen as nn
import jax
import numpy as np
import pytest
from support import WEIGHTS, bad_weights, teacher_of, teacher_target

import tsla
from tsla.config import forms as config_lib
from tsla.config.checks import validate
from tsla.data.datasets import Dataset, Split
from tsla.errors import InputError
from tsla.training import teacher
from tsla.training.build import view_of


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


def by_class(config, data, network):
  """ŷ of each class in turn, as `build` asks for it."""
  target = teacher.teacher_target(
    *(network, data, view_of(config), config.eval_batch_size), by_class=True
  )
  seen = tsla.Seen(labels=np.arange(data.num_classes), indices=None)
  return np.asarray(target.y_hat(target.arrays, target.state, seen))


def test_class_similarity_is_the_cosine_of_mean_features(config):
  """Over the training images as they are; a class has none here."""
  images = np.random.default_rng(10).integers(0, 256, (7, 16, 16, 3), np.uint8)
  labels = np.array([0, 2, 2, 1, 0, 4, 4], np.int32)
  split = Split(images, labels)
  data = Dataset('birds', split, split, tuple('abcde'), 'e' * 64)
  config.eval_batch_size = 3

  class Corner(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
      self.sow('intermediates', 'features', x[:, 0, 0])

  network = teacher_of(config, data)._replace(
    model=types.SimpleNamespace(apply=Corner().apply, dtype='float32'),
    variables={},
  )
  features = np.float64(images[:, 0, 0]) / 127.5 - 1
  means = [features[labels == k].mean(0) for k in (0, 1, 2, 4)]
  means = np.stack([v / np.linalg.norm(v) for v in means])
  cosines = np.eye(5)
  cosines[np.ix_([0, 1, 2, 4], [0, 1, 2, 4])] = np.maximum(means @ means.T, 0)
  expected = cosines / cosines.sum(1, keepdims=True)
  assert expected[0, 1] > 0.1 and expected[0, 2] > 0.2 > expected[0, 4] == 0
  found = by_class(config, data, network)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  np.testing.assert_array_equal(by_class(config, data, network), found)


def test_a_file_says_how_alike_the_classes_are(config, tmp_path):
  rows = np.random.default_rng(0).dirichlet(np.ones(5), 5)
  config.teacher.weights = ''
  config.teacher.matrix = str(tmp_path / 'rows.csv')
  np.savetxt(config.teacher.matrix, rows, delimiter=',')
  network = teacher_of(config, dataset())
  np.testing.assert_allclose(
    by_class(config, dataset(), network), rows, atol=1e-7
  )
  before = network.fingerprint()
  run = config_lib.default_config()
  run.smoothing.update(schedule='constant', target='class_similarity')
  run.teacher.matrix = config.teacher.matrix
  name = config_lib.config_hash(run)
  np.savetxt(config.teacher.matrix, rows[::-1], delimiter=',')
  assert teacher_of(config, dataset()).fingerprint() != before
  assert config_lib.config_hash(run) != name


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('0.5,0.5\n0.5,0.5\n', '2 rows of 2 numbers'),
    ('0.2,0.2,0.2,0.2,0.1\n' * 5, 'rows sum to 0.9 to 0.9'),
    ('1.2,-0.2,0,0,0\n' * 5, 'the least number is -0.2'),
    ('nan,0,0,0,1\n' * 5, 'rows sum to nan'),
    ('1,0,0,0,0\n1,0\n', 'columns'),
    ('a,b\n', 'could not convert'),
    (None, 'No such file'),
  ],
)
def test_a_file_of_no_such_rows_is_refused(config, tmp_path, text, message):
  path = tmp_path / 'rows.csv'
  if text is not None:
    path.write_text(text)
  config.teacher.weights, config.teacher.matrix = '', str(path)
  with pytest.raises(InputError, match=message) as error:
    teacher_of(config, dataset())
  first, allowed, *_ = str(error.value).splitlines()
  assert first.startswith('config.teacher.matrix = ')
  assert '5 rows of 5 numbers >= 0' in allowed


def test_a_network_without_features_tells_no_similarity(config):
  class Bare(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
      return nn.Dense(5)(x.reshape(len(x), -1))

  data = dataset()
  variables = Bare().init(jax.random.key(0), np.zeros((1, 64, 64, 3)), train=0)
  network = teacher_of(config, data)._replace(
    model=types.SimpleNamespace(apply=Bare().apply, dtype='float32'),
    variables=variables,
  )
  with pytest.raises(InputError, match='sows no features'):
    by_class(config, data, network)


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
