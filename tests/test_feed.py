"""A set larger than the device: the same batches, read ahead from the disk."""

import hashlib
import json
import os
import shutil
import signal
import threading
import time

import faults
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support import changed, run_worker

from tsla.data import batches, feed
from tsla.data.datasets import Dataset, Split
from tsla.data.pipeline import View
from tsla.errors import InputError
from tsla.evaluation import metrics
from tsla.runs.lifecycle import Interrupted
from tsla.runs.log import RunLog
from tsla.training import loop, parallel
from tsla.training.feeds import Feeds, length_at
from tsla.training.reporter import Reporter
from tsla.training.step import TrainState, make_evaluation

SIDE = (3, 2, 3)
VIEW = View(0, 0, False, (0.0,), (1.0,), 'float32')


@pytest.fixture
def images(tmp_path):
  """103 images, mapped from a file as a cache has them."""
  return mapped(103, tmp_path / 'images')


def mapped(count, path):
  pixels = np.random.default_rng(0).integers(0, 256, (count, *SIDE), np.uint8)
  path.write_bytes(pixels.tobytes())
  return np.asarray(np.memmap(path, np.uint8, 'r', shape=pixels.shape))


def dataset_of(images, test=None):
  labels = np.arange(len(images), dtype=np.int32) % 5
  train = Split(images, labels)
  return Dataset('set', train, test or train, tuple('abcde'), '')


def feeds_of(images, kind='mapped', at_most=4, batch_size=10, **more):
  values = {'seed': 3, 'total_steps': 10**8, **more}
  return Feeds(
    *(kind, dataset_of(images), parallel.choose('jit', batch_size)),
    **{'batch_size': batch_size, 'at_most': at_most, **values},
  )


def sha256(array):
  return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def expected(images, step, length, batch_size=10, seed=3):
  """By plain NumPy; only the order is the project's own."""
  per_epoch = len(images) // batch_size
  epoch, first = divmod(step, per_epoch)
  order = np.asarray(batches.epoch_order(seed, epoch, len(images)))
  rows = order[first * batch_size : (first + length) * batch_size]
  return rows.reshape(length, batch_size), np.array(images)[rows]


def test_every_seed_that_a_config_may_have_is_read(images):
  seed = 2**32 - 1
  fed = feeds_of(images, seed=seed).updates(0, 4)
  rows, _ = expected(images, 0, 4, seed=np.uint32(seed))
  np.testing.assert_array_equal(fed.indices, rows)


@pytest.mark.parametrize('threads', [1, 2, 5])
@pytest.mark.parametrize('piece', [1, 16])
@pytest.mark.parametrize('ahead', [0, 3])
def test_batches_are_numpys_at_any_step_for_any_threads_pieces_and_ahead(
  images, monkeypatch, threads, piece, ahead
):
  for name, value in (('THREADS', threads), ('PIECE', piece), ('AHEAD', ahead)):
    monkeypatch.setattr(feed, f'_{name}', value)
  feeds = feeds_of(images, at_most=2)
  assert feeds.longest == 2
  for step in (0, 9, 10, 1_000_000):  # an epoch has 10
    length = length_at(step, 10, 2)
    fed = feeds.updates(step, length)
    rows, pixels = expected(images, step, length)
    np.testing.assert_array_equal(fed.indices, rows)
    assert sha256(fed.images) == sha256(pixels)


@pytest.fixture
def counted(monkeypatch):
  """How many rows each piece had that was read."""
  pieces, real = [], feed._copier

  def copier(images):
    copy = real(images)
    return lambda rows, out: (pieces.append(len(rows)), copy(rows, out))

  monkeypatch.setattr(feed, '_copier', copier)
  return pieces


def test_a_call_asks_for_those_after_it_and_ends_with_the_epoch_and_the_run(
  images, counted
):
  assert [length_at(step, 10, 4) for step in (0, 4, 8, 9, 10)] == [
    *(4, 4, 2, 1, 4)
  ]
  feeds = feeds_of(images, batch_size=9, total_steps=22)  # two epochs
  calls = [(0, 4), (4, 4), (8, 3), (11, 4), (15, 4), (19, 3)]
  feeds.updates(*calls[0])
  _until(lambda: sum(counted) == 9 * 11)  # two calls more
  for call in calls[1:]:
    feeds.updates(*call)
  feeds._train._pool.shutdown()
  assert sum(counted) == 9 * 22 and not feeds._train._made


def test_another_call_than_the_next_is_made_anew():
  made = []
  reads = feed.Feed(lambda key: made.append(key) or -key, lambda key: key + 1)
  assert [reads.take(key) for key in (5, 6, 90, 91, 6)] == [
    *(-5, -6, -90, -91, -6)
  ]


def test_what_goes_wrong_in_the_thread_is_raised_where_it_is_taken():
  def make(key):
    if key == 2:
      raise InputError('bad disk')
    return key

  reads = feed.Feed(make, lambda key: key + 1)
  assert [reads.take(0), reads.take(1)] == [0, 1]
  with pytest.raises(InputError, match='bad disk'):
    reads.take(2)


def test_the_next_calls_are_made_while_this_one_is_computed():
  taken, made = threading.Event(), []

  def make(key):
    if key:
      assert taken.wait(20)
    made.append(key)
    return key

  reads = feed.Feed(make, lambda key: key + 1)
  assert reads.take(0) == 0  # and does not wait for 1
  taken.set()
  _until(lambda: made == [0, 1, 2])
  time.sleep(0.05)
  assert made == [0, 1, 2]  # no more than two ahead


def _until(true, seconds=20):
  end = time.monotonic() + seconds
  while not true():
    assert time.monotonic() < end
    time.sleep(0.005)


def test_far_into_a_run_no_row_is_read_that_is_not_used(
  images, monkeypatch, counted
):
  monkeypatch.setattr(feed, '_AHEAD', 0)
  feeds = feeds_of(images)
  feeds.updates(10_000_000, 4)
  assert sum(counted) == 40


def test_a_chunk_that_was_handed_over_never_changes(images):
  """jax goes on to use NumPy's memory on the CPU: no slot is used again."""
  feeds = feeds_of(images, at_most=1)
  fed = [feeds.updates(step, 1) for step in range(10)]
  for step, each in enumerate(fed):
    np.testing.assert_array_equal(
      each.images, expected(images, step, 1)[1].reshape(1, 10, *SIDE)
    )


@pytest.mark.parametrize('kind', ['mapped', 'array', 'some', 'end'])
def test_rows_are_copied_from_files_arrays_and_parts_of_them(images, kind):
  source, pixels = images, np.array(images)
  if kind == 'array':
    source = pixels
  if kind == 'end':
    source, pixels = images[3:], pixels[3:]
  if kind == 'some':
    part = np.arange(100, 0, -3)
    source, pixels = feed.Rows(images, part), pixels[part]
    assert source.shape == pixels.shape and source.nbytes == pixels.nbytes
    np.testing.assert_array_equal(source[:], pixels)
    np.testing.assert_array_equal(np.stack(list(source)), pixels)
  rows = np.random.default_rng(1).integers(0, len(pixels), (3, 70))
  got = feed.reader(source)(rows)
  np.testing.assert_array_equal(got, pixels[rows])
  beyond = feed.reader(source)(np.array([0, 10**6]))
  np.testing.assert_array_equal(beyond, pixels[[0, -1]])


def test_a_file_that_is_cut_short_is_named(images, tmp_path):
  read = feed.reader(images)
  with (tmp_path / 'images').open('r+b') as file:
    file.truncate(50 * 18)
  np.testing.assert_array_equal(read(np.array([49])).shape, (1, *SIDE))
  with pytest.raises(InputError, match='images: shorter than it was'):
    read(np.array([49, 50]))


@pytest.mark.parametrize(
  ('memory', 'longest'), [(10**9, 10), (16 * 512, 2), (16 * 512 - 1, 1), (0, 1)]
)
def test_memory_decides_how_many_updates_a_call_has(
  images, monkeypatch, memory, longest
):
  monkeypatch.setenv('TSLA_DEVICE_MEMORY', str(memory))
  assert feeds_of(images, at_most=50).longest == longest
  assert feeds_of(images, kind='resident', at_most=50).longest == 10


def test_an_evaluation_of_50001_examples_counts_each_once(
  tmp_path, monkeypatch
):
  """Top-1 and NLL of a fixed linear network, by NumPy in float64."""
  images = mapped(50_001, tmp_path / 'test')
  labels = np.random.default_rng(1).integers(0, 5, 50_001).astype(np.int32)
  weights = np.random.default_rng(2).normal(size=(18, 5)).astype(np.float32)
  split, devices = Split(images, labels), parallel.choose('jit', 10)
  dataset = dataset_of(images[:100], split)

  def apply(variables, images, train):
    return images.reshape(len(images), -1) @ variables['params']

  sums = devices.map(make_evaluation(apply, VIEW))
  state = TrainState(jnp.int32(0), jnp.asarray(weights), {}, ())

  def evaluated(kind, memory, batch_size):
    monkeypatch.setenv('TSLA_DEVICE_MEMORY', str(memory))
    feeds = Feeds(
      *(kind, dataset, devices),
      **{'seed': 0, 'batch_size': 10, 'at_most': 1, 'total_steps': 10},
    )
    placed = feeds.examples(split)
    found = feeds.evaluation(sums, split, placed, batch_size)(state)
    return jax.tree.map(np.asarray, found)

  logits = (np.array(images) / 255).reshape(len(images), -1) @ weights
  hits = (logits.argmax(1) == labels).sum()
  wrong = np.log(np.exp(logits).sum(1)) - logits[np.arange(50_001), labels]
  metrics_of = []
  for batch_size in (512, 300):
    resident = evaluated('resident', 10**9, batch_size)
    for memory in (10**9, 10**6):
      mapped_ = evaluated('mapped', memory, batch_size)
      for a, b in zip(*map(jax.tree.leaves, (resident, mapped_)), strict=True):
        np.testing.assert_array_equal(a, b)
    metrics_of.append(metrics.finalize(resident))
    assert metrics_of[-1]['count'] == 50_001
    # Of ties in float32.
    assert abs(metrics_of[-1]['top1'] * 50_001 - hits) <= 2
    assert metrics_of[-1]['nll'] == pytest.approx(wrong.mean(), 1e-5)
  first, second = metrics_of
  assert first == pytest.approx(second, 1e-5, 1e-7)


@pytest.mark.ci
@pytest.mark.usefixtures('compile_once')
def test_a_mapped_run_that_is_stopped_goes_on_with_either_feed(
  config, tmp_path, monkeypatch, capsys
):
  """Within an epoch, with other threads: the resident run's bits and rows."""
  options = {'log_every_steps': 3, 'augment__pad': 0}
  config = changed(config, augment__crop_area=0.08, **options)
  loop.train_and_evaluate(config, tmp_path / 'resident')
  assert 'feed       resident, 0.0 GB of images' in capsys.readouterr().err
  config.data.feed = 'mapped'
  loop.train_and_evaluate(config, tmp_path / 'mapped')
  assert 'feed       mapped, 0.0 GB of images' in capsys.readouterr().err
  stop_after(config, tmp_path / 'stopped', monkeypatch, 6)
  shutil.copytree(tmp_path / 'stopped', tmp_path / 'other')
  monkeypatch.setattr(feed, '_THREADS', 1)
  monkeypatch.setattr(feed, '_PIECE', 3)
  loop.train_and_evaluate(config, tmp_path / 'stopped')
  config.data.feed = 'resident'
  loop.train_and_evaluate(config, tmp_path / 'other')
  whole = [f(tmp_path / 'resident') for f in (end, faults.rows)]
  for name in ('mapped', 'stopped', 'other'):
    assert [f(tmp_path / name) for f in (end, faults.rows)] == whole, name


@pytest.mark.ci
def test_windows_of_random_area_are_the_same_for_each_feed_and_any_devices(
  tmp_path,
):
  one, four = (
    run_worker('feed_worker.py', tmp_path, mode, 'crop', devices=devices)[
      'runs'
    ]
    for devices, mode in ((1, 'jit'), (4, 'pmap'))
  )
  for runs in (one, four):
    for what in ('losses', 'tests', 'state'):
      assert runs['auto'][what] == runs['resident'][what], what
  losses = [runs['resident']['losses'] for runs in (one, four)]
  assert losses[1] == pytest.approx(losses[0], 1e-4)


@pytest.mark.usefixtures('compile_once')
def test_a_run_stays_with_its_feed_or_says_that_it_cannot(
  config, tmp_path, monkeypatch, capsys
):
  config = changed(config, log_every_steps=3, data__feed='mapped')
  stop_after(config, tmp_path / 'run', monkeypatch, 6)
  kept = tmp_path / 'run' / 'data.json'
  assert json.loads(kept.read_text())['feed'].startswith('mapped, 0.0 GB')
  capsys.readouterr()
  config.data.feed = 'auto'
  loop.train_and_evaluate(config, tmp_path / 'run')
  assert 'feed       mapped, 0.0 GB of images' in capsys.readouterr().err
  shutil.rmtree(tmp_path / 'run')
  stop_after(config, tmp_path / 'run', monkeypatch, 6)
  assert json.loads(kept.read_text())['feed'].startswith('resident, ')
  monkeypatch.setenv('TSLA_DEVICE_MEMORY', '1000')
  with pytest.raises(InputError, match=r'data\.feed=mapped') as error:
    loop.train_and_evaluate(config, tmp_path / 'run')
  assert 'half of the device' in str(error.value)


@pytest.mark.ci
@pytest.mark.usefixtures('compile_once')
def test_images_that_are_damaged_while_a_run_reads_them_are_named(
  config, tmp_path, monkeypatch
):
  """The next start decodes them again, and ends as if nothing had been."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  with np.load(config.data.path) as arrays:
    for split in ('train', 'test'):
      labels = arrays[f'{split}_labels'].tolist()
      for index, label in enumerate(labels):
        folder = tmp_path / 'set' / split / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(arrays[f'{split}_images'][index].squeeze())
        image.save(folder / f'{index}.png')
  config = changed(config, data__name='folder', data__feed='mapped')
  config.data.path = str(tmp_path / 'set')
  loop.train_and_evaluate(config, tmp_path / 'whole')
  (images,) = (tmp_path / 'cache').rglob('train.images')
  chunk = Reporter.chunk

  def cut_at(self, before, step, row):
    chunk(self, before, step, row)
    if step == 5:
      os.truncate(images, 100)

  with monkeypatch.context() as patch:
    patch.setattr(Reporter, 'chunk', cut_at)
    with pytest.raises(InputError, match='images: shorter than') as error:
      loop.train_and_evaluate(config, tmp_path / 'run')
  assert 'start again' in str(error.value)
  loop.train_and_evaluate(config, tmp_path / 'run')
  whole, run = tmp_path / 'whole', tmp_path / 'run'
  assert (end(run), faults.rows(run)) == (end(whole), faults.rows(whole))


@pytest.mark.usefixtures('compile_once')
def test_a_state_is_saved_whatever_stops_the_evaluation_after_it(
  config, tmp_path, monkeypatch
):
  """The save goes on in a thread, and ends by writing the log to the disk."""
  config = changed(config, checkpoint_every_epochs=1, eval_test_curve=True)
  real, evaluating = RunLog.sync, threading.Event()

  def sync(self):
    assert evaluating.wait(20)
    time.sleep(0.2)  # until the log would be closed
    real(self)

  def evaluation(self, kind, step, found):
    evaluating.set()
    raise InputError('bad disk')

  with monkeypatch.context() as patch:
    patch.setattr(RunLog, 'sync', sync)
    patch.setattr(Reporter, 'evaluation', evaluation)
    with pytest.raises(InputError, match='bad disk'):
      loop.train_and_evaluate(config, tmp_path / 'run')
  assert (tmp_path / 'run/checkpoints/4').is_dir()


def stop_after(config, workdir, monkeypatch, update):
  chunk = Reporter.chunk

  def signal_at(self, before, step, row):
    chunk(self, before, step, row)
    if step == update:
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch, pytest.raises(Interrupted):
    patch.setattr(Reporter, 'chunk', signal_at)
    loop.train_and_evaluate(config, workdir)


def end(workdir):
  return faults.arrays(workdir, 16)


@pytest.mark.parametrize(
  ('mode', 'probed', 'devices'),
  [
    pytest.param('jit', ['last_layer'], 1, marks=pytest.mark.ci),
    pytest.param('jit', ['exact'], 1, marks=pytest.mark.slow),
    pytest.param('pmap', [], 4, marks=pytest.mark.ci),
    pytest.param('jit', [], 4, marks=pytest.mark.ci),
  ],
)
def test_a_mapped_run_is_the_resident_one_to_the_bit(
  tmp_path, mode, probed, devices
):
  """Parameters, losses and metrics; and each device is read its own rows."""
  result = run_worker(
    'feed_worker.py', tmp_path, mode, *probed, devices=devices
  )
  runs = result['runs']
  right, *others = runs.values()
  assert [(r['calls'], r['feed'].split(',')[0]) for r in runs.values()] == [
    *[(2, 'resident')],
    *[(2, 'mapped')] * len(probed),
    *[(8, 'mapped')],
  ]
  for got in others:
    for what in ('losses', 'tests', 'state'):
      # Over a mesh the compiler parts the two programs in its own ways.
      if (mode, devices) != ('jit', 4):
        assert got[what] == right[what], (got['feed'], what)
    for what in ('losses', 'sizes'):
      assert got[what] == pytest.approx(right[what], 1e-5, 1e-7), what
    # Its programs differ by more than where the images come from.
    close = pytest.approx(right['probed'], 1e-2, 1e-6, nan_ok=True)
    assert got['probed'] == close
  rows, size = np.array(result['rows']), 32 // devices
  columns = [rows[:, i : i + size].tolist() for i in range(0, 32, size)]
  assert result['same'] and result['parts'] == columns
  asked = [np.reshape(part, (2, size)).tolist() for part in result['asked']]
  assert sorted(asked) == sorted(columns)
