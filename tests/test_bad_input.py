"""What a user can do wrong: exit code 2, three lines, no traceback."""

import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from support import ROOT, mounted, run_worker, write_digits_npz

from tsla.data import prepare

DIGITS = '--config=configs/digits_tsla.py'
TEACHER = '--config.smoothing.target=teacher'


def npz(name):
  return [DIGITS, '--config.data.name=npz', f'--config.data.path={{F}}/{name}']


def tfds(folder):
  return [
    DIGITS,
    '--config.data.name=digits',
    f'--config.data.path={{F}}/{folder}',
  ]


def folder(name):
  path = f'--config.data.path={{F}}/folders/{name}'
  return [DIGITS, '--config.data.name=folder', path]


def set_to(field, value):
  return [DIGITS, f'--config.{field}={value}']


SMALL = ['--config.model.name=resnet8', '--config.model.width=4']

# name: (command line, what stderr says); {F} is the folder of the fixture.
BAD = {
  # the command line
  'missing config': ([], '--config is missing'),
  'no such file': (['--config=configs/digit_tsla.py'], 'digits_tsla.py'),
  'syntax error in it': (['--config={F}/syntax.py'], 'SyntaxError'),
  'no get_config': (['--config={F}/empty.py'], 'get_config'),
  'it raises': (
    ['--config={F}/raises.py'],
    '{F}/raises.py, line 2: ZeroDivisionError',
  ),
  'a module mistyped in it': (
    ['--config={F}/mistyped.py'],
    '{F}/mistyped.py, line 2: ModuleNotFoundError',
  ),
  'a field mistyped in it': (
    ['--config={F}/misnamed.py'],
    '{F}/misnamed.py, line 4: KeyError',
  ),
  'argument of a config without': (
    ['--config={F}/small.py:20'],
    'this config takes no argument',
  ),
  'field missing in it': (['--config={F}/lacks.py'], 'config.seed: missing'),
  'field of the wrong type in it': (['--config={F}/typed.py'], "'ten'"),
  'unknown flag': ([DIGITS, '--wrokdir=x'], 'wrokdir'),
  'dashes forgotten': ([DIGITS, 'config.epochs=1'], '--config.epochs=1'),
  'a word that is no flag': (
    [DIGITS, 'extra'],
    "'extra': not a flag\n  next: python main.py --help",
  ),
  'a field for a flag': ([DIGITS, '--epochs=3'], 'next: --config.epochs=3'),
  'another field for a flag': ([DIGITS, '--seed=1'], '--config.seed=1'),
  'a short name of a field': (
    [DIGITS, 'config.lr=0.1'],
    '--config.optimizer.learning_rate=0.1',
  ),
  'not a switch': ([DIGITS, '--distributed=maybe'], '--distributed=maybe'),
  'not in a cluster': ([DIGITS, '--distributed'], '--coordinator'),
  'coordinator alone': (
    [DIGITS, '--coordinator=host:1'],
    '--coordinator=host:1 without --num_processes',
  ),
  'coordinator beyond the ports': (
    [
      *(DIGITS, '--coordinator=h:65536', '--num_processes=2'),
      '--process_index=0',
    ],
    'HOST:PORT',
  ),
  'no time to join': ([DIGITS, '--join_seconds=0'], '1 or more'),
  'coordinator without port': (
    [DIGITS, '--coordinator=host', '--num_processes=2', '--process_index=0'],
    'HOST:PORT',
  ),
  'index beyond the count': (
    [DIGITS, '--coordinator=h:1', '--num_processes=2', '--process_index=2'],
    '0 to num_processes - 1',
  ),
  # fields
  'unknown field': (set_to('smoothing.tetha', 0.1), 'smoothing.theta'),
  'a short name': (set_to('lr', 0.1), '--config.optimizer.learning_rate=…'),
  'a name that is too short': (set_to('m', 5), 'next: python main.py --help'),
  'an option as a field': (
    set_to('smoothing.m', 5),
    "--config.smoothing.options='m=…', an option of method margin: m = 10.0",
  ),
  'unknown section': (set_to('learning_rate', -5), 'optimizer.learn'),
  'a section': (set_to('smoothing', 0.1), 'smoothing.theta'),
  'wrong type': (set_to('epochs', 'many'), 'whole number >= 1'),
  'a fraction of an epoch': (set_to('epochs', 1.5), 'whole number >= 1'),
  'no epochs': (set_to('epochs', 0), 'whole number >= 1'),
  'negative seed': (set_to('seed', -1), 'config.seed = -1'),
  'theta out of range': (set_to('smoothing.theta', 1.2), '1.2'),
  'theta not a number': (set_to('smoothing.theta', 'nan'), 'nan'),
  'negative rate': (set_to('optimizer.learning_rate', -5), '-5'),
  'infinite rate': (set_to('optimizer.learning_rate', 'inf'), 'a number > 0'),
  'momentum above 1': (set_to('optimizer.momentum', 1.1), '<= 1'),
  'negative weight decay': (set_to('optimizer.weight_decay', -1), '>= 0'),
  'drop beyond all numbers': (
    set_to('smoothing.drop_epochs', '1e308'),
    'a number >= 0 and < 2147483648',
  ),
  'a fraction of an epoch to keep': (
    set_to('checkpoint_keep_epochs', '(1.5,)'),
    'rising whole epochs',
  ),
  'a fraction of an update': (
    set_to('optimizer.milestone_steps', '(1.5, 3.5)'),
    'rising steps',
  ),
  'images beyond all memory': (
    set_to('data.image_size', 2**31 - 1),
    'a whole number >= 0 and <= 8192',
  ),
  'negative watchdog': (set_to('watchdog_minutes', -1), '>= 0'),
  'no temperature': (set_to('teacher.temperature', 0), '> 0'),
  'unknown network': (set_to('model.name', 'resnet9'), 'resnet8'),
  'unknown optimiser': (set_to('optimizer.name', 'adam'), 'adamw'),
  'unknown dtype': (set_to('model.dtype', 'float16'), 'bfloat16'),
  'unknown schedule': (set_to('smoothing.schedule', 'tsla'), 'two_stage'),
  'address as path': (set_to('data.path', 'gs://b/d'), 'mounted'),
  # fields against each other
  'schedule without theta': (
    [
      '--config=configs/digits_baseline.py',
      '--config.smoothing.schedule=constant',
    ],
    '--config.smoothing.theta=0.1',
  ),
  'theta beyond the method': (
    [*set_to('smoothing.method', 'online'), '--config.smoothing.theta=-0.1'],
    '0 to 1',
  ),
  'drop after the end': ([DIGITS + ':40'], 'before epoch 30'),
  'drop not a number': ([DIGITS + ':soon'], "'soon': the s of TSLA(s)"),
  'two units': (
    [
      *set_to('smoothing.drop_steps', 8),
      '--config.smoothing.drop_epochs=2',
    ],
    'exactly one',
  ),
  'milestones fall': (
    set_to('optimizer.milestone_epochs', '(9, 5)'),
    'rising epochs',
  ),
  'milestones missing': (
    set_to('optimizer.schedule', 'step'),
    '--config.optimizer.milestone_epochs=…',
  ),
  'too many updates': (
    [*set_to('epochs', 2**30), '--config.data.validation=0'],
    'at most',
  ),
  'two beginnings': (
    [
      *set_to('model.weights', 'w.safetensors'),
      '--config.init.fork_from=run@3',
    ],
    'one place',
  ),
  'teacher of two places': (
    [DIGITS, TEACHER, '--config.teacher.run=a', '--config.teacher.weights=b'],
    'needs exactly one',
  ),
  'no such teacher file': (
    [DIGITS, TEACHER, '--config.teacher.weights=nowhere.pth'],
    'nowhere.pth',
  ),
  'teacher not named': ([DIGITS, TEACHER], 'WORKDIR_OF_A_FINISHED_RUN'),
  'SHA-256 of no weights': (
    set_to('model.weights_sha256', 'ab'),
    "weights_sha256 = 'ab' without model.weights",
  ),
  'SHA-256 of no teacher': (
    set_to('teacher.weights_sha256', 'ab'),
    "weights_sha256 = 'ab' without teacher.weights",
  ),
  # files of one's own
  'a pipe as a method': (
    set_to('smoothing.method', '{F}/pipe.py:soft'),
    'not a regular file',
  ),
  'no such file of a method': (
    set_to('smoothing.method', '{F}/none.py:soft'),
    'No such file',
  ),
  'a method that does not run': (
    set_to('smoothing.method', '{F}/raises.py:get_config'),
    'line 2: ZeroDivisionError',
  ),
  'a method with a syntax error': (
    set_to('smoothing.method', '{F}/syntax.py:soft'),
    'SyntaxError',
  ),
  'another name in it': (
    set_to('smoothing.method', '{F}/raises.py:soft'),
    '{F}/raises.py:get_config',
  ),
  'no method': (
    set_to('smoothing.method', '{F}/small.py:get_config'),
    'returned ConfigDict',
  ),
  'no network': (
    set_to('model.name', '{F}/empty.py:vit'),
    "no function 'vit'",
  ),
  'unknown option': (
    set_to('smoothing.options', 'tau=3'),
    "no option 'tau'",
  ),
  'no list of options': (
    set_to('model.options', 'depth'),
    'NAME=VALUE',
  ),
  # devices
  'pmap or what': (set_to('parallel', 'vmap'), 'auto, pmap, jit'),
  'batch not divisible': (
    set_to('batch_size', 31),
    'a multiple of 2\n  next: --config.batch_size=30',
  ),
  # data
  'batch too large': (set_to('batch_size', 5000), '1 to 54'),
  'two crops': (
    [*set_to('augment.crop_area', 0.08), '--config.augment.pad=1'],
    '--config.augment.pad=0 or --config.augment.crop_area=0.0',
  ),
  'more than the whole area': (set_to('augment.crop_area', 1.1), '<= 1'),
  'crop too large': (set_to('augment.crop', 9), '0 to 8'),
  'pad too large': (set_to('augment.pad', 2**31 - 1), '0 to 8'),
  'mean of three channels': (
    set_to('data.mean', '(0.5, 0.5, 0.5)'),
    '3 numbers for images of 1 channels',
  ),
  'no path': (
    [DIGITS, '--config.data.name=npz', '--config.data.path='],
    '--config.data.path=FILE',
  ),
  'no such npz': (npz('nowhere.npz'), 'nowhere.npz'),
  'npz cut short': (npz('cut.npz'), 'not a readable .npz'),
  'npz with objects': (npz('objects.npz'), 'no objects'),
  'npz of text labels': (npz('texts.npz'), 'no training example of 0'),
  'npz that is a pipe': (npz('pipe.py'), 'not a regular file'),
  'npz that is a folder': (npz('folders'), 'Is a directory'),
  'npz that is encrypted': (npz('encrypted.npz'), 'is encrypted'),
  'npz of an unknown compression': (npz('method99.npz'), 'another way'),
  'npz compressed with lzma': (npz('lzma.npz'), 'compressed in another way'),
  'npz beyond all memory': (npz('huge.npz'), 'unpacked, it takes'),
  'npz header beyond its data': (npz('shape.npz'), 'cannot reshape'),
  'npz without labels': (npz('unlabelled.npz'), 'it has no test_labels'),
  'npz of floats': (npz('floats.npz'), 'train_images is float'),
  'wrong count of labels': (npz('count.npz'), '63 labels'),
  'label out of range': (npz('labels.npz'), 'labels from 0 to 9'),
  'negative label': (npz('negative.npz'), 'from -1 to'),
  'one class': (npz('one.npz'), 'two classes or more'),
  'unknown set': (
    [DIGITS, '--config.data.name=cifar10', '--config.data.path={F}'],
    'cifar100',
  ),
  'a long name': (set_to('data.name', 'x' * 5000), 'File name too long'),
  "another user's set": (
    [*set_to('data.name', 'digits'), '--config.data.path=~nosuchuser/x'],
    'no such user',
  ),
  'missing set, no download': (
    [*tfds('none'), '--config.data.download=false'],
    'python -m tsla prepare digits',
  ),
  'half-written set': (tfds('half'), 'prepare the set again'),
  'set of another count': (tfds('short'), 'prepare the set again'),
  'no such folder': (folder('nowhere'), 'No such file'),
  'empty class folder': (folder('empty'), 'no training example of bee'),
  'class only in test': (folder('odd'), 'no training example of cat'),
  'corrupt image': (folder('corrupt'), 'b.png'),
  'a pipe among images': (folder('pipe'), 'c.png: not a regular file'),
  'a dangling link among images': (folder('dangling'), 'c.png: No such file'),
  'an image beyond its budget': (folder('large'), '9000 × 9000 pixels'),
  'images of several sizes': (folder('sizes'), 'image_size'),
  # weights and other runs
  'no such weights': (
    set_to('model.weights', '{F}/no.safetensors'),
    'no.safetensors',
  ),
  "another user's weights": (
    set_to('model.weights', '~nosuchuser/w.pth'),
    'no such user',
  ),
  'a pipe as weights': (
    set_to('model.weights', '{F}/pipe.py'),
    'not a regular file',
  ),
  'weights nested without end': (
    set_to('model.weights', '{F}/nested.pth'),
    'what is no storage',
  ),
  'weights of another format': (
    set_to('model.weights', '{F}/syntax.py'),
    'syntax.py',
  ),
  'NaN weights': (set_to('model.weights', '{F}/nan.safetensors'), 'fc.bias'),
  'weights of another network': (
    set_to('model.weights', '{F}/other.safetensors'),
    'misfits',
  ),
  'weights with another SHA-256': (
    [
      *set_to('model.weights', '{F}/other.safetensors'),
      '--config.model.weights_sha256=' + '0' * 64,
    ],
    'SHA-256',
  ),
  'no such teacher': (
    [DIGITS, TEACHER, '--config.teacher.run={F}/nowhere'],
    'train it first',
  ),
  'no epoch to fork from': (
    set_to('init.fork_from', '{F}/nowhere'),
    'RUN@EPOCH',
  ),
  'no number of an epoch': (set_to('init.fork_from', '{F}/run@²'), 'RUN@EPOCH'),
  'a teacher without a status': (
    [DIGITS, TEACHER, '--config.teacher.run={F}/no_status'],
    'state = None',
  ),
  'no run to fork from': (
    set_to('init.fork_from', '{F}/nowhere@3'),
    'the directory of a run',
  ),
  # the work directory
  'a file': ([DIGITS, '--workdir={F}/small.py'], 'workdir'),
  'a bucket': ([DIGITS, '--workdir=gs://bucket/run'], 'mount it'),
  'cannot be made': (
    [DIGITS, '--workdir=/proc/tsla/run'],
    'No such file or directory\n  allowed: a directory that can be written',
  ),
  'read-only': ([DIGITS, '--workdir={F}/readonly/run'], 'workdir'),
  'unreadable': ([DIGITS, '--workdir={F}/unreadable'], 'config.json'),
  'half a config': ([DIGITS, '--workdir={F}/half_config'], 'workdir'),
  'bytes in its config': (
    [DIGITS, '--workdir={F}/bytes_config'],
    "can't decode",
  ),
  'bytes in its data': ([DIGITS, '--workdir={F}/bytes_data'], "can't decode"),
  'bytes in its status': (
    [DIGITS, '--workdir={F}/bytes_status'],
    "can't decode",
  ),
  'bytes in its log': ([DIGITS, '--workdir={F}/bytes_log'], "can't decode"),
  'a long path': ([DIGITS, '--workdir={F}/' + 'x' * 5000], 'name too long'),
  'another config': (
    [DIGITS, '--workdir={F}/other_config'],
    'or --allow_changed_config',
  ),
  'other data, another config allowed': (
    [DIGITS, '--workdir={F}/other_data', '--allow_changed_config'],
    'another data set',
  ),
  'other data': ([DIGITS, '--workdir={F}/other_data'], 'another data set'),
  'in use': ([DIGITS, '--workdir={F}/in_use'], 'another process'),
  'full': ([DIGITS, '--workdir={F}/full/run'], '3 times the state'),
}


def write_files(root):
  write_digits_npz(root / 'digits.npz')
  whole = dict(np.load(root / 'digits.npz'))
  for name, change in {
    'objects': {'train_labels': whole['train_labels'].astype(object)},
    'floats': {'train_images': whole['train_images'] / 255},
    'count': {'train_labels': whole['train_labels'][1:]},
    'labels': {'class_names': np.array(['a', 'b', 'c'])},
    'texts': {'train_labels': np.full(len(whole['train_labels']), 'ape')},
    'negative': {'train_labels': whole['train_labels'] - 1},
    'one': {key: 0 * whole[key] for key in ('train_labels', 'test_labels')},
  }.items():
    np.savez(root / f'{name}.npz', **(whole | change))
  np.savez(root / 'unlabelled.npz', **{k: whole[k] for k in list(whole)[:3]})
  (root / 'cut.npz').write_bytes((root / 'digits.npz').read_bytes()[:-900])
  write_archives(root)
  os.mkfifo(root / 'pipe.py')
  (root / 'nested.pth').write_bytes(nested(45))
  (root / 'syntax.py').write_text('def get_config(:\n')
  (root / 'empty.py').write_text('')
  (root / 'mistyped.py').write_text('import json\nfrom cofnigs import bases\n')
  (root / 'raises.py').write_text('def get_config():\n  return 1 / 0\n')
  start = (
    'from tsla.config.forms import default_config\n'
    'def get_config():\n  c = default_config()\n'
  )
  for name, line in {
    'small': 'c.epochs = 1',
    'misnamed': 'c.epoks = 1',
    'lacks': 'c.unlock()\n  del c.seed',
    'typed': "c.unlock()\n  del c.epochs\n  c.epochs = 'ten'",
  }.items():
    (root / f'{name}.py').write_text(f'{start}  {line}\n  return c\n')
  ones = np.ones(10, np.float32)
  save_file({'fc.bias': ones * np.nan}, root / 'nan.safetensors')
  save_file({'conv.weight': ones}, root / 'other.safetensors')


def write_archives(root):
  """Copies of digits.npz that must not be unpacked."""
  data = (root / 'digits.npz').read_bytes()
  for name, offset, value in (
    ('encrypted', 8, b'\x01\x00'),
    ('method99', 10, b'\x63\x00'),
    ('huge', 24, b'\xf0\xff\xff\xff'),  # 4 GB
  ):
    changed, at = bytearray(data), data.find(b'PK\x01\x02')
    while at >= 0:  # in every record of the directory
      changed[at + offset : at + offset + len(value)] = value
      at = data.find(b'PK\x01\x02', at + 1)
    (root / f'{name}.npz').write_bytes(changed)
  for name, way, old, new in (
    ('lzma', zipfile.ZIP_LZMA, b'', b''),
    ('shape', zipfile.ZIP_STORED, b'(64, 8, 8)', b'(9999999,)'),
  ):
    with (
      zipfile.ZipFile(root / 'digits.npz') as source,
      zipfile.ZipFile(root / f'{name}.npz', 'w', way) as target,
    ):
      for member in source.namelist():
        target.writestr(member, source.read(member).replace(old, new))


def nested(depth):
  """A .pth file of a tuple of tuples, 2^depth large where it is written out."""
  pickled = b'\x80\x02(X\x07\x00\x00\x00storage'
  pickled += b'ctorch\nFloatStorage\n)q\x00' + b'h\x00\x86q\x00' * depth
  pickled += b'X\x03\x00\x00\x00cpuK\x01tQ.'
  with zipfile.ZipFile(file := io.BytesIO(), 'w') as archive:
    archive.writestr('x/data.pkl', pickled)
  return file.getvalue()


def write_sets(root):
  prepare.prepare('digits', root / 'tfds')
  for name in ('half', 'short'):
    shutil.copytree(root / 'tfds', root / name)
  for path in (root / 'half').rglob('*train.array_record*'):
    path.write_bytes(path.read_bytes()[:1000])
  for path in (root / 'short').rglob('dataset_info.json'):
    info = json.loads(path.read_text())
    info['splits'][0]['shardLengths'] = ['7']
    path.write_text(json.dumps(info))


FOLDERS = ('empty', 'odd', 'corrupt', 'sizes', 'pipe', 'dangling', 'large')


def write_folders(root):
  for name in FOLDERS:
    for split in ('train', 'test'):
      for label in ('ape', 'bee'):
        place = root / name / split / label
        place.mkdir(parents=True)
        for image in 'ab':
          Image.new('RGB', (8, 8)).save(place / f'{image}.png')
  for path in (root / 'empty/train/bee').iterdir():
    path.unlink()
  (root / 'odd/test/cat').mkdir()
  Image.new('RGB', (8, 8)).save(root / 'odd/test/cat/a.png')
  path = root / 'corrupt/test/ape/b.png'
  path.write_bytes(path.read_bytes()[:40])
  os.mkfifo(root / 'pipe/train/ape/c.png')
  (root / 'dangling/train/ape/c.png').symlink_to('nowhere.png')
  Image.new('1', (9000, 9000)).save(root / 'large/train/ape/c.png')
  Image.new('RGB', (9, 8)).save(root / 'sizes/train/ape/a.png')


def write_runs(root):
  for name in ('half_config', 'other_config', 'other_data', 'in_use'):
    (root / name).mkdir()
  for name in ('config.json', 'data.json', 'status.json', 'metrics.jsonl'):
    damaged = root / f'bytes_{name.split(".")[0].replace("metrics", "log")}'
    damaged.mkdir()
    (damaged / 'metrics.jsonl').write_text('{"kind": "train", "step": 1}\n')
    (damaged / name).write_bytes(b'{"state": "\xff"}\n')
  (root / 'no_status').mkdir()
  for name, text in (
    ('config.json', '{}'),
    ('data.json', '{"fingerprint": "a"}'),
    ('status.json', '{}'),
    ('metrics.jsonl', ''),
  ):
    (root / 'no_status' / name).write_text(text)
  (root / 'half_config/config.json').write_text('{"seed": ')
  (root / 'other_config/config.json').write_text('{"smoothing.theta": 0.7}')
  (root / 'other_data/data.json').write_text('{"fingerprint": "another"}')
  for name in ('other_config', 'other_data'):
    (root / name / 'metrics.jsonl').write_text('{"kind": "eval", "step": 4}\n')
  (root / 'unreadable/config.json').mkdir(parents=True)


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
  """One process runs all command lines of the catalogue."""
  root = tmp_path_factory.mktemp('bad')
  write_files(root)
  write_sets(root)
  write_folders(root / 'folders')
  write_runs(root)
  common = ['--config.data.name=npz', f'--config.data.path={root}/digits.npz']
  lines = {}
  for name, (argv, _) in BAD.items():
    argv = [arg.replace('{F}', str(root)) for arg in argv]
    config = [arg for arg in argv if arg.startswith('--config=')]
    data = common if DIGITS in argv else []
    rest = [arg for arg in argv if not arg.startswith('--config=')]
    # The later of two wins, so those of the entry come last.
    workdir = [f'--workdir={root}/run']
    lines[name] = config + data + SMALL * bool(data) + workdir + rest
  (root / 'lines.json').write_text(json.dumps(lines))
  with (
    (root / 'in_use/.lock').open('w') as lock,
    mounted(root / 'full', 'size=40k'),
    mounted(root / 'readonly', 'ro'),
  ):
    fcntl.flock(lock, fcntl.LOCK_EX)
    return run_worker('main_worker.py', root / 'lines.json', devices=2)


def test_the_catalogue_has_50_entries_or_more():
  assert len(BAD) >= 50


@pytest.mark.parametrize('name', BAD)
def test_bad_input_is_three_lines_and_exit_code_2(outcomes, name):
  code, error, compiled, _ = outcomes[name]
  if name == 'full' and os.geteuid():
    pytest.skip('only root may mount a small disk')
  assert code == 2, error
  assert 1 <= len(error.strip().splitlines()) <= 3, error
  assert BAD[name][1].replace('{F}/', '') in error
  assert 'Traceback' not in error
  # Nothing; to see whether a file's arrays fit, the network is drawn.
  drawn = name in ('NaN weights', 'weights of another network')
  assert bool(compiled) == drawn, compiled


def test_debug_shows_where_and_a_platform_that_is_not_there_is_named(tmp_path):
  npz = write_digits_npz(tmp_path / 'digits.npz')
  result = subprocess.run(
    [
      *(sys.executable, 'main.py', DIGITS, '--config.data.name=npz'),
      *(f'--config.data.path={npz}', f'--workdir={tmp_path}/run', '--debug'),
    ],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'tpu'},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 2
  *traceback, problem, allowed, cure = result.stderr.strip().splitlines()
  assert 'Traceback (most recent call last):' in traceback
  assert problem.startswith("JAX_PLATFORMS = 'tpu': ")
  assert (allowed[:10], cure[:7]) == ('  allowed:', '  next:')
