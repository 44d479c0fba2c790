"""Images of one's own: whatever they are, they are read or accounted for."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from support import changed

from configs import bases
from tsla.commands import evaluate
from tsla.config.checks import validate
from tsla.config.from_data import settle
from tsla.config.schema import FOLLOWING
from tsla.data import datasets, folders
from tsla.errors import InputError
from tsla.training import loop


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  """Decoded folders are new to each test."""
  path = tmp_path_factory.mktemp('cache')
  monkeypatch.setenv('XDG_CACHE_HOME', str(path))
  return path


def photo(seed=0, size=(60, 40)):
  pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3))
  return Image.fromarray(pixels.astype(np.uint8))


def write(root, images):
  """Writes name → image, bytes or text."""
  for name, content in images.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Image.Image):
      content.save(path)
    else:
      path.write_bytes(content)


def listed(path):
  """The files and labels of train and of test."""
  splits = folders.list_images(str(path)).splits
  return [
    [(file, label) for _, file, label in splits[split].read()]
    for split in ('train', 'test')
  ]


def own(path, **fields):
  config = bases.own()
  config.data.path = str(path)
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in fields.items()}
  )
  return config


def load(path, **fields):
  config = own(path, **fields)
  config.data.image_size = fields.get('data__image_size', 0)
  config.data.validation = 0.0
  return datasets.load_dataset(config.data)


@pytest.fixture
def messy(tmp_path):
  """Four classes, 200 files of every kind, and others."""
  root = tmp_path / 'messy'
  kinds = ('jpg', 'png', 'webp', 'gif', 'bmp', 'tif', 'jpeg', 'tiff', 'PNG')
  modes = ('RGB', 'L', 'RGB', 'P', 'RGB', 'RGB', 'CMYK', 'L', 'RGBA')
  for label, name in enumerate(('ant', 'bee', 'cat', 'dog')):
    for index in range(50):
      kind = index % len(kinds)
      deep = 'more/deep/' * (index % 7 == 0)
      image = photo(50 * label + index, (40 + index, 70 - index // 2))
      file = f'{name}/{deep}{index:03d}.{kinds[kind]}'
      write(root, {file: image.convert(modes[kind])})
  cut = root / 'ant/more/deep/000.jpg'
  cut.write_bytes(cut.read_bytes()[:-300])
  extra = {'ant/notes.txt': b'-', 'readme.md': b'-', 'bee/.DS_Store': b'-'}
  write(root, extra)
  (root / 'empty').mkdir()
  return root


def test_a_messy_folder_is_read_and_every_left_out_file_is_named(messy):
  dataset = load(messy, data__image_size=16)
  assert dataset.class_names == ('ant', 'bee', 'cat', 'dog')
  assert len(dataset.train.labels) + len(dataset.test.labels) == 199
  assert np.bincount(dataset.test.labels).tolist() == [10] * 4
  split, left_out = dataset.notes
  assert split == 'no test set: 40 of 200 images are it'
  assert left_out.startswith('5 files left out: ')
  named = ('readme.md', 'ant/notes.txt', 'bee/.DS_Store', 'empty')
  named += ('ant/more/deep/000.jpg',)
  assert {file for file, _ in dataset.left_out} == {
    str(messy / name) for name in named
  }
  with pytest.raises(InputError, match='not a readable image'):
    load(messy, data__image_size=16, data__skip_corrupt=False)


def test_the_test_set_of_a_folder_is_always_the_same(messy):
  first, again = (listed(messy) for _ in range(2))
  assert first == again
  assert not {file for file, _ in first[0]} & {file for file, _ in first[1]}


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_photo_is_turned_upright(tmp_path, orientation):
  """As a viewer turns it, which a table of NumPy says here."""
  turns = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
  }
  for suffix in ('png', 'webp'):
    folder = tmp_path / suffix
    write(folder, {f'{c}/{i}.png': photo(9) for c in 'ab' for i in range(2)})
    exif = Image.Exif()
    exif[0x0112] = orientation
    for path in folder.rglob('*.png'):
      path.unlink()
      options = {'lossless': True} if suffix == 'webp' else {}
      photo(9).save(path.with_suffix(f'.{suffix}'), exif=exif, **options)
    dataset = load(folder)
    want = turns[orientation](np.asarray(photo(9)))
    np.testing.assert_array_equal(dataset.train.images[0], want)


def test_of_16_bits_the_upper_half_is_kept(tmp_path):
  values = np.array([[0, 128, 129, 257, 32768, 65535]] * 2, np.uint16)
  deep = Image.fromarray(values)
  write(tmp_path, {f'{c}/{i}.png': deep for c in 'ab' for i in range(2)})
  dataset = load(tmp_path)
  assert dataset.train.images[0, 0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_val_serves_as_the_test_set_and_what_else_there_is_is_named(tmp_path):
  splits = ('train', 'val', 'extra')
  names = [f'{s}/{c}/{i}.png' for s in splits for c in 'ab' for i in range(2)]
  write(tmp_path, {name: photo() for name in names} | {'train/c.png': photo()})
  listing = folders.list_images(str(tmp_path))
  assert [split.size for split in listing.splits.values()] == [4, 4]
  assert 'val is the test set' in listing.notes
  assert len(listing.left_out) == 5
  (tmp_path / 'val').rename(tmp_path / 'test')
  assert not folders.list_images(str(tmp_path)).notes


def test_a_folder_in_a_folder_and_links_are_followed_but_not_in_circles(
  tmp_path,
):
  inside = tmp_path / 'a' / 'unpacked'
  write(inside, {f'{c}/{i}.png': photo() for c in 'xy' for i in range(3)})
  (inside / 'z').symlink_to(inside / 'x')
  (inside / 'x' / 'round').symlink_to(inside)
  listing = folders.list_images(str(tmp_path / 'a'))
  assert listing.class_names == ['x', 'y', 'z']
  assert sum(split.size for split in listing.splits.values()) == 9


def csv(root, text, name='labels.csv'):
  write(root, {f'all/{i}.png': photo(i) for i in range(8)})
  (root / name).write_text(text, encoding='utf-8-sig')
  return folders.list_images(str(root / name))


def test_a_csv_names_images_labels_and_splits(tmp_path):
  lines = ['path, label, source', *(f'all/{i}.png,{i % 2},x' for i in range(8))]
  lines += ['all/9.png,1,x', 'all/3.png,1,x', 'all/7.png,,x']
  listing = csv(tmp_path, '\n'.join(lines))
  assert listing.class_names == ['0', '1']
  assert [split.size for split in listing.splits.values()] == [6, 2]
  assert [why for _, why in listing.left_out] == [
    *('not there', 'named twice', 'without label'),
  ]
  rows = ['path,label,split', 'all/0.png,a,train', 'all/1.png,b,train']
  rows += ['all/2.png,a,test', 'all/3.png,b,elsewhere', 'all/4.png,,train']
  listing = csv(tmp_path, '\n'.join(rows))
  splits = listed(tmp_path / 'labels.csv')
  names = [[(file.name, label) for file, label in split] for split in splits]
  assert names == [[('0.png', 0), ('1.png', 1)], [('2.png', 0)]]
  assert [why for _, why in listing.left_out] == [
    *('without label', 'of split elsewhere'),
  ]
  for text in ('file,class\na,b', '', 'path,label\nnone.png,a'):
    with pytest.raises(InputError, match=r'columns|no training images'):
      csv(tmp_path, text)


def npz(path, labels, **more):
  labels = np.asarray(labels)
  images = np.zeros((len(labels), 8, 6, 1), np.uint8)
  halves = {'train_labels': labels, 'test_labels': labels}
  both = {'train_images': images, 'test_images': images}
  np.savez(path, **halves, **both, **more)
  return load(path, data__name='npz')


@pytest.mark.parametrize(
  ('labels', 'want', 'names'),
  [
    ([1, 2, 4, 3], [0, 1, 3, 2], '1234'),
    ([300, 0, 100, 200], [3, 0, 1, 2], ('0', '100', '200', '300')),
    (['dog', 'ant', 'dog'], [1, 0, 1], ('ant', 'dog')),
    ([b'dog', b'ant', b'dog'], [1, 0, 1], ('ant', 'dog')),
    (np.array([7, 9], np.uint64), [0, 1], '79'),
  ],
)
def test_labels_of_an_npz_are_mapped_and_recorded(
  tmp_path, labels, want, names
):
  dataset = npz(tmp_path / 'a.npz', labels)
  assert dataset.train.labels.tolist() == dataset.test.labels.tolist() == want
  assert dataset.class_names == tuple(names)
  (note,) = dataset.notes
  assert note.endswith(' are ' + ', '.join(names))


def test_labels_that_are_texts_follow_class_names(tmp_path):
  names = np.array(['emu', 'dog', 'ant'])
  dataset = npz(tmp_path / 'a.npz', ['ant', 'emu', 'dog'], class_names=names)
  assert dataset.train.labels.tolist() == [2, 0, 1]
  assert dataset.class_names == ('emu', 'dog', 'ant')
  with pytest.raises(InputError, match='cow'):
    npz(tmp_path / 'a.npz', ['ant', 'cow'], class_names=names)
  names = np.array(['crane', 'dog', 'crane'])
  with pytest.raises(InputError, match=r"\['crane'\] are not once"):
    npz(tmp_path / 'a.npz', ['dog', 'crane', 'crane'], class_names=names)
  dataset = npz(tmp_path / 'a.npz', [2, 0, 1], class_names=names)
  assert dataset.train.labels.tolist() == [2, 0, 1]


def test_what_follows_from_a_folder(messy):
  config = settle(own(messy))
  sides = []
  for index in range(50):
    sides.append(min(40 + index, 70 - index // 2))
  assert config.data.image_size == int(np.median(sides))
  dataset = datasets.load_dataset(config.data)
  pixels = dataset.train.images[:].astype(np.float64) / 255
  np.testing.assert_allclose(
    config.data.mean, pixels.mean((0, 1, 2)), atol=6e-5
  )
  np.testing.assert_allclose(config.data.std, pixels.std((0, 1, 2)), atol=6e-5)
  assert config.batch_size == 8  # 143 images to train on
  assert config.optimizer.learning_rate == pytest.approx(0.1 * 8 / 128)
  small = config.data.image_size
  assert (config.augment.pad, config.augment.crop) == (-(-small // 8), 0)
  assert config.augment.flip and config.model.stem == 'cifar'
  assert config.from_data == ()
  validate(config)


def test_what_is_given_does_not_follow(messy):
  config = own(messy)
  config.from_data = tuple(set(FOLLOWING) - {'batch_size', 'data.image_size'})
  config.batch_size, config.data.image_size = 24, 200
  config = settle(config)
  assert (config.batch_size, config.data.image_size) == (24, 200)
  assert config.optimizer.learning_rate == pytest.approx(0.1 * 24 / 128, 1e-3)
  assert (config.augment.pad, config.augment.crop) == (0, 175)
  assert config.model.stem == 'imagenet'


def test_nothing_is_shifted_where_windows_are_of_random_area(messy):
  config = own(messy)
  config.augment.crop_area = 0.08
  config = settle(config)
  assert (config.augment.pad, config.augment.crop) == (0, 0)
  validate(config)


def test_a_grey_npz_is_found_by_its_name_and_not_mirrored(tmp_path):
  npz(tmp_path / 'a.npz', [0, 1] * 20)
  config = settle(own(tmp_path / 'a.npz'))
  assert config.data.name == 'npz' and config.data.image_size == 6
  assert not config.augment.flip and len(config.data.mean) == 1
  assert config.data.std == (0.001,)  # all images are black


def test_what_follows_is_found_without_a_cache_too(tmp_path, monkeypatch):
  npz(tmp_path / 'a.npz', [0, 1] * 20)
  before = settle(own(tmp_path / 'a.npz'))
  monkeypatch.setenv('XDG_CACHE_HOME', '/dev/null/x')
  again = settle(own(tmp_path / 'a.npz'))
  assert again.to_dict() == before.to_dict()


def test_an_image_is_fitted_by_its_header(tmp_path):
  buffer = io.BytesIO()
  photo(0, (700, 300)).save(buffer, 'PNG')
  names = [f'{c}/{i}.png' for c in 'ab' for i in range(5)]
  write(tmp_path, {name: buffer.getvalue() for name in names})
  config = settle(own(tmp_path))
  assert (config.data.image_size, config.augment.crop) == (256, 224)


@pytest.mark.ci
def test_a_run_says_what_follows_and_what_was_left_out(messy, tmp_path, capsys):
  config = own(messy, epochs=2, model__name='resnet8', model__width=4)
  config = changed(config, data__image_size=16, log_every_steps=9)
  config.from_data = tuple({*FOLLOWING} - {'data.image_size'})
  workdir = tmp_path / 'run'
  test = loop.train_and_evaluate(config, workdir)
  printed = capsys.readouterr().err
  assert 'from the data: ' in printed and 'batch_size = 8' in printed
  assert 'folder: 5 files left out: ' in printed
  assert '16 to select by, 40 test, 4 classes' in printed
  fields = json.loads((workdir / 'config.json').read_text())
  assert fields['batch_size'] == 8 and fields['from_data'] == []
  data = json.loads((workdir / 'data.json').read_text())
  assert [why for _, why in data['left_out']].count('damaged') == 1
  assert len(data['left_out']) == 5 and len(data['notes']) == 2
  assert loop.train_and_evaluate(config, workdir) == test  # finished
  for split, count in (('test', 40), ('all', 199)):
    argv = [str(workdir), f'--data.path={messy}', f'--split={split}']
    assert evaluate.main(argv) == 0
    assert f'{split}, {count} images' in capsys.readouterr().out
  fields |= {'data.name': 'cifar100'}  # the path is no prepared set's
  (workdir / 'config.json').write_text(json.dumps(fields))
  before = sorted(messy.rglob('*'))
  assert evaluate.main([str(workdir), f'--data.path={messy}']) == 0
  found = capsys.readouterr().out
  assert f"test, 40 images of data.name = 'folder', data.path = '{messy}'" in (
    found
  )
  assert sorted(messy.rglob('*')) == before
