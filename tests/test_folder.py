"""A folder of one's own images, from the command line to the last row."""

import json

import archives
import pytest
from PIL import Image
from support import run_worker

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
