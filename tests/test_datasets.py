"""Names become arrays that are what they say they are."""

import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tsla.data import datasets, label_noise
from tsla.errors import InputError


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory, monkeypatch):
  """Decoded folders stay away from the user's own cache."""
  path = tmp_path_factory.mktemp('user_cache')
  monkeypatch.setenv('XDG_CACHE_HOME', str(path))


def config(name, path, image_size=0, download=True, **altered):
  return ml_collections.ConfigDict(
    {
      'name': name,
      'path': str(path),
      'image_size': image_size,
      'download': download,
      'skip_corrupt': False,
      'label_noise': 0.0,
      'label_noise_seed': 0,
      'validation': 0.0,
    }
    | altered
  )


def arrays(shape=(6, 5, 4, 3), classes=3):
  rng = np.random.default_rng(1)
  return {
    'train_images': rng.integers(0, 256, shape, np.uint8),
    'train_labels': np.arange(shape[0]) % classes,
    'test_images': rng.integers(0, 256, shape, np.uint8),
    'test_labels': np.arange(shape[0])[::-1] % classes,
  }


def load_npz(tmp_path, content, **kwargs):
  np.savez(tmp_path / 'set.npz', **content)
  return datasets.load_dataset(config('npz', tmp_path / 'set.npz', **kwargs))


def write_folder(root, images):
  """Writes `images`: relative file name → Pillow image."""
  for name, image in images.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def colours(mode='RGB', size=(5, 4)):
  pixels = np.random.default_rng(2).integers(0, 256, (*size[::-1], 3), np.uint8)
  return Image.fromarray(pixels).convert(mode)


def assert_refused(load, *words):
  with pytest.raises(InputError) as error:
    load()
  text = str(error.value)
  assert len(text.splitlines()) <= 3
  for word in words:
    assert word in text


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
  return datasets.load_dataset(
    config('digits', tmp_path_factory.mktemp('digits'))
  )


def test_digits_are_scikit_learns_in_a_stratified_split(digits):
  assert digits.train.images.shape == (1437, 8, 8, 1)
  assert digits.test.images.shape == (360, 8, 8, 1)
  assert digits.class_names == tuple('0123456789')
  source = load_digits()
  want = sorted(
    (np.rint(image.astype(np.float64) * 255 / 16).astype(int).tolist(), label)
    for image, label in zip(source.images, source.target, strict=True)
  )
  got = sorted(
    (image[..., 0].tolist(), label)
    for split in (digits.train, digits.test)
    for image, label in zip(split.images, split.labels, strict=True)
  )
  assert got == want
  fifth = np.bincount(source.target) / 5
  assert np.all(np.abs(np.bincount(digits.test.labels) - fifth) < 1)


def test_two_builds_of_digits_are_equal(digits, tmp_path):
  again = datasets.load_dataset(config('digits', tmp_path))
  assert again.fingerprint == digits.fingerprint


def test_npz_round_trip(tmp_path):
  content = arrays()
  dataset = load_npz(tmp_path, content)
  np.testing.assert_array_equal(dataset.train.images, content['train_images'])
  np.testing.assert_array_equal(dataset.test.labels, content['test_labels'])
  assert dataset.train.labels.dtype == np.int32
  assert dataset.class_names == ('0', '1', '2')
  assert dataset.image_shape == (5, 4, 3)
  # A class that only the training set has, and then only the test set.
  less = content | {'test_labels': content['test_labels'] % 2}
  dataset = load_npz(tmp_path, less)
  np.testing.assert_array_equal(dataset.test.labels, less['test_labels'])
  assert dataset.class_names == ('0', '1', '2')
  assert dataset.notes == ['no test example of 2']
  content['train_labels'] = content['train_labels'] % 2
  assert_refused(lambda: load_npz(tmp_path, content), 'training example of 2')


def test_npz_grey_images_uint8_labels_and_class_names(tmp_path):
  content = arrays((6, 5, 4))
  content['train_labels'] = content['train_labels'].astype(np.uint8)
  names = np.array(['cat', 'dög', 'emu'])
  dataset = load_npz(tmp_path, content | {'class_names': names})
  assert dataset.image_shape == (5, 4, 1)
  assert dataset.class_names == ('cat', 'dög', 'emu')


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'train_images': np.zeros((6, 5, 4, 3))}, ['train_images', 'float64']),
    ({'test_images': np.zeros((6, 5, 4, 2), 'u1')}, ['test_images', '(6, 5,']),
    ({'test_images': np.zeros((6, 9, 9, 3), 'u1')}, ['(9, 9, 3)', '(5, 4, 3)']),
    ({'train_labels': np.zeros(6)}, ['train_labels', 'float64']),
    ({'train_labels': np.arange(5)}, ['train', '5 labels', '6']),
    ({'train_labels': np.arange(6) - 1}, ['train', '-1 to 4', '0 to 999999']),
    ({'train_labels': np.full(6, 2**32 - 1)}, ['train_labels', '4294967295']),
    ({'class_names': np.array(['a', 'b'])}, ['0 to 2', '0 to 1']),
    ({'train_labels': np.array([0, None])}, ['not a readable', 'OBJECT']),
    ({'train_images': np.zeros((0, 5, 4, 3), 'u1')}, ['no examples']),
    ({'test_labels': np.zeros(0, int)}, ['test_labels', '(0,)']),
    (
      {'train_labels': np.zeros(6, int), 'test_labels': np.zeros(6, int)},
      ['two classes'],
    ),
  ],
)
def test_npz_violations_are_named(tmp_path, change, words):
  assert_refused(lambda: load_npz(tmp_path, arrays() | change), *words)


def test_npz_missing_key_file_and_format(tmp_path):
  content = arrays()
  del content['test_labels']
  assert_refused(lambda: load_npz(tmp_path, content), 'test_labels')
  for name, data in (('a', b''), ('b', b'PK\3\4damaged'), ('c', b'\x80\4]')):
    (tmp_path / name).write_bytes(data)
    load = config('npz', tmp_path / name)
    assert_refused(
      lambda load=load: datasets.load_dataset(load), 'not a readable'
    )
  assert_refused(
    lambda: datasets.load_dataset(config('npz', tmp_path / 'd')), 'No such'
  )
  assert_refused(
    lambda: datasets.load_dataset(config('npz', '')), 'data.path is empty'
  )


@pytest.mark.parametrize('channels', [1, 3])
def test_resizing_is_antialiased_bilinear(tmp_path, channels):
  content = arrays((3, 23, 17, channels))
  dataset = load_npz(tmp_path, content, image_size=6)
  want = jax.image.resize(
    content['train_images'].astype(np.float32),
    (3, 6, 6, channels),
    'linear',
    antialias=True,
  )
  assert np.abs(dataset.train.images - want).max() <= 1.01


def test_fingerprint_is_of_the_content(tmp_path):
  content = arrays()
  prints = [load_npz(tmp_path, content).fingerprint for _ in range(2)]
  assert prints[0] == prints[1]
  assert len(prints[0]) == 64
  for key, index in (('test_images', (5, 4, 3, 2)), ('train_labels', 3)):
    changed = content | {key: content[key].copy()}
    changed[key][index] ^= 1
    prints.append(load_npz(tmp_path, changed).fingerprint)
  names = {'class_names': np.array(['0', '1', 'two'])}
  prints.append(load_npz(tmp_path, content | names).fingerprint)
  turned = {
    key: value.swapaxes(1, 2) if 'images' in key else value
    for key, value in (
      content | {'test_images': content['train_images']}
    ).items()
  }
  reshaped = {
    key: value.reshape(6, 5, 4, 3) if 'images' in key else value
    for key, value in turned.items()
  }
  prints += [load_npz(tmp_path, turned).fingerprint]
  prints += [load_npz(tmp_path, reshaped).fingerprint]
  assert len(set(prints)) == 6


def test_folder_of_every_kind_of_image_becomes_rgb(tmp_path):
  clear = colours('P')
  clear.info['transparency'] = bytes(range(256))
  write_folder(
    tmp_path,
    {
      'train/b/1.png': colours('L'),
      'train/b/2.JPEG': colours('CMYK'),
      'train/a/3.png': colours('RGBA'),
      'train/a/4.jpg': colours(),
      'train/a/5.png': clear,
      'test/a/1.png': colours(),
      'test/b/1.png': colours('1'),
    },
  )
  (tmp_path / 'train' / 'a' / 'notes.txt').write_text('not an image')
  (tmp_path / 'train' / '.cache').mkdir()
  dataset = datasets.load_dataset(config('folder', tmp_path))
  assert dataset.class_names == ('a', 'b')
  assert dataset.image_shape == (4, 5, 3)
  np.testing.assert_array_equal(dataset.train.labels, [0, 0, 0, 1, 1])
  pixels = np.asarray(colours())
  np.testing.assert_array_equal(dataset.test.images[0], pixels)
  np.testing.assert_array_equal(dataset.train.images[0], pixels)
  grey = np.asarray(colours('L'))[..., None].repeat(3, -1)
  np.testing.assert_array_equal(dataset.train.images[3], grey)
  with Image.open(tmp_path / 'train/a/4.jpg') as image:
    np.testing.assert_array_equal(dataset.train.images[1], np.asarray(image))


def test_folder_of_mixed_sizes_is_refused_or_resized(tmp_path):
  write_folder(
    tmp_path,
    {
      'train/a/1.png': colours(),
      'train/b/odd.png': colours(size=(7, 4)),
      'test/a/1.png': colours(),
      'test/b/1.png': colours(),
    },
  )
  assert_refused(
    lambda: datasets.load_dataset(config('folder', tmp_path)),
    'odd.png',
    '4×7×3',
    '4×5×3',
    '--config.data.image_size=256',
  )
  dataset = datasets.load_dataset(config('folder', tmp_path, image_size=3))
  assert dataset.image_shape == (3, 3, 3)


def test_folder_violations_are_named(tmp_path):
  def load():
    return datasets.load_dataset(config('folder', tmp_path))

  assert_refused(load, 'train')
  write_folder(
    tmp_path,
    {f'{s}/{c}/1.png': colours() for s in ('train', 'test') for c in 'ab'},
  )
  load()
  write_folder(tmp_path, {'test/c/1.png': colours()})
  assert_refused(load, 'no training example of c')
  (tmp_path / 'test' / 'c' / '1.png').unlink()
  bad = tmp_path / 'test' / 'b' / '1.png'
  data = bad.read_bytes()
  bad.write_bytes(data[:-40])
  assert_refused(load, '1.png', 'not a readable image')
  bad.write_bytes(b'text')
  assert_refused(load, '1.png', 'not a readable image')
  Image.fromarray(np.full((4, 5), 0.5, np.float32)).save(bad, 'TIFF')
  assert_refused(load, '1.png', 'beyond 16 bits')


def test_a_file_or_folder_needs_neither_tfds_nor_scikit_learn(tmp_path):
  np.savez(tmp_path / 'set.npz', **arrays())
  images = {
    f'{s}/{c}/1.png': colours() for s in ('train', 'test') for c in 'ab'
  }
  write_folder(tmp_path / 'folder', images)
  configs = [
    config(name, tmp_path / file).to_dict()
    for name, file in (('npz', 'set.npz'), ('folder', 'folder'))
  ]
  code = f"""
import sys, ml_collections
from tsla.data import datasets
for config in {configs}:
  dataset = datasets.load_dataset(ml_collections.ConfigDict(config))
  print(dataset.train.images.shape)
print({{'tensorflow_datasets', 'tensorflow', 'sklearn'}} & set(sys.modules))
"""
  result = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=120
  )
  assert result.stdout.splitlines() == [
    *('(6, 5, 4, 3)', '(2, 4, 5, 3)'),
    'set()',
  ], result.stderr


def test_label_noise_replaces_its_part_by_all_other_classes_alike(
  digits, tmp_path
):
  path = tmp_path / 'digits'
  clean = digits.train.labels
  noisy = datasets.load_dataset(config('digits', path, label_noise=0.4))
  changed = noisy.train.labels != clean
  assert changed.sum() == round(0.4 * 1437)
  np.testing.assert_array_equal(noisy.train.images, digits.train.images)
  np.testing.assert_array_equal(noisy.test.labels, digits.test.labels)
  # 575 labels, 1 to 9 classes on: about 64 of each, and 4 of 10 of each class.
  shifts = np.bincount((noisy.train.labels - clean)[changed] % 10, minlength=10)
  assert shifts[0] == 0
  chi2 = ((shifts[1:] - 575 / 9) ** 2 / (575 / 9)).sum()
  assert chi2 < 26.1  # the 0.1 % quantile of 8 degrees of freedom
  for label in range(10):
    assert 0.2 < changed[clean == label].mean() < 0.6
  for x64 in (False, True):
    with jax.enable_x64(x64):
      again = datasets.load_dataset(config('digits', path, label_noise=0.4))
    np.testing.assert_array_equal(again.train.labels, noisy.train.labels)
  other = datasets.load_dataset(
    config('digits', path, label_noise=0.4, label_noise_seed=1)
  )
  assert (other.train.labels != noisy.train.labels).mean() > 0.3
  prints = {d.fingerprint for d in (digits, noisy, again, other)}
  assert len(prints) == 3
  everything = datasets.load_dataset(config('digits', path, label_noise=1.0))
  assert (everything.train.labels != clean).all()


def test_what_validates_is_a_part_of_each_class_and_the_same_always(
  digits, tmp_path
):
  dataset = datasets.load_dataset(
    config('digits', tmp_path, validation=0.1, label_noise=0.2)
  )
  noisy = datasets.load_dataset(config('digits', tmp_path, label_noise=0.2))
  assert len(dataset.train.labels) + len(dataset.validation.labels) == 1437

  def rows(*splits):
    return sorted(
      (int(label), image.tobytes())
      for split in splits
      for image, label in zip(split.images, split.labels, strict=True)
    )

  assert rows(dataset.train, dataset.validation) == rows(noisy.train)
  assert noisy.validation is None
  assert dataset.fingerprint not in (noisy.fingerprint, digits.fingerprint)
  clean = datasets.load_dataset(config('digits', tmp_path, validation=0.1))
  # The noise changes which labels they have, not which images they are.
  np.testing.assert_array_equal(
    clean.validation.images, dataset.validation.images
  )
  counts = np.bincount(clean.validation.labels)
  want = np.rint(np.bincount(digits.train.labels) * 0.1)
  np.testing.assert_array_equal(counts, want)


def test_of_each_class_a_part_is_set_apart_but_not_all_of_it():
  labels = np.array([0] * 10 + [1] * 4 + [2])
  mask = label_noise.set_apart(labels, fraction=0.2)
  assert np.bincount(labels[mask], minlength=3).tolist() == [2, 1, 0]
  assert not label_noise.set_apart(labels, fraction=0.0).any()
