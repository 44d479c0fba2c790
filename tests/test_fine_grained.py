"""Stanford Dogs and CUB-200-2011 from archives in the genuine layouts."""

import io
import posixpath
import sys
import tarfile

import ml_collections
import numpy as np
import pytest
from archives import write_cub2011, write_stanford_dogs
from PIL import Image

from tsla.data import datasets, prepare, sources
from tsla.data.builders import archive, builder_class
from tsla.errors import InputError
from tsla.files import sha256_of

WRITERS = {
  'stanford_dogs': write_stanford_dogs,
  'caltech_birds2011': write_cub2011,
}


@pytest.fixture(params=sorted(WRITERS), scope='module')
def written(request, tmp_path_factory):
  """One set in its archives: the name and what was written."""
  folder = tmp_path_factory.mktemp(request.param)
  return request.param, WRITERS[request.param](folder)


def register(monkeypatch, name, archives):
  items = tuple(
    archive.Archive(
      f'http://127.0.0.1:1/{item["path"].name}?download=1',
      item['size'],
      item['sha256'],
    )
    for item in archives
  )
  monkeypatch.setattr(builder_class(name), 'ARCHIVES', items)


def config(name, path, image_size):
  return ml_collections.ConfigDict(
    {
      'name': name,
      'path': str(path),
      'image_size': image_size,
      'download': False,
      'skip_corrupt': False,
      'label_noise': 0.0,
      'validation': 0.0,
    }
  )


def test_images_labels_and_classes_are_those_of_the_official_lists(
  written, tmp_path, monkeypatch
):
  name, content = written
  register(monkeypatch, name, content['archives'])
  paths = [item['path'] for item in content['archives']]
  prepare.prepare(name, tmp_path, paths)
  dataset = datasets.load_dataset(config(name, tmp_path, image_size=9))
  assert dataset.class_names == content['class_names']
  for split in ('train', 'test'):
    want = sorted(
      (
        Image.open(io.BytesIO(photo))
        .convert('RGB')
        .resize((9, 9), Image.Resampling.BILINEAR)
        .tobytes(),
        label,
      )
      for photo, label in content[split]
    )
    got = getattr(dataset, split)
    assert got.images.shape == (len(content[split]), 9, 9, 3)
    pairs = zip(got.images, got.labels.tolist(), strict=True)
    assert sorted((image.tobytes(), label) for image, label in pairs) == want
  assert np.bincount(dataset.train.labels).tolist() == (
    [1] * len(content['class_names'])
  )
  assert 'tensorflow' not in sys.modules


def test_images_keep_their_encoded_bytes(written, tmp_path, monkeypatch):
  name, content = written
  register(monkeypatch, name, content['archives'])
  paths = [item['path'] for item in content['archives']]
  prepare.prepare(name, tmp_path, paths)
  source = sources.find_tfds(name, str(tmp_path), download=False)
  examples = source.open().splits
  for split in ('train', 'test'):
    read = sorted((photo, label) for _, photo, label in examples[split].read())
    assert read == sorted(content[split])


def test_varied_sizes_need_an_image_size(written, tmp_path, monkeypatch):
  name, content = written
  register(monkeypatch, name, content['archives'])
  prepare.prepare(name, tmp_path, [i['path'] for i in content['archives']])
  with pytest.raises(InputError, match=r'--config\.data\.image_size=256'):
    datasets.load_dataset(config(name, tmp_path, image_size=0))


def test_a_missing_image_is_named_and_no_set_is_left(
  written, tmp_path, monkeypatch
):
  name, content = written
  harmed = tmp_path / content['archives'][0]['path'].name
  lost = ''
  with (
    tarfile.open(content['archives'][0]['path']) as old,
    tarfile.open(harmed, 'w') as new,
  ):
    for member in old:
      if member.name.endswith('.jpg') and not lost:
        lost = member.name
      else:
        new.addfile(member, old.extractfile(member))
  item = {
    'path': harmed,
    'sha256': sha256_of(harmed),
    'size': harmed.stat().st_size,
  }
  archives = [item, *content['archives'][1:]]
  register(monkeypatch, name, archives)
  with pytest.raises(InputError, match='1 of its') as error:
    prepare.prepare(name, tmp_path / 'data', [i['path'] for i in archives])
  assert posixpath.normpath(lost) in str(error.value)
  assert not list((tmp_path / 'data').glob('**/dataset_info.json'))
  assert not list((tmp_path / 'data').glob('**/incomplete.*'))


def test_a_missing_set_asks_for_every_archive(written, tmp_path, monkeypatch):
  name, content = written
  register(monkeypatch, name, content['archives'])
  one = [content['archives'][0]['path']][: len(content['archives']) - 1]
  with pytest.raises(InputError) as error:
    prepare.prepare(name, tmp_path, one)
  text = str(error.value)
  assert text.count('--archive=FILE') == len(content['archives'])
  for item in content['archives']:
    assert f'{item["path"].name} with SHA-256 {item["sha256"]}' in text
  assert not list(tmp_path.glob('**/incomplete.*'))
