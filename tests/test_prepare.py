"""Sets are built once, checked, and never half."""

import contextlib
import functools
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading

import ml_collections
import numpy as np
import pytest
from archives import write_cifar100

from tsla.commands import prepare as command
from tsla.data import datasets, prepare, sources
from tsla.data.builders import BUILDERS, archive, builder_class, cifar100
from tsla.errors import InputError
from tsla.files import sha256_of

CLOSED = 'http://127.0.0.1:1/cifar.tar.gz'
SCRIPT = """
import sys
from tsla.data import prepare
from tsla.data.builders import BUILDERS, archive, builder_class, cifar100
url, size, sha256, data_dir, path = sys.argv[1:]
cifar100.Cifar100.ARCHIVES = (archive.Archive(url, int(size), sha256),)
"""


def config(path, name='cifar100', image_size=0, download=True):
  return ml_collections.ConfigDict(
    {
      'name': name,
      'path': str(path),
      'image_size': image_size,
      'download': download,
      'skip_corrupt': False,
      'label_noise': 0.0,
      'validation': 0.0,
    }
  )


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
  """A tiny CIFAR-100: (the archive's path, what was written)."""
  path = tmp_path_factory.mktemp('archive') / 'cifar.tar.gz'
  return path, write_cifar100(path)


@pytest.fixture
def register(monkeypatch, tiny):
  """Lets the builder expect the tiny archive instead of the genuine one."""

  def set_archive(url=CLOSED, **changes):
    facts = {key: tiny[1][key] for key in ('size', 'sha256')} | changes
    item = archive.Archive(url=url, **facts)
    monkeypatch.setattr(cifar100.Cifar100, 'ARCHIVES', (item,))

  set_archive()
  return set_archive


@pytest.fixture(scope='module')
def built(tmp_path_factory, tiny):
  """A data_dir that holds the tiny set; copy it before harming it."""
  root = tmp_path_factory.mktemp('built')
  with pytest.MonkeyPatch.context() as patch:
    item = archive.Archive(CLOSED, tiny[1]['size'], tiny[1]['sha256'])
    patch.setattr(cifar100.Cifar100, 'ARCHIVES', (item,))
    prepare.prepare('cifar100', root, [tiny[0]])
  return root


@pytest.fixture
def copied(built, tmp_path):
  return pathlib.Path(shutil.copytree(built, tmp_path / 'copy'))


@contextlib.contextmanager
def served(folder):
  class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
      pass

  class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *args):
      pass  # The first request only asks whether the server answers.

  handler = functools.partial(Quiet, directory=str(folder))
  with Server(('127.0.0.1', 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      yield f'http://127.0.0.1:{server.server_port}/cifar.tar.gz'
    finally:
      server.shutdown()
      thread.join()


def by_pixels(images, labels):
  """Examples in an order of their own, as TFDS shuffles them."""
  order = np.argsort([image.tobytes() for image in images])
  return images[order], labels[order]


def assert_is(dataset, written):
  for split in ('train', 'test'):
    got = getattr(dataset, split)
    assert got.images.dtype == np.uint8
    assert got.labels.dtype == np.int32
    want = by_pixels(written[f'{split}_images'], written[f'{split}_labels'])
    got = by_pixels(got.images, got.labels)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])
  assert dataset.class_names == written['class_names']
  assert dataset.num_classes == 100


def assert_helps(error, *words):
  text = str(error.value)
  assert len(text.splitlines()) <= 3
  for word in words:
    assert word in text


def leftovers(root):
  return [*root.glob('**/incomplete.*'), *root.glob('**/*.tmp.*')]


def run_script(tiny, root, *lines):
  path, facts = tiny
  return subprocess.Popen(
    [
      *(sys.executable, '-c', '\n'.join([SCRIPT, *lines]), CLOSED),
      *(str(facts['size']), facts['sha256'], str(root), str(path)),
    ],
    cwd=pathlib.Path(__file__).parents[1],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def test_load_downloads_builds_and_reads_what_was_written(
  register, tiny, tmp_path, monkeypatch
):
  asked = []
  real = socket.getaddrinfo

  def getaddrinfo(host, *args, **kwargs):
    asked.append(host)
    return real(host, *args, **kwargs)

  monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
  with served(tiny[0].parent) as url:
    register(url)
    dataset = datasets.load_dataset(config(tmp_path))
  assert_is(dataset, tiny[1])
  assert set(asked) == {'127.0.0.1'}
  assert 'tensorflow' not in sys.modules
  assert not leftovers(tmp_path)
  # Prepared: neither the network nor permission to use it is needed.
  again = datasets.load_dataset(config(tmp_path, download=False))
  assert again.fingerprint == dataset.fingerprint


def test_an_archive_fetched_by_hand_needs_no_network(
  register, tiny, tmp_path, capsys
):
  args = ['cifar100', f'--data_dir={tmp_path}', f'--archive={tiny[0]}']
  assert command.main(args) == 0
  directory = capsys.readouterr().out.splitlines()[-1]
  assert directory == str(tmp_path / 'cifar100' / '3.0.2')
  assert_is(datasets.load_dataset(config(tmp_path, download=False)), tiny[1])


def test_default_data_dir_is_that_of_tfds(built, tiny, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(built))
  assert_is(datasets.load_dataset(config('', download=False)), tiny[1])


def test_a_missing_set_without_download_names_the_command(tmp_path):
  with pytest.raises(InputError) as error:
    datasets.load_dataset(config(tmp_path, download=False))
  assert_helps(error, f'python -m tsla prepare cifar100 --data_dir={tmp_path}')
  assert not list(tmp_path.iterdir())


def test_an_archive_of_another_content_is_refused(register, tiny, tmp_path):
  cut = tmp_path / 'cut.tar.gz'
  cut.write_bytes(tiny[0].read_bytes()[:-1000])
  with pytest.raises(InputError) as error:
    prepare.prepare('cifar100', tmp_path, [cut])
  assert_helps(
    error,
    sha256_of(cut)[:12],
    tiny[1]['sha256'],
    'cifar.tar.gz',
    f'python -m tsla prepare cifar100 --data_dir={tmp_path} --archive=FILE',
  )
  with pytest.raises(InputError, match='No such file'):
    prepare.prepare('cifar100', tmp_path, [tmp_path / 'missing'])


@pytest.mark.parametrize('kind', ['refused', 'missing', 'silent', 'checksum'])
def test_a_failed_download_says_what_to_do_at_once(
  register, tiny, tmp_path, capsys, kind, monkeypatch
):
  """TFDS's downloader, which tries for minutes, is asked for what is there."""
  sums = {'sha256': '0' * 64} if kind == 'checksum' else {}
  manager, asked = archive.tfds.download.DownloadManager, []
  download = manager.download

  def noted(self, url):
    asked.append(url)
    return download(self, url)

  monkeypatch.setattr(manager, 'download', noted)
  with contextlib.ExitStack() as stack:
    if kind == 'refused':
      url = CLOSED
    elif kind == 'silent':
      monkeypatch.setattr(archive, '_PATIENCE', 0.2)
      port = stack.enter_context(
        socket.create_server(('127.0.0.1', 0))
      ).getsockname()[1]
      url = f'http://127.0.0.1:{port}/cifar.tar.gz'
    else:
      url = stack.enter_context(served(tiny[0].parent))
      url = url.replace('/cifar', '/no/cifar') if kind == 'missing' else url
    register(url, **sums)
    assert command.main(['cifar100', f'--data_dir={tmp_path}']) == 2
  assert asked == [url] * (kind == 'checksum')
  error = capsys.readouterr().err
  text = error[error.index('cifar100 cannot be prepared') :]
  assert len(text.splitlines()) == 3
  assert 'cifar.tar.gz with SHA-256' in text
  assert sums.get('sha256', tiny[1]['sha256']) in text
  assert (
    f'python -m tsla prepare cifar100 --data_dir={tmp_path} --archive=FILE'
  ) in text
  assert not (tmp_path / 'cifar100' / '3.0.2').exists()
  assert not leftovers(tmp_path)


@pytest.mark.parametrize(
  'full',
  [OSError(28, 'No space left on device'), RuntimeError('No space left')],
)
def test_a_full_disk_leaves_nothing(
  register, tiny, tmp_path, monkeypatch, full
):
  def fail(image):
    raise full

  monkeypatch.setattr(archive, 'png', fail)
  with pytest.raises(InputError) as error:
    prepare.prepare('cifar100', tmp_path, [tiny[0]])
  assert_helps(error, 'No space left', tiny[1]['sha256'], '--archive=FILE')
  assert not (tmp_path / 'cifar100' / '3.0.2').exists()
  assert not leftovers(tmp_path)


def test_kill_in_mid_build_leaves_no_set_and_the_next_try_builds_it(
  register, tiny, tmp_path
):
  process = run_script(
    tiny,
    tmp_path,
    'import itertools, os, signal',
    'count, real = itertools.count(), archive.png',
    'def png(image):',
    '  if next(count) == 50: os.kill(os.getpid(), signal.SIGKILL)',
    '  return real(image)',
    'archive.png = png',
    "prepare.prepare('cifar100', data_dir, [path])",
  )
  process.communicate(timeout=120)
  assert process.returncode == -signal.SIGKILL
  assert leftovers(tmp_path)
  assert not (tmp_path / 'cifar100' / '3.0.2').exists()
  prepare.prepare('cifar100', tmp_path, [tiny[0]])
  assert not leftovers(tmp_path)
  assert_is(datasets.load_dataset(config(tmp_path, download=False)), tiny[1])


def test_two_processes_at_once_build_one_set(tiny, tmp_path):
  processes = [
    run_script(
      tiny,
      tmp_path,
      'import os, time',
      'real = prepare._build',
      'def build(*args):',
      "  print('builds'); time.sleep(0.5); real(*args)",
      'prepare._build = build',
      "print('ready', flush=True)",
      "while not os.path.exists(data_dir + '/go'): time.sleep(0.01)",
      "prepare.prepare('cifar100', data_dir, [path])",
    )
    for _ in range(2)
  ]
  for process in processes:
    assert process.stdout.readline() == 'ready\n'
  (tmp_path / 'go').touch()
  outputs = [process.communicate(timeout=120)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert sum(output.count('builds') for output in outputs) == 1
  assert_is(datasets.load_dataset(config(tmp_path, download=False)), tiny[1])


def _delete(path):
  path.unlink()


def _truncate(path):
  path.write_bytes(path.read_bytes()[:70_000])


def _flip(path):
  data = bytearray(path.read_bytes())
  data[1_000] ^= 1
  path.write_bytes(data)


@pytest.mark.parametrize('harm', [_delete, _truncate, _flip])
def test_a_damaged_set_is_not_read(copied, harm):
  (shard,) = copied.glob('cifar100/3.0.2/*train.array_record*')
  harm(shard)
  with pytest.raises(InputError) as error:
    datasets.load_dataset(config(copied))
  assert_helps(error, "split 'train'", 'remove')


def test_a_set_that_holds_another_number_of_examples_is_not_read(copied):
  (train,) = copied.glob('cifar100/3.0.2/*train.array_record*')
  shutil.copy(train, str(train).replace('train', 'test'))
  with pytest.raises(InputError) as error:
    datasets.load_dataset(config(copied))
  assert_helps(error, "split 'test' holds 120 examples", '20', 'remove')


def test_a_set_without_its_description_is_not_trusted(copied):
  (copied / 'cifar100/3.0.2/dataset_info.json').unlink()
  with pytest.raises(InputError) as error:
    prepare.prepare('cifar100', copied)
  assert_helps(error, 'no readable set', 'remove')


def _edit(path, edit):
  info = json.loads(path.read_text())
  edit(info)
  path.write_text(json.dumps(info))


def test_a_set_of_another_format_is_refused(copied):
  _edit(
    copied / 'cifar100/3.0.2/dataset_info.json',
    lambda info: info.update(fileFormat='tfrecord'),
  )
  with pytest.raises(InputError) as error:
    datasets.load_dataset(config(copied))
  assert_helps(error, 'tfrecord', 'array_record')


def test_any_prepared_tfds_set_is_read_newest_version_first(copied, tiny):
  new = copied / 'other' / '1.10.0'
  shutil.move(copied / 'cifar100' / '3.0.2', new)
  for path in new.glob('cifar100-*'):
    name = path.name.replace('cifar100', 'other').replace('test', 'validation')
    path.rename(new / name)

  def rename(info):
    info.update(name='other', version='1.10.0')
    info['splits'][1]['name'] = 'validation'

  _edit(new / 'dataset_info.json', rename)
  (copied / 'other' / '1.9.0').mkdir()
  (copied / 'other' / '1.9.0' / 'dataset_info.json').write_text('{}')
  for name in ('other', 'other/1.10.0', 'other:1.10.0'):
    assert_is(datasets.load_dataset(config(copied, name)), tiny[1])


def test_imagenet_s_test_images_have_no_labels_and_are_left_alone(copied, tiny):
  new = copied / 'imagenet2012' / '5.1.0'
  shutil.move(copied / 'cifar100' / '3.0.2', new)
  for path in new.glob('cifar100-*'):
    name = path.name.replace('cifar100', 'imagenet2012')
    path.rename(new / name.replace('test', 'validation'))
    if 'train' in name:
      shutil.copy(new / name, new / name.replace('train', 'test'))

  def rename(info):
    info.update(name='imagenet2012', version='5.1.0')
    train, test = info['splits']
    test['name'] = 'validation'
    info['splits'].append({**train, 'name': 'test'})

  _edit(new / 'dataset_info.json', rename)
  loaded = datasets.load_dataset(config(copied, 'imagenet2012'))
  assert_is(loaded, tiny[1])


@pytest.mark.parametrize(
  ('kind', 'named'),
  [('label', 'target'), ('image', 'uint16'), ('splits', 'are train')],
)
def test_a_set_of_another_kind_is_refused(copied, kind, named):
  folder = copied / 'cifar100/3.0.2'

  def harm(info):
    if kind == 'splits':
      info['splits'].pop()
    else:
      features = info['featuresDict']['features']
      if kind == 'label':
        features['target'] = features.pop('label')
      else:
        features['image']['image']['dtype'] = 'uint16'

  file = 'dataset_info.json' if kind == 'splits' else 'features.json'
  _edit(folder / file, harm)
  with pytest.raises(InputError) as error:
    datasets.load_dataset(config(copied))
  assert_helps(error, "data.name = 'cifar100'", named)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
  with pytest.raises(InputError) as error:
    datasets.load_dataset(config(tmp_path, 'cifar10'))
  assert_helps(
    error, 'digits', 'folder', 'npz', 'array_record', 'data.name=cifar100'
  )
  with pytest.raises(InputError) as error:
    prepare.prepare('digit', tmp_path)
  assert_helps(error, 'python -m tsla prepare digits')
  with pytest.raises(InputError) as error:
    prepare.prepare('imagenet2012', tmp_path)  # which lies in another folder
  assert_helps(error, f'not in {tmp_path}', '--data_dir=DIR')


def test_no_file_stays_open_of_a_set_that_may_have_a_thousand(copied):
  """As many as a process may have open; a reader keeps its own."""
  source = sources.find_tfds('cifar100', str(copied), download=False)
  handles = pathlib.Path('/proc/self/fd')
  for examples in source.open().splits.values():
    assert sum(1 for _ in examples.read()) == examples.size
    names = [os.path.realpath(handle) for handle in handles.iterdir()]
    assert not [name for name in names if 'array_record' in name]


@pytest.mark.parametrize('name', sorted(set(BUILDERS) - {'digits'}))
def test_version_and_archives_are_those_that_tfds_knows(name):
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.download import checksums

  builder = builder_class(name)
  known = tfds.builder_cls(name)
  assert builder.VERSION == known.VERSION
  assert builder.name == known.name == name
  infos = checksums.get_all_url_infos() | known.url_infos
  for item in builder.ARCHIVES:
    info = infos[item.url]
    assert (item.size, item.sha256) == (info.size, info.checksum)
    assert item.filename == info.filename
