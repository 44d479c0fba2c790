"""Damaged and hostile input from a fixed seed: an InputError, and in time.

Nothing here says what is right: whatever is read without a complaint counts as
well as one, as long as nothing else is raised.
"""

import collections
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile

import faults
import numpy as np
import pytest
from PIL import Image
from support import ROOT, run_worker, small_config, write_digits_npz

from configs import digits_tsla
from tsla.config import forms
from tsla.config.checks import validate
from tsla.config.schema import FIELDS
from tsla.data import images
from tsla.data.datasets import load_dataset
from tsla.errors import InputError
from tsla.models import pretrained
from tsla.report.results import read_results
from tsla.runs import directory
from tsla.runs.checkpoint import Checkpoints
from tsla.training import loop

pytestmark = pytest.mark.slow

SHARE = float(os.environ.get('TSLA_FUZZ', '1'))  # of the counts below
SECONDS = 10  # of the process, for one input
GOLDEN = ROOT / 'tests/golden'
SMALL = [
  *('--config=configs/digits_tsla.py', '--config.epochs=1'),
  *('--config.smoothing.drop_epochs=0.5', '--config.model.name=resnet8'),
  *('--config.model.width=4', '--config.data.name=npz'),
  '--config.data.validation=0',
]
VALUES = [
  *(-1, 0, 1, 2, 99, 2**31 - 1, 2**31, 2**63, 10**400, -(10**400)),
  *(0.5, -0.5, 1e308, -1e308, 5e-324, float('nan'), float('inf')),
  *('', 'x' * 5000, '\0', '²', '~nosuchuser/x', '/', '..', 'a\nb', '1e308'),
  *(
    'FILE.py:name',
    'a://b',
    'run@²',
    'run@' + '9' * 5000,
    '(' * 3000,
    '\ud800',
  ),
  *(None, True, [], [1.5], [3, 2], [1e308], [float('nan')], ['a'], [[1]], {}),
]


def rounds(count):
  return range(max(1, round(count * SHARE)))


def tried(call, *args):
  """Whether `call` refused its input; it may neither hang nor raise else."""
  start = time.process_time()
  try:
    call(*args)
  except InputError as error:
    assert 1 <= len(str(error).splitlines()) <= 3
    refused = True
  else:
    refused = False
  assert time.process_time() - start < SECONDS, args
  return refused


def report(kind, outcomes):
  outcomes = list(outcomes)
  print(f'\n{kind}: {len(outcomes)} tried, {sum(outcomes)} refused')
  assert any(outcomes)
  return outcomes


def damaged(rng, data):
  """`data` with some bytes changed, cut, put in, doubled or zeroed."""
  data = bytearray(data)
  for _ in range(rng.integers(1, 4)):
    at = int(rng.integers(len(data) + 1))
    end = min(len(data), at + int(rng.integers(1, 40)))
    match rng.integers(6):
      case 0 if at < len(data):
        data[at] ^= 1 << int(rng.integers(8))
      case 1 if at < len(data):
        data[at] = int(rng.choice([0, 1, 127, 128, 255]))
      case 2:
        del data[at : end if rng.integers(2) else None]
      case 3:
        data[at:at] = rng.bytes(int(rng.integers(1, 20)))
      case 4:
        data[at:at] = data[at:end]
      case _:
        data[at:end] = bytes(end - at)
  return bytes(data)


def repacked(rng, data, change):
  """A zip archive in which one member is another, under a right CRC."""
  with zipfile.ZipFile(io.BytesIO(data)) as source:
    members = {name: source.read(name) for name in source.namelist()}
  name = str(rng.choice(list(members)))
  with zipfile.ZipFile(file := io.BytesIO(), 'w') as target:
    for each, content in members.items():
      content = change(rng, each, content) if each == name else content
      target.writestr(each, content)
  return file.getvalue()


def test_config_values():
  def use(flat):
    validate(forms.unflatten(flat))

  def say(name, text):
    forms.unflatten({name: forms.parse_text(name, text)})

  rng = np.random.default_rng(0)
  base = forms.flatten(small_config('x.npz'))
  tries = list(itertools.product(FIELDS, VALUES))
  rng.shuffle(tries)
  outcomes = []
  for name, value in tries[: len(rounds(len(tries)))]:
    outcomes.append(tried(use, base | {name: value}))
    text = value if isinstance(value, str) else repr(value)[:4000]
    outcomes.append(tried(say, name, text))
  assert len(report('config values', outcomes)) >= 600 * SHARE


HEADERS = [
  *('()', '(-1,)', '(10**9,)', '(2**62, 4)', '(0,)', '(1,) * 99', '(((', '[3]'),
  *('(9999999999999999999999,)', '(True,)', '(1.0,)', '("a",)', '-' * 2000),
]
TYPES = [
  *('|u1', '<f8', '|O', '<U9', '|S0', '<U0', '<M8[s]', '>i4', '|V9', '<c16'),
  *('|b1', '<i999', 'zz', ''),
]


def of_npy(rng, name, content):
  """An .npy file with another header, or damaged."""
  if rng.integers(2):
    return damaged(rng, content)
  shape, kind = str(rng.choice(HEADERS)), str(rng.choice(TYPES))
  order = rng.choice(['True', 'False', '3'])
  text = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}}}\n"
  version = int(rng.choice([1, 2, 3, 9]))
  size = len(text).to_bytes(2 if version == 1 else 4, 'little')
  start = b'\x93NUMPY' + bytes([version, 0]) + size + text.encode()
  return start + content[int(rng.integers(len(content))) :]


def npz_files(path, count):
  rng = np.random.default_rng(1)
  write_digits_npz(path, train=6, test=4)
  stored, names = path.read_bytes(), {'class_names': np.array(['a'] * 10)}
  np.savez_compressed(path, **np.load(path), **names)
  packed = path.read_bytes()
  for index in rounds(count):
    data = (stored, packed)[index % 2]
    if index % 3:
      data = repacked(rng, data, of_npy)
    yield data if index % 3 == 1 else damaged(rng, data)


def test_npz(tmp_path):
  path = tmp_path / 'a.npz'
  config = small_config(path).data
  outcomes = []
  for data in npz_files(path, 3000):
    path.write_bytes(data)
    outcomes.append(tried(load_dataset, config))
  report('.npz', outcomes)


OPCODES = (
  b'(.0125BCFGHIJKLMNPQRSTUVXabcdeghijlopqrstu]}'
  b'\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8c\x8d\x93\x94\x95'
)


def of_pickle(rng, name, content):
  if not name.endswith('.pkl') or not rng.integers(3):
    return damaged(rng, content)
  content = bytearray(content)
  for _ in range(rng.integers(1, 6)):
    at = int(rng.integers(len(content) + 1))
    code = bytes(rng.choice(list(OPCODES), int(rng.integers(1, 5))).tolist())
    deep = b'h\x01\x86q\x01' * int(rng.integers(1, 200))  # 2^n of something
    content[at:at] = deep if rng.integers(4) == 0 else code
  return bytes(content)


def pth_files(count):
  rng = np.random.default_rng(2)
  golden = (GOLDEN / 'torch_dtypes.pth').read_bytes()
  for index in rounds(count):
    data = golden
    if index % 4:
      data = repacked(rng, data, of_pickle)
    yield data if index % 4 > 1 else damaged(rng, data)


def test_pth(tmp_path):
  path = tmp_path / 'a.pth'
  outcomes = []
  for data in pth_files(4000):
    path.write_bytes(data)
    outcomes.append(tried(pretrained.read_state_dict, path))
  report('.pth', outcomes)


def image_files(count):
  rng = np.random.default_rng(3)
  pixels = rng.integers(0, 256, (13, 11, 3), np.uint8)
  whole = []
  for kind, mode, options in (
    ('JPEG', 'RGB', {}),
    ('JPEG', 'RGB', {'progressive': True, 'exif': b'Exif\0\0II*\0'}),
    ('JPEG', 'L', {}),
    ('JPEG', 'CMYK', {}),
    ('PNG', 'RGB', {}),
    ('PNG', 'RGBA', {}),
    ('PNG', 'P', {'transparency': 3}),
    ('PNG', '1', {}),
    ('PNG', 'I;16', {}),
    ('GIF', 'P', {}),
    ('BMP', 'RGB', {}),
    ('WEBP', 'RGB', {}),
    ('TIFF', 'RGB', {}),
    ('EPS', 'RGB', {}),
  ):
    image = Image.fromarray(pixels).convert('L' if ';' in mode else 'RGB')
    image = image.convert(mode)
    image.save(file := io.BytesIO(), kind, **options)
    whole.append(file.getvalue())
  for index in rounds(count):
    data = whole[index % len(whole)]
    if data.startswith(b'\x89PNG') and not rng.integers(3):
      data = resized_png(rng, data)
    yield damaged(rng, data) if rng.integers(10) else data


def resized_png(rng, data):
  """A PNG that says that it is larger, under a right CRC."""
  sizes = [0, 1, 12, 5000, 60_000, 2**31 - 1]
  width, height = rng.choice(sizes, 2).tolist()
  head = width.to_bytes(4) + height.to_bytes(4) + data[24:29]
  check = zipfile.crc32(b'IHDR' + head).to_bytes(4)
  return data[:16] + head + check + data[33:]


def test_images():
  def decode(data):
    source = [('x.png', data)]
    ((found, aspect),) = images.decode_all(source, channels=3, size=8)
    if isinstance(found, images.CorruptImage):
      raise found
    assert found.shape == (8, 8, 3) and 0 < aspect < np.inf

  report('images', [tried(decode, data) for data in image_files(12_000)])


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A small run that is done, and its data."""
  root = tmp_path_factory.mktemp('run')
  config = digits_tsla.get_config()  # as SMALL changes it
  config.epochs, config.smoothing.drop_epochs = 1, 0.5
  config.smoothing.drop_percent, config.data.validation = -1.0, 0.0
  config.model.name, config.model.width = 'resnet8', 4
  config.data.name = 'npz'
  config.data.path = str(write_digits_npz(root / 'digits.npz'))
  loop.train_and_evaluate(config, root / 'run')
  return root / 'run', config


TEXTS = [
  *('', '[]', '{}', '3', 'null', '"a"', '[' * 100_000, '{"a":' * 50_000, '\0'),
  *('{"state": 3, "step": "a"}', '{"state": "done", "step": 0}', 'NaN'),
  *('{"state": "done", "step": -1, "test": {}}', '{"format": 1e400}'),
  *('{"fingerprint": "a", "parts": 3}', '{"seed": 1, "epochs": 0}'),
  *('{"fingerprint": "a", "parts": {"smoothing.method": 3}}', '{"seed": []}'),
  *('{"state": "done", "step": 2, "test": {"top1": "a"}}', '{"format": 2}'),
  *('{"kind": "eval", "step": 1}\n{"kind": 3}\n', '{"kind": "eval"}\n' * 3),
  *('{"kind": "eval", "step": 2, "nll": "a"}\n', '{"init.fork_from": "@²"}'),
]
FILES = ['config.json', 'data.json', 'status.json', 'metrics.jsonl']


def damage(rng, path):
  """Damages a file, in one of many ways; which one."""
  way = int(rng.integers(8))
  data = path.read_bytes()
  path.unlink()
  if way == 0:
    os.mkfifo(path)
  elif way == 1:
    path.mkdir()
  elif way == 2:
    path.symlink_to('nowhere')
  elif way == 3:
    path.write_bytes(data + b'\xff\xfe\n')
  elif way < 6:
    path.write_text(str(rng.choice(TEXTS)))
  else:
    path.write_bytes(damaged(rng, data))


def damaged_runs(whole, folder, count):
  rng = np.random.default_rng(4)
  for index in rounds(count):
    path = folder / f'run-{index}'
    shutil.copytree(whole, path)
    names = [*FILES, 'environment.json']
    damage(rng, path / names[index % len(names)])
    yield path


def test_run_directories(run, tmp_path):
  whole, config = run

  def claim(path):
    again = directory.RunDirectory(path, config)
    with (
      again.claim(directory.read_record(whole).fingerprint),
      Checkpoints(path / 'checkpoints') as checkpoints,
    ):
      assert checkpoints.latest_step == 2

  def read(path):
    directory.epochs_done(path)
    directory.state_of(path)
    record = directory.read_record(path)
    record.standing()

  calls = [
    claim,
    read,
    lambda path: directory.read_run(path, 'x'),
    lambda path: read_results([path]),
  ]
  outcomes = [
    any([tried(call, path) for call in calls])
    for path in damaged_runs(whole, tmp_path, 120)
  ]
  report('run directories', outcomes)


def of_config(run, root, count):
  rng = np.random.default_rng(5)
  fields = [name for name in FIELDS if not name.startswith('data.')]
  for _ in rounds(count):
    name, value = str(rng.choice(fields)), VALUES[rng.integers(len(VALUES))]
    text = value if isinstance(value, str) else repr(value)
    text = text.replace('\0', '').encode('utf-8', 'replace').decode()
    yield [f'--config.{name}={text}']


def of_npz(run, root, count):
  for index, content in enumerate(npz_files(root / 'a.npz', count)):
    (root / f'{index}.npz').write_bytes(content)
    yield [f'--config.data.path={root}/{index}.npz']


def of_pth(run, root, count):
  for index, content in enumerate(pth_files(count)):
    (root / f'{index}.pth').write_bytes(content)
    yield [f'--config.model.weights={root}/{index}.pth']


def of_images(run, root, count):
  for index, content in enumerate(image_files(count)):
    for split, label in itertools.product(('train', 'test'), ('ape', 'bee')):
      place = root / str(index) / split / label
      place.mkdir(parents=True)
      for name in 'abcdefghijklmnopqr':
        Image.new('RGB', (8, 8)).save(place / f'{name}.png')
    (place / 'a.png').write_bytes(content)
    path = f'--config.data.path={root}/{index}'
    yield ['--config.data.name=folder', path, '--config.data.image_size=8']


def of_runs(run, root, count):
  (root / 'runs').mkdir()
  for path in damaged_runs(run[0], root / 'runs', count):
    yield [f'--workdir={path}']


@pytest.mark.parametrize(
  'lines_of', [of_config, of_npz, of_pth, of_images, of_runs]
)
def test_through_main(run, tmp_path, monkeypatch, lines_of):
  """40 of each kind in one process, 8 of them in one of their own too."""
  for name, value in faults.CACHE.items():  # most that train are one program
    monkeypatch.setenv(name, value)
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(run[0].parent / 'xla'))
  lines = {
    str(index): [
      *(*SMALL, f'--config.data.path={run[0].parent}/digits.npz'),
      *(f'--workdir={tmp_path}/w{index}', *line),
    ]
    for index, line in enumerate(lines_of(run, tmp_path, 40))
  }
  (tmp_path / 'lines.json').write_text(json.dumps(lines))
  found = run_worker('main_worker.py', tmp_path / 'lines.json')
  codes = collections.Counter(code for code, *_ in found.values())
  print(f'\nmain.py, {lines_of.__name__}: {len(found)}, exit codes {codes}')
  for index, (code, error, compiled, seconds) in found.items():
    assert_ended(code, error, lines[index])
    assert seconds < SECONDS or compiled, (lines[index], seconds)
  for line in list(lines.values())[:: max(1, len(lines) // 8)]:
    process = subprocess.run(
      [sys.executable, 'main.py', *line],
      cwd=ROOT,
      capture_output=True,
      text=True,
      timeout=120,
    )
    assert_ended(process.returncode, process.stderr, line)


def assert_ended(code, error, line):
  assert code in (0, 2, 3), (line, error)
  assert code == 0 or len(error.strip().splitlines()) <= 3, (line, error)
