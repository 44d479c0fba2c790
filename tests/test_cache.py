"""Images are decoded once, and what is kept of them is never wrong."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import ml_collections
import numpy as np
import pytest
from PIL import Image
from support import Disk

from tsla.data import cache, datasets, images
from tsla.errors import InputError

SCRIPT = """
import itertools, os, signal, sys, time
import ml_collections
from tsla.data import cache, datasets, images
def load(skip_corrupt=False):
  return datasets.load_dataset(ml_collections.ConfigDict(dict(
    name='folder', path=sys.argv[1], image_size=6, download=False,
    skip_corrupt=skip_corrupt, label_noise=0, validation=0)))
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
  """Where decoded folders are kept."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
  return tmp_path / 'xdg' / 'tsla' / 'decoded'


@pytest.fixture
def folder(tmp_path):
  """A folder of 2 × 2 × 4 JPEGs of as many sizes."""
  rng = np.random.default_rng(0)
  for split in ('train', 'test'):
    for name in ('ant', 'bee'):
      path = tmp_path / 'photos' / split / name
      path.mkdir(parents=True)
      for index in range(4):
        size = (*rng.integers(7, 20, 2), 3)
        pixels = rng.integers(0, 256, size, np.uint8)
        Image.fromarray(pixels).save(path / f'{index}.jpg')
  return tmp_path / 'photos'


def config(path, name='folder', image_size=6, skip_corrupt=False):
  return ml_collections.ConfigDict(
    {
      'name': name,
      'path': str(path),
      'image_size': image_size,
      'download': True,
      'skip_corrupt': skip_corrupt,
      'label_noise': 0.0,
      'validation': 0.0,
    }
  )


def expected(folder, split, size=6):
  files = sorted((folder / split).glob('*/*.jpg'))
  return np.stack(
    [
      np.asarray(
        Image.open(file)
        .convert('RGB')
        .resize((size, size), Image.Resampling.BILINEAR)
      )
      for file in files
    ]
  )


def aspects(folder, split):
  files = sorted((folder / split).glob('*/*.jpg'))
  shapes = [np.asarray(Image.open(file)).shape for file in files]
  return np.array([shape[1] / shape[0] for shape in shapes], np.float32)


def assert_is(dataset, folder, size=6):
  for split in ('train', 'test'):
    got = getattr(dataset, split)
    np.testing.assert_array_equal(got.images, expected(folder, split, size))
    np.testing.assert_array_equal(got.labels, [0] * 4 + [1] * 4)
    np.testing.assert_array_equal(got.aspects, aspects(folder, split))
    assert got.aspects.dtype == np.float32
  assert dataset.class_names == ('ant', 'bee')


@pytest.fixture
def decodings(monkeypatch):
  """Counts the images that are decoded."""
  seen, real = [], images._decode

  def decode(source, *args):
    seen.append(source)
    return real(source, *args)

  monkeypatch.setattr(images, '_decode', decode)
  return seen


def entries(home):
  return [about.parent for about in home.glob('*/*/about.json')]


def test_a_path_may_begin_with_the_user_s_home(folder, monkeypatch):
  monkeypatch.setenv('HOME', str(folder.parent))
  assert_is(datasets.load_dataset(config('~/photos')), folder)


def names(folder):
  return sorted(folder.rglob('*'))


def run_script(folder, *lines, argument=''):
  code = '\n'.join([SCRIPT, *lines])
  return subprocess.Popen(
    [sys.executable, '-c', code, str(folder), str(argument)],
    cwd=pathlib.Path(__file__).parents[1],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def test_a_folder_is_decoded_once_as_pillow_does_and_not_written_to(
  folder, decodings
):
  before = names(folder)
  first = datasets.load_dataset(config(folder))
  assert_is(first, folder)
  assert len(decodings) == 16
  again = datasets.load_dataset(config(folder))
  assert_is(again, folder)
  assert len(decodings) == 16
  assert again.fingerprint == first.fingerprint
  assert not again.train.images.flags.writeable
  assert names(folder) == before


def test_what_is_decoded_is_on_the_disk_before_it_has_its_name(
  folder, home, monkeypatch
):
  """Of the images only the size is checked when they are opened."""
  disk = Disk(monkeypatch)
  datasets.load_dataset(config(folder))
  (entry,) = entries(home)
  disk.assert_lasting(entry, home)


def test_a_tfds_set_is_decoded_once_beside_it_and_read_without_tfds(tmp_path):
  first = datasets.load_dataset(config(tmp_path, 'digits', 0))
  assert len(entries(tmp_path / '.decoded')) == 1
  code = f"""
import sys, ml_collections
from tsla.data import datasets, images
images._decode = None
dataset = datasets.load_dataset(ml_collections.ConfigDict(dict(
    name='digits', path={str(tmp_path)!r}, image_size=0, download=False,
    skip_corrupt=False, label_noise=0, validation=0)))
assert 'tensorflow_datasets' not in sys.modules
print(dataset.fingerprint, dataset.train.images.shape)
"""
  output = subprocess.check_output([sys.executable, '-c', code], text=True)
  assert output.strip() == f'{first.fingerprint} (1437, 8, 8, 1)'
  # It moves with the sets.
  moved = tmp_path.with_name('moved')
  shutil.copytree(tmp_path, moved)
  before = entries(moved / '.decoded')
  datasets.load_dataset(config(moved, 'digits', 0))
  assert entries(moved / '.decoded') == before


def test_fingerprint_is_that_of_the_same_arrays_and_aspects(folder, tmp_path):
  for split in ('train', 'test'):
    for place, image in enumerate(expected(folder, split)):
      path = tmp_path / 'squares' / split / ('ant', 'bee')[place // 4]
      path.mkdir(parents=True, exist_ok=True)
      Image.fromarray(image).save(path / f'{place}.png')
  dataset = datasets.load_dataset(config(tmp_path / 'squares'))
  np.savez(
    tmp_path / 'same.npz',
    class_names=np.array(['ant', 'bee']),
    **{f'{s}_images': expected(folder, s) for s in ('train', 'test')},
    **{f'{s}_labels': [0] * 4 + [1] * 4 for s in ('train', 'test')},
  )
  same = datasets.load_dataset(config(tmp_path / 'same.npz', 'npz', 0))
  assert same.fingerprint == dataset.fingerprint
  # The same pixels of images that were no squares are cropped in another way.
  oblong = datasets.load_dataset(config(folder))
  np.testing.assert_array_equal(oblong.train.images, dataset.train.images)
  assert oblong.fingerprint != dataset.fingerprint


def test_a_prepared_set_that_cannot_be_written_to_uses_the_user_s_cache(
  tmp_path, home, monkeypatch
):
  root = tmp_path / 'sets'
  datasets.load_dataset(config(root, 'digits', 0))
  (ready,) = entries(root / '.decoded')
  real = os.access
  monkeypatch.setattr(
    os,
    'access',
    lambda path, mode: root not in (path, *path.parents) and real(path, mode),
  )
  datasets.load_dataset(config(root, 'digits', 0))  # read where it is
  assert not home.exists()
  datasets.load_dataset(config(root, 'digits', 4))
  assert len(entries(home)) == 1
  assert entries(root / '.decoded') == [ready]


def change(folder):
  Image.new('RGB', (9, 9)).save(folder / 'train/ant/0.jpg')


def touch(folder):
  os.utime(folder / 'test/bee/3.jpg', ns=(1, 1))


def rename(folder):
  (folder / 'test/bee/3.jpg').rename(folder / 'test/bee/4.jpg')


def change_in_secret(folder):
  """Other pixels under the size and the time of the old ones."""
  path = max(folder.rglob('*.jpg'), key=lambda file: file.stat().st_size)
  about, old = path.stat(), path.read_bytes()
  Image.new('L', (8, 8)).save(path, optimize=True)
  path.write_bytes(path.read_bytes().ljust(len(old), b'\0'))
  os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
  assert path.stat().st_size == about.st_size
  assert path.stat().st_mtime_ns == about.st_mtime_ns


@pytest.mark.parametrize('harm', [change, touch, rename, change_in_secret])
def test_a_changed_folder_is_decoded_again(folder, home, decodings, harm):
  datasets.load_dataset(config(folder))
  (old,) = entries(home)
  harm(folder)
  assert_is(datasets.load_dataset(config(folder)), folder)
  assert len(decodings) == 32
  assert old not in entries(home)
  assert len(entries(home)) == 1


def test_image_sizes_and_pillows_have_caches_of_their_own(
  folder, home, decodings, monkeypatch
):
  for _ in range(2):
    for size in (6, 5):
      dataset = datasets.load_dataset(config(folder, image_size=size))
      assert_is(dataset, folder, size)
  assert len(decodings) == 32
  assert len(entries(home)) == 2
  monkeypatch.setattr('PIL.__version__', '0.1')
  datasets.load_dataset(config(folder))
  assert len(decodings) == 48


def cut_images(entry):
  path = entry / 'train.images'
  path.write_bytes(path.read_bytes()[:-1])


def flip_pixel(entry):
  path = entry / 'train.images'
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)


def swap_parts(entry):
  path = entry / 'test.images'
  data = path.read_bytes()
  path.write_bytes(data[100:200] + data[:100] + data[200:])


def flip_fingerprint(entry):
  path = entry / 'about.json'
  about = json.loads(path.read_text())
  about['fingerprint'] = about['fingerprint'][::-1]
  path.write_text(json.dumps(about))


def flip_label(entry):
  path = entry / 'test.labels'
  data = bytearray(path.read_bytes())
  data[0] ^= 1
  path.write_bytes(data)


def flip_aspect(entry):
  path = entry / 'train.aspects'
  data = bytearray(path.read_bytes())
  data[2] ^= 1
  path.write_bytes(data)


def lose_aspects(entry):
  (entry / 'test.aspects').unlink()


def lose_labels(entry):
  (entry / 'train.labels').unlink()


def cut_about(entry):
  path = entry / 'about.json'
  path.write_text(path.read_text()[:-20])


def lose_class_names(entry):
  about = json.loads((entry / 'about.json').read_text())
  del about['class_names']
  (entry / 'about.json').write_text(json.dumps(about))


@pytest.mark.parametrize(
  'harm',
  [
    *(cut_images, flip_label, lose_labels, cut_about, lose_class_names),
    *(flip_pixel, swap_parts, flip_fingerprint, flip_aspect, lose_aspects),
  ],
)
def test_a_damaged_cache_is_named_and_built_again(
  folder, home, decodings, harm, monkeypatch, capsys
):
  monkeypatch.setattr(cache, '_PART', 100)  # bytes of images that have a hash
  datasets.load_dataset(config(folder))
  (entry,) = entries(home)
  harm(entry)
  cache._read_digests.cache_clear()  # as in another process
  capsys.readouterr()
  assert_is(datasets.load_dataset(config(folder)), folder)
  assert len(decodings) == 32
  said = capsys.readouterr().err.splitlines()
  assert all(str(entry) in line for line in said)
  assert said[0].endswith('its set is decoded again')
  datasets.load_dataset(config(folder))
  assert len(decodings) == 32
  assert not capsys.readouterr().err


def test_a_build_that_is_killed_is_not_trusted_and_swept(folder, home):
  process = run_script(
    folder,
    'real, count = cache._write_split, itertools.count()',
    'def write(*args):',
    '  if next(count): os.kill(os.getpid(), signal.SIGKILL)',
    '  return real(*args)',
    'cache._write_split = write',
    'load()',
  )
  output = process.communicate(timeout=120)[0]
  assert process.returncode == -signal.SIGKILL, output
  assert (home / '.building' / 'train.images').exists()
  assert not entries(home)
  assert_is(datasets.load_dataset(config(folder)), folder)
  assert not (home / '.building').exists()


KILLED = (
  'real = images.decode_all',
  'def decode_all(*args, **options):',
  '  for i, image in enumerate(real(*args, **options)):',
  '    if i == 5: os.kill(os.getpid(), int(sys.argv[2]))',
  '    yield image',
  'images.decode_all, cache._PART = decode_all, 100',
  'load()',
)


@pytest.fixture
def small_parts(monkeypatch):
  """Each image is one: it takes 108 bytes."""
  monkeypatch.setattr(cache, '_PART', 100)


def killed(folder, signum):
  process = run_script(folder, *KILLED, argument=int(signum))
  output = process.communicate(timeout=120)[0]
  assert process.returncode == -signum, output


@pytest.mark.ci
@pytest.mark.parametrize('signum', [signal.SIGKILL, signal.SIGTERM])
def test_a_build_that_is_killed_goes_on_after_its_last_part(
  folder, home, tmp_path, monkeypatch, decodings, small_parts, signum
):
  killed(folder, signum)
  building = home / '.building'
  for name in (
    'images',
    'labels',
    'aspects',
  ):  # beyond what is known to be kept
    with (building / f'train.{name}').open('ab') as file:
      file.write(b'half a part')
  (building / 'train.kept.partial').write_text('{"seen": 7')
  dataset = datasets.load_dataset(config(folder))
  assert len(decodings) == 11
  assert_is(dataset, folder)
  assert not building.exists()
  (entry,) = entries(home)
  assert sorted(p.name for p in entry.iterdir()) == [
    *('about.json', 'test.aspects', 'test.images', 'test.labels'),
    *('train.aspects', 'train.images', 'train.labels'),
  ]
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'another'))
  whole = datasets.load_dataset(config(folder))
  assert whole.fingerprint == dataset.fingerprint


def test_a_build_that_lost_what_it_kept_begins_anew_and_not_with_black(
  folder, home, small_parts
):
  killed(folder, signal.SIGKILL)
  (home / '.building/train.images').write_bytes(b'')
  with pytest.raises(InputError, match='shorter than it was'):
    datasets.load_dataset(config(folder))
  assert_is(datasets.load_dataset(config(folder)), folder)


def test_a_strict_start_after_a_build_that_skipped_refuses_at_once(
  folder, home, small_parts, decodings
):
  (folder / 'train/ant/1.jpg').write_text('not an image')
  skipping = (*KILLED[:-1], 'load(skip_corrupt=True)')
  process = run_script(folder, *skipping, argument=int(signal.SIGKILL))
  output = process.communicate(timeout=120)[0]
  assert process.returncode == -signal.SIGKILL, output
  with pytest.raises(InputError, match=r'ant/1\.jpg: not a readable image'):
    datasets.load_dataset(config(folder))
  assert not decodings


def test_a_fault_of_the_images_disk_keeps_what_is_decoded(
  folder, home, small_parts, decodings, monkeypatch
):
  real, place = images._opened, str(folder / 'train/bee/2.jpg')

  def opened(source):
    if str(source) == place:
      raise OSError(5, 'Input/output error')
    return real(source)

  with monkeypatch.context() as fault:
    fault.setattr(images, '_opened', opened)
    fault.setattr(images, '_PART', 1)
    with pytest.raises(InputError, match=r'bee/2\.jpg: Input/output error'):
      datasets.load_dataset(config(folder))
  decodings.clear()
  dataset = datasets.load_dataset(config(folder))
  assert len(decodings) == 10  # of 16; 6 are before it
  assert_is(dataset, folder)


def test_a_disk_without_room_for_the_rest_keeps_what_is_decoded(
  folder, home, small_parts, decodings, monkeypatch
):
  killed(folder, signal.SIGKILL)
  with monkeypatch.context() as full:
    full.setattr(cache.shutil, 'disk_usage', lambda p: SimpleNamespace(free=0))
    with pytest.raises(InputError, match=r'0\.0 GB free'):
      datasets.load_dataset(config(folder))
  dataset = datasets.load_dataset(config(folder))
  assert len(decodings) == 11
  assert_is(dataset, folder)


@pytest.mark.parametrize('change', [touch, change_in_secret, None])
def test_what_was_killed_is_gone_on_with_for_the_same_files_and_size_only(
  folder, decodings, small_parts, change
):
  killed(folder, signal.SIGKILL)
  size = 6
  if change is None:
    size = 5
  else:
    change(folder)
  assert_is(
    datasets.load_dataset(config(folder, image_size=size)), folder, size
  )
  assert len(decodings) == 16


def test_after_a_corrupt_image_it_goes_on_where_that_is_left_out(
  folder, decodings, small_parts
):
  (folder / 'train/bee/1.jpg').write_text('not an image')
  with pytest.raises(images.CorruptImage):
    datasets.load_dataset(config(folder))
  decodings.clear()
  dataset = datasets.load_dataset(config(folder, skip_corrupt=True))
  assert len(decodings) == 16 - 5
  want = np.delete(expected_but(folder, 'train/bee/1.jpg'), 5, axis=0)
  np.testing.assert_array_equal(dataset.train.images, want)
  assert dataset.train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
  want = np.delete(aspects(folder, 'train'), 5)
  np.testing.assert_array_equal(dataset.train.aspects, want)


def expected_but(folder, broken):
  Image.new('RGB', (7, 7)).save(folder / broken)
  return expected(folder, 'train')


def test_a_disk_too_small_for_the_decoded_images_is_said_before(
  folder, home, decodings, monkeypatch, capsys
):
  usage = shutil._ntuple_diskusage(100, 0, 16 * 108 - 1)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
  with pytest.raises(InputError, match=r'GB of decoded images, 0\.0 GB free'):
    datasets.load_dataset(config(folder))
  assert not decodings and not (home / '.building').exists()
  monkeypatch.setattr(cache, '_WORTH_SAYING', 1000)
  monkeypatch.setattr(shutil, 'disk_usage', lambda p: usage._replace(free=1728))
  datasets.load_dataset(config(folder))
  assert 'GB of decoded images, 0.0 GB free' in capsys.readouterr().err


def test_the_cache_of_the_format_before_is_gone_before_it_is_decoded_anew(
  folder, home, decodings, monkeypatch
):
  with monkeypatch.context() as patch:
    patch.setattr(cache, '_FORMAT', cache._FORMAT - 1)
    patch.setattr(cache._place, '__defaults__', (cache._FORMAT,))
    datasets.load_dataset(config(folder))
  (old,) = entries(home)
  space = shutil.disk_usage

  def look(path):
    assert not old.parent.exists()  # it counts as free
    return space(path)

  monkeypatch.setattr(shutil, 'disk_usage', look)
  assert_is(datasets.load_dataset(config(folder)), folder)
  assert len(decodings) == 32 and len(entries(home)) == 1


def test_an_aspect_is_that_of_the_image_upright_in_any_mode(tmp_path):
  upright = {'a': (8, 4), 'b': (4, 8), 'c': (6, 6), 'd': (9, 3)}
  turned, mode = {'b': 6, 'd': 5}, {'a': 'CMYK', 'c': 'L'}
  for split in ('train', 'test'):
    for name, (width, height) in upright.items():
      exif, path = Image.Exif(), tmp_path / 'set' / split / name
      size = (height, width) if name in turned else (width, height)
      exif[0x0112] = turned.get(name, 1)
      path.mkdir(parents=True)
      image = Image.new(mode.get(name, 'RGB'), size)
      image.save(path / 'x.jpg', exif=exif)
  for size in (6, 5):
    train = datasets.load_dataset(config(tmp_path / 'set', image_size=size))
    found = train.train.aspects.tolist()
    assert found == [2.0, 0.5, 1.0, 3.0]


def test_a_large_cache_says_that_it_is_checked(folder, monkeypatch, capsys):
  datasets.load_dataset(config(folder))
  for most, lines in ((8 * 108, 0), (8 * 108 - 1, 2)):  # of a split
    monkeypatch.setattr(cache, '_SLOW', most)
    cache._read_digests.cache_clear()  # as in another process
    capsys.readouterr()
    datasets.load_dataset(config(folder))
    assert capsys.readouterr().err.count('0.0 GB are checked') == lines
    datasets.load_dataset(config(folder))
    assert not capsys.readouterr().err  # it has read them


@pytest.mark.ci
def test_two_processes_decode_once(folder, tmp_path):
  processes = [
    run_script(
      folder,
      'real = cache._build',
      'def build(*args):',
      "  print('builds'); time.sleep(0.5); real(*args)",
      'cache._build = build',
      "print('ready', flush=True)",
      "while not os.path.exists(sys.argv[1] + '/go'): time.sleep(0.01)",
      'print(load().fingerprint)',
    )
    for _ in range(2)
  ]
  for process in processes:
    assert process.stdout.readline() == 'ready\n'
  (folder / 'go').touch()
  outputs = [process.communicate(timeout=120)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert sum(output.count('builds') for output in outputs) == 1
  assert len({output.split()[-1] for output in outputs}) == 1


def test_a_full_disk_is_named_and_leaves_nothing(folder, home, monkeypatch):
  def full(descriptor):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(InputError) as error:
    datasets.load_dataset(config(folder))
  for word in (str(home), 'No space left', 'XDG_CACHE_HOME'):
    assert word in str(error.value)
  assert [path.name for path in home.iterdir()] == ['.lock']


def test_a_folder_that_changes_while_it_is_read_is_refused(
  folder, home, monkeypatch
):
  real = images._decode

  def decode(*args):
    touch(folder)
    return real(*args)

  monkeypatch.setattr(images, '_decode', decode)
  with pytest.raises(InputError, match='changed while it was read'):
    datasets.load_dataset(config(folder))
  assert not entries(home)
  assert not (home / '.building').exists()


def test_a_corrupt_image_is_named_or_skipped_and_counted(
  folder, home, decodings
):
  cut, text = folder / 'train/ant/2.jpg', folder / 'train/bee/0.jpg'
  cut.write_bytes(cut.read_bytes()[:-30])
  text.write_text('not an image')
  for _ in range(2):
    with pytest.raises(InputError) as error:
      datasets.load_dataset(config(folder))
    assert str(cut) in str(error.value)
    assert '--config.data.skip_corrupt=true' in str(error.value)
    assert not entries(home)
  decodings.clear()
  want = np.delete(
    np.stack(
      [
        np.zeros((6, 6, 3), np.uint8)
        if file in (cut, text)
        else np.asarray(
          Image.open(file)
          .convert('RGB')
          .resize((6, 6), Image.Resampling.BILINEAR)
        )
        for file in sorted((folder / 'train').glob('*/*.jpg'))
      ]
    ),
    [2, 4],
    axis=0,
  )
  for _ in range(2):
    dataset = datasets.load_dataset(config(folder, skip_corrupt=True))
    np.testing.assert_array_equal(dataset.train.images, want)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(dataset.test.labels) == 8
    (note,) = dataset.notes
    assert note.startswith('2 files left out: 2 damaged')
    assert str(cut) in note
  assert len(decodings) == 16
  (entry,) = entries(home)
  about = json.loads((entry / 'about.json').read_text())
  skipped = [where for where, _ in about['train']['skipped']]
  assert skipped == [str(cut), str(text)]
  # What one run was content with, another need not be.
  with pytest.raises(InputError, match='not a readable image'):
    datasets.load_dataset(config(folder))
  assert len(decodings) == 16


def test_what_is_no_damage_is_never_skipped(folder):
  os.mkfifo(folder / 'train/ant/6.png')
  with pytest.raises(InputError, match=r'6\.png: not a regular file'):
    datasets.load_dataset(config(folder, skip_corrupt=True))


def test_a_split_of_corrupt_images_only_is_refused(folder):
  for file in (folder / 'test').glob('*/*.jpg'):
    file.write_text('')
  with pytest.raises(InputError, match='test: no readable image'):
    datasets.load_dataset(config(folder, skip_corrupt=True))
