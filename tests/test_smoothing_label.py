"""ŷ from the class frequencies and from a trained network."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import teacher_of, teacher_target

import tsla
from tsla.data import datasets
from tsla.errors import InputError
from tsla.models.pretrained import to_state_dict, write_safetensors
from tsla.runs.directory import RunDirectory
from tsla.training import loop, teacher


@pytest.fixture(scope='module')
def taught(config, tmp_path_factory):
  """A student's config, its teacher a finished run."""
  run = tmp_path_factory.mktemp('teacher')
  baseline = config.copy_and_resolve_references()
  baseline.smoothing.schedule, baseline.smoothing.theta = 'none', 0.0
  baseline.smoothing.drop_epochs = -1.0
  loop.train_and_evaluate(baseline, run)
  student = config.copy_and_resolve_references()
  student.smoothing.target = 'teacher'
  student.teacher.run = str(run)
  student.teacher.temperature = 2.0
  return student


@pytest.fixture(scope='module')
def network(taught):
  return teacher_of(taught, datasets.load_dataset(taught.data))


@pytest.fixture(scope='module')
def student_run(taught, tmp_path_factory):
  """A run that is taught alone, for one of two epochs."""
  student = taught.copy_and_resolve_references()
  student.smoothing.theta = 1.0
  student.smoothing.drop_epochs = 1.0
  student.epochs = 2
  path = tmp_path_factory.mktemp('student')
  loop.train_and_evaluate(student, path)
  return path, student


def normalised(images):
  return ((images / 255 - 0.5) / 0.5).astype(np.float32)


def softmax(logits):
  exp = np.exp(logits - logits.max(-1, keepdims=True))
  return exp / exp.sum(-1, keepdims=True)


def y_hat(target, images, indices):
  seen = tsla.Seen(labels=None, indices=indices, images=images)
  return target.y_hat(target.arrays, target.state, seen)


def test_the_teacher_s_softmax_in_evaluation_mode_is_y_hat(taught, network):
  dataset = datasets.load_dataset(taught.data)
  model, variables, *_ = network
  images = normalised(dataset.train.images)
  logits = model.apply(variables, images, train=False)
  expected = softmax(np.asarray(logits, np.float64) / 2.0)
  assert expected.max() > 0.15  # it has learnt something: not uniform
  indices = jnp.array([3, 60, 0])

  target = teacher_target(taught, dataset, network)
  got = y_hat(target, images[indices], indices)
  np.testing.assert_allclose(got, expected[indices], rtol=1e-5)
  # Another image than the index says: the augmented view is what counts.
  other = y_hat(target, images[indices + 1], indices)
  np.testing.assert_allclose(other, expected[indices + 1], rtol=1e-5)

  clean = taught.copy_and_resolve_references()
  clean.teacher.view = 'clean'
  clean.eval_batch_size = 24  # does not divide the 64 images
  target = teacher_target(clean, dataset, network)
  assert target.arrays.shape == (64, 10)
  assert target.arrays.dtype == jnp.float16
  got = y_hat(target, images[indices + 1], indices)
  np.testing.assert_allclose(got, expected[indices], atol=1e-3)


@pytest.mark.parametrize(
  ('of_config', 'of_others'),
  [
    ({'teacher.temperature': 4.0}, {}),
    ({'data.mean': (0.4,)}, {}),
    ({'data.std': (0.4,)}, {}),
    ({'augment.crop': 6}, {}),
    ({'model.dtype': 'bfloat16'}, {}),
    ({'eval_batch_size': 24}, {}),
    ({}, {'fingerprint': '0' * 64}),
    ({}, {'dtype': 'bfloat16'}),
    ({}, {'weights': 1e-6}),
  ],
)
def test_clean_labels_are_kept_and_never_taken_for_others(
  taught, network, monkeypatch, tmp_path, of_config, of_others
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  rng = np.random.default_rng(0)
  monkeypatch.setattr(
    teacher,
    '_on_clean_images',
    lambda *args: rng.random((64, 10)).astype(np.float16),
  )

  def labels(of_config, fingerprint=None, dtype='float32', weights=0.0):
    config = taught.copy_and_resolve_references()
    config.teacher.view = 'clean'
    config.update_from_flattened_dict(of_config)
    dataset = datasets.load_dataset(config.data)
    return teacher_target(
      config,
      dataclasses.replace(
        dataset, fingerprint=fingerprint or dataset.fingerprint
      ),
      teacher.Teacher(
        network.model.clone(dtype=jnp.dtype(dtype)),
        jax.tree.map(lambda leaf: leaf + weights, network.variables),
      ),
    ).arrays

  first = labels({})
  other = labels(of_config, **of_others)
  assert (other != first).any()
  for again in (labels({}), labels({'seed': 3, 'augment.pad': 2})):
    np.testing.assert_array_equal(again, first, strict=True)
  again = labels(of_config, **of_others)
  np.testing.assert_array_equal(again, other, strict=True)


@pytest.mark.ci
def test_a_run_keeps_its_teacher_wherever_that_lies(
  taught, network, student_run, tmp_path
):
  path, config = student_run
  data = json.loads((path / 'data.json').read_text())
  assert data['teacher'] == network.fingerprint()
  moved = config.copy_and_resolve_references()
  moved.teacher.run = str(tmp_path / 'moved')
  with RunDirectory(path, moved).claim(data['fingerprint'], data['teacher']):
    pass

  another = config.copy_and_resolve_references()
  weights = to_state_dict(network.variables)
  weights['fc.bias'] = weights['fc.bias'] + np.float32(1e-6)
  file = tmp_path / 'weights.safetensors'
  write_safetensors(file, weights)
  another.teacher.run, another.teacher.weights = '', str(file)
  with pytest.raises(InputError, match='a run of another teacher') as error:
    loop.train_and_evaluate(another, path)
  assert len(str(error.value).splitlines()) <= 3


def test_a_run_s_network_is_the_same_teacher_as_a_file(
  taught, network, tmp_path
):
  dataset = datasets.load_dataset(taught.data)
  path = tmp_path / 'weights.safetensors'
  write_safetensors(path, to_state_dict(network.variables))
  by_file = taught.copy_and_resolve_references()
  by_file.teacher.run, by_file.teacher.weights = '', str(path)
  of_file = teacher_of(by_file, dataset)
  assert of_file.model == network.model
  assert of_file.fingerprint() == network.fingerprint()


def test_no_gradient_flows_into_the_teacher(taught, network):
  dataset = datasets.load_dataset(taught.data)
  target = teacher_target(taught, dataset, network)
  images = normalised(dataset.train.images[:4])
  grads = jax.jit(
    jax.grad(
      lambda v: y_hat(target._replace(arrays=v), images, jnp.arange(4))[0, 0]
    )
  )(target.arrays)
  assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(grads))


def test_a_run_uses_the_teacher_until_the_switch(student_run):
  path, _ = student_run
  log = (path / 'metrics.jsonl').read_text().splitlines()
  rows = {r['step']: r for r in map(json.loads, log) if r['kind'] == 'train'}
  assert rows[4]['loss'] != pytest.approx(rows[4]['hard_loss'], rel=1e-3)
  assert rows[5]['loss'] == pytest.approx(rows[5]['hard_loss'], rel=1e-6)


def test_a_teacher_that_cannot_be_used_is_explained(taught, tmp_path):
  dataset = datasets.load_dataset(taught.data)
  missing = taught.copy_and_resolve_references()
  missing.teacher.run = str(tmp_path)
  with pytest.raises(InputError, match='the directory of a run'):
    teacher_of(missing, dataset)
  for name, value in (
    ('data.mean', (0.4,)),
    ('data.std', (0.4,)),
    ('augment.crop', 6),
  ):
    other_input = taught.copy_and_resolve_references()
    other_input.update_from_flattened_dict({name: value})
    with pytest.raises(InputError, match=f'its {name} is'):
      teacher_of(other_input, dataset)
  classes = tuple('0123456789a')
  more = datasets.Dataset('npz', dataset.train, dataset.test, classes, '')
  with pytest.raises(InputError, match='11 classes') as error:
    teacher_of(taught, more)
  assert len(str(error.value).splitlines()) <= 3


def test_a_teacher_of_other_classes_or_images_is_refused(taught, tmp_path):
  dataset = datasets.load_dataset(taught.data)
  digits, large = tuple('0123456789'), np.zeros((10, 16, 16, 1), np.uint8)
  others = (
    ({'class_names': digits[::-1]}, 'its class 0 is 0', '9, as here'),
    ({'class_names': (*digits[:9], 'x')}, 'its class 9 is 9', 'x, as here'),
    (
      {'train': datasets.Split(large, np.arange(10, dtype=np.int32))},
      'its image_shape is [8, 8, 1]',
      '[16, 16, 1], as here',
    ),
  )
  for fields, there, here in others:
    with pytest.raises(InputError) as error:
      teacher_of(taught, dataclasses.replace(dataset, **fields))
    problem, allowed, cure = str(error.value).splitlines()
    assert problem.startswith('config.teacher.run = ')
    assert there in problem and here in allowed and 'on this set' in cure
  earlier = taught.copy_and_resolve_references()
  earlier.teacher.run = str(tmp_path / 'run')  # by a version without model.json
  shutil.copytree(taught.teacher.run, earlier.teacher.run)
  (tmp_path / 'run/model.json').unlink()
  teacher_of(earlier, dataclasses.replace(dataset, **others[0][0]))
