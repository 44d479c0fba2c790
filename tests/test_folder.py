"""A folder of one's own images, from the command line to the last row."""

import json

import archives
import numpy as np
import pytest
from PIL import Image
from support import run_worker

from tsla.commands import prepare
from tsla.config.forms import default_config
from tsla.data import datasets, folders
from tsla.errors import InputError

FLAGS = (
  '--config=configs/own_tsla.py:1',
  '--config.epochs=2',
  '--config.batch_size=8',
  '--config.data.image_size=24',
  '--config.augment.crop=20',
  '--config.optimizer.learning_rate=0.01',
  '--config.data.validation=0',
  '--config.data.skip_corrupt=false',
  '--config.model.name=resnet8',
  '--config.model.width=4',
)


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
  """Of a folder with a broken image, first as it is, then without it."""
  tmp_path = tmp_path_factory.mktemp('folder')
  folder = tmp_path / 'images'
  archives.write_folder(folder)
  (folder / 'train/ant/003.jpg').write_bytes(b'\xff\xd8 no more')
  flags = [
    *FLAGS,
    f'--config.data.path={folder}',
    f'--workdir={tmp_path / "w"}',
  ]
  lines = {
    'without path': [FLAGS[0], f'--workdir={tmp_path / "w"}'],
    'corrupt': flags,
    'skipped': [*flags, '--config.data.skip_corrupt=true'],
  }
  (tmp_path / 'lines.json').write_text(json.dumps(lines))
  return tmp_path, run_worker('main_worker.py', tmp_path / 'lines.json')


def test_the_folder_holds_every_kind_of_jpeg(outcomes):
  folder, _ = outcomes
  kinds, sizes = set(), set()
  for path in folder.glob('images/*/*/*.jpg'):
    if path.stat().st_size > 20:
      with Image.open(path) as image:
        kinds.add(image.mode)
        sizes.add(image.size)
  assert kinds == {'RGB', 'L', 'CMYK'}
  assert len(sizes) > 20 and 1 in {height for _, height in sizes}


def test_a_folder_is_trained_across_the_switch(outcomes):
  folder, lines = outcomes
  code, error, *_ = lines['skipped']
  assert code == 0, error
  assert '1 files left out: 1 damaged' in error
  assert 'images/train/ant/003.jpg' in error
  text = (folder / 'w' / 'metrics.jsonl').read_text()
  rows = [json.loads(row) for row in text.splitlines()]
  train = [row for row in rows if row['kind'] == 'train']
  # 19 images are two batches of 8 an epoch.
  assert [row['step'] for row in train] == [2, 4]
  assert [round(row['theta'], 3) for row in train] == [0.1, 0]
  assert [row['step'] for row in rows if row['kind'] == 'switch'] == [2]
  assert [row['count'] for row in rows if row['kind'] == 'eval'] == [8]


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('without path', ('data.path is empty', '--config.data.path=DIR')),
    (
      'corrupt',
      ('images/train/ant/003.jpg', '--config.data.skip_corrupt=true'),
    ),
  ],
)
def test_what_is_no_folder_of_images_is_named(outcomes, name, words):
  code, error, *_ = outcomes[1][name]
  assert code == 2 and 1 <= len(error.strip().splitlines()) <= 3, error
  assert all(word in error for word in words)


CLASSES = ['n01440764', 'n01443537', 'n02085620']
# As ImageNet's validation set: not in the order of their classes.
VALIDATION = {
  f'ILSVRC2012_val_{i:08}.JPEG': CLASSES[i * 2 % 3] for i in range(5)
}


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
  """Folders of ImageNet's form; each image is of its class's grey."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
  root = tmp_path / 'imagenet'
  for name in CLASSES:
    for index in range(3):
      save(root / 'train' / name / f'{name}_{index}.JPEG', name)
  for name, label in VALIDATION.items():
    save(root / 'val' / name, label)
  return root


def save(path, label):
  path.parent.mkdir(parents=True, exist_ok=True)
  grey = 80 * CLASSES.index(label)
  Image.new('RGB', (20, 30), (grey, grey, grey)).save(path)


LABELS = {
  'kaggle': (
    'labels.csv',
    ['ImageId,PredictionString']
    + [f'{n[:-5]},{c} 85 1 499 272' for n, c in reversed(VALIDATION.items())],
  ),
  'pairs': ('labels.txt', [f'{n} {c}' for n, c in VALIDATION.items()]),
  'in order': ('labels.txt', [*VALIDATION.values(), '']),
}


@pytest.mark.parametrize('form', LABELS)
def test_imagenet_s_folders_with_a_flat_validation_set_are_read(
  imagenet, form, capsys
):
  name, lines = LABELS[form]
  (imagenet / 'val' / name).write_text('\r\n'.join(lines))
  flags = ['folder', f'--data_dir={imagenet}', '--image_size=8']
  assert prepare.main(flags) == 0
  said = capsys.readouterr().out
  assert 'train: 9 images' in said and 'test: 5 images' in said
  data = default_config().data
  data.update(name='folder', path=str(imagenet), image_size=8)
  found = datasets.load_dataset(data)
  assert list(found.class_names) == CLASSES
  for split in (found.train, found.test):
    grey = np.asarray(split.images)[:, 4, 4, 0].astype(int)
    np.testing.assert_array_equal(np.rint(grey / 80), split.labels)
  assert sorted(found.test.labels) == sorted(
    CLASSES.index(c) for c in VALIDATION.values()
  )


def test_too_few_labels_are_refused_and_other_files_of_that_name_are_not(
  imagenet,
):
  (imagenet / 'val/labels.txt').write_text('n01440764\n' * 4)
  with pytest.raises(InputError, match=r'labels\.txt: 4 lines') as error:
    folders.list_images(str(imagenet))
  assert 'FILE CLASS; or 5 classes' in str(error.value)
  (imagenet / 'val/labels.txt').unlink()
  (imagenet / 'labels.txt').write_text('n01440764\nn01443537\n')
  assert folders.list_images(str(imagenet)).class_names == CLASSES


@pytest.mark.parametrize(
  ('texts', 'words'),
  [
    (
      {'labels.txt': f'{next(iter(VALIDATION))} {CLASSES[1]}'},
      ['labels.txt: ILSVRC2012_val_00000000', *CLASSES[:2], 'one class'],
    ),
    (  # with and without suffix it is the same image
      {'labels.txt': f'ILSVRC2012_val_00000000 {CLASSES[1]}'},
      ['labels.txt: ILSVRC2012_val_00000000', *CLASSES[:2], 'one class'],
    ),
    ({'labels.csv': 'x'}, ['labels.csv', 'labels.txt', 'one of them']),
    ({'labels.txt': 'ÿ'.encode('latin-1')}, ['labels.txt', 'UTF-8']),
  ],
)
def test_labels_that_contradict_each_other_are_refused(imagenet, texts, words):
  right = '\n'.join(f'{n} {c}' for n, c in VALIDATION.items())
  (imagenet / 'val/labels.txt').write_text(right)
  assert folders.list_images(str(imagenet)).splits['test'].size == 5
  for name, more in texts.items():
    more = more if isinstance(more, bytes) else more.encode()
    with (imagenet / 'val' / name).open('ab') as file:
      file.write(b'\n' + more)
  with pytest.raises(InputError) as error:
    folders.list_images(str(imagenet))
  assert all(word in str(error.value) for word in words), error.value
  assert len(str(error.value).splitlines()) <= 3


def test_names_with_dots_and_classes_of_words_keep_their_labels(tmp_path):
  for name in ('a.001.png', 'a.002.png'):
    (tmp_path / 'val').mkdir(exist_ok=True)
    (tmp_path / 'val' / name).write_bytes(b'')
  files = ['a.001.png', 'a.002.png', 'labels.txt']
  labels = tmp_path / 'val/labels.txt'
  labels.write_text('golden retriever\ntabby cat\n')
  assert folders._labels(tmp_path / 'val', files) == {
    'a.001.png': 'golden retriever',
    'a.002.png': 'tabby cat',
  }
  labels.write_text('a.002 x\na.001 y\n')
  listed = {
    row[1].name: row[0] for row in folders._below(tmp_path) if 'png' in str(row)
  }
  assert listed == {'a.001.png': 'y', 'a.002.png': 'x'}


def test_a_corrupt_image_is_found_by_prepare(imagenet, capsys):
  broken = imagenet / 'train/n01443537/n01443537_1.JPEG'
  broken.write_bytes(broken.read_bytes()[:200])
  flags = ['folder', f'--data_dir={imagenet}', '--image_size=8']
  assert prepare.main(flags) == 2
  error = capsys.readouterr().err.splitlines()
  assert str(broken) in error[-2] and len(error) <= 3
  assert prepare.main([*flags, '--skip_corrupt']) == 0
  assert '1 damaged' in capsys.readouterr().out
