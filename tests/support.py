"""What several tests share: a small real set, a small config, a worker."""

import contextlib
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits

from tsla.config.forms import default_config
from tsla.training import teacher
from tsla.training.build import view_of

ROOT = pathlib.Path(__file__).parent.parent
WEIGHTS = ROOT / 'tests/golden/torch_resnet18.safetensors'
_EVALUATION = ROOT / 'tests/golden/evaluation.json'
# Logits, by name, with what other libraries say of them.
RECORDED = json.loads(_EVALUATION.read_text())['sets']


def write_digits_npz(path, train=64, test=40):
  """The first digits as an .npz data set."""
  digits = load_digits()
  images = np.round(digits.images * 255 / 16).astype(np.uint8)
  np.savez(
    path,
    train_images=images[:train],
    train_labels=digits.target[:train],
    test_images=images[train : train + test],
    test_labels=digits.target[train : train + test],
  )
  return path


def small_config(npz):
  """TSLA on 64 digits: 4 updates an epoch, 4 epochs, the switch at update 8."""
  config = default_config()
  config.epochs = 4
  config.batch_size = 16
  config.eval_batch_size = 16
  config.log_every_steps = 1
  config.data.name = 'npz'
  config.data.path = str(npz)
  config.augment.pad = 1
  config.model.name = 'resnet8'
  config.model.width = 4
  config.optimizer.weight_decay = 5e-4
  config.smoothing.schedule = 'two_stage'
  config.smoothing.theta = 0.4
  config.smoothing.drop_epochs = 2.0
  return config


def changed(config, **fields):
  """A copy with `section__name` set."""
  other = config.copy_and_resolve_references()
  for name, value in fields.items():
    *section, leaf = name.split('__')
    (other[section[0]] if section else other)[leaf] = value
  return other


def recorded(name):
  """Logits, labels, and the values of other libraries."""
  record = RECORDED[name]
  return (
    np.array(record['logits']),
    np.array(record['labels']),
    record['values'],
  )


def teacher_of(config, dataset):
  """The teacher of a run, as the loop loads it."""
  return teacher.load_teacher(config.teacher, dataset, view_of(config))


def teacher_target(config, dataset, network):
  """The target of a run that `network` teaches, as `build` makes it."""
  options = config.teacher
  network = network._replace(temperature=options.temperature, view=options.view)
  return teacher.teacher_target(
    network, dataset, view_of(config), config.eval_batch_size
  )


def bad_weights(folder):
  """Files of no use to a network like torch_resnet18's: what is said → path."""

  def changed(name, change):
    state_dict = load_file(WEIGHTS)
    change(state_dict)
    path = folder / f'{name}.safetensors'
    save_file(state_dict, path)
    return path

  def cut_off(state_dict):
    for name in [name for name in state_dict if 'layer4' in name]:
      del state_dict[name]

  truncated = folder / 'truncated.safetensors'
  truncated.write_bytes(WEIGHTS.read_bytes()[:-1000])
  command = folder / 'command.pth'
  with zipfile.ZipFile(command, 'w') as file:
    file.writestr('x/data.pkl', pickle.dumps(Command(folder / 'trace')))
  nan = {'bn1.bias': np.full(3, np.nan, np.float32)}
  return {
    'No such file': folder / 'missing.pth',
    'damaged, cut short': truncated,
    'bn1.bias holds NaN': changed('nan', lambda d: d.update(nan)),
    'another network|no known network': changed('another', cut_off),
    r'bn2\.bias is missing': changed(
      'less', lambda d: d.pop('layer1.1.bn2.bias')
    ),
    r"pickle names '\w+\.system'; nothing was run": command,
  }


class Command:
  """Unpickled, it runs a command that leaves `trace`."""

  def __init__(self, trace):
    self.trace = trace

  def __reduce__(self):
    return os.system, (f'touch {self.trace}',)


_no_network, _hooks = [False], []


def _refuse(event, args):
  if _no_network[0] and event in (
    *('socket.connect', 'socket.bind', 'socket.sendto'),
    'socket.getaddrinfo',
  ):
    raise AssertionError(f'{event} {args}')


@contextlib.contextmanager
def no_network():
  """Inside, whatever Python code asks of the network is an error."""
  if _refuse not in _hooks:  # a hook stays for ever
    sys.addaudithook(_refuse)
    _hooks.append(_refuse)
  _no_network[0] = True
  try:
    yield
  finally:
    _no_network[0] = False


class mounted:
  """A small file system of its own; without the right to, an empty folder."""

  def __init__(self, path, options):
    self.path, self.options = path, options

  def __enter__(self):
    self.path.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', self.options, 'tmpfs', self.path]
    can = os.geteuid() == 0 and shutil.which('mount')
    self.done = can and not subprocess.run(command).returncode
    if not self.done and 'ro' in self.options:
      self.path.chmod(0o500)
    return self

  def __exit__(self, *error):
    if self.done:
      subprocess.run(['umount', '--lazy', self.path], check=True)


class Disk:
  """Notes what is brought to the disk and what is renamed, in which order.

  A power cut may lose whatever no fsync has brought there, and a rename may
  reach the disk before the content of the file that it names.
  """

  def __init__(self, monkeypatch):
    self._synced, self._events, self._early = {}, [], {}
    self._then = {}  # what was synced when a name was given
    fsync = os.fsync

    def sync(handle):
      fsync(handle)
      self._synced[os.fstat(handle).st_ino] = _content(os.fstat(handle))
      self._events.append(('sync', os.fstat(handle).st_ino))

    def spied(rename):
      def move(source, target, **options):
        below = [pathlib.Path(source), *pathlib.Path(source).rglob('*')]
        early = [p for p in below if p.is_file() and not self._holds(p)]
        rename(source, target, **options)
        self._early[str(target)] = early
        self._then[str(target)] = dict(self._synced)
        self._events.append(('rename', str(target)))

      return move

    monkeypatch.setattr(os, 'fsync', sync)
    for name in ('rename', 'replace'):
      monkeypatch.setattr(os, name, spied(getattr(os, name)))

  def assert_before(self, target, *paths):
    """Files and names in folders were on the disk before `target`'s name."""
    for path in paths:
      about = path.stat()
      assert self._then[str(target)].get(about.st_ino) == _content(about), path

  def _holds(self, path):
    about = path.stat()
    return self._synced.get(about.st_ino) == _content(about)

  def assert_whole_or_nothing(self, path):
    """`path` got its name after all of its content was on the disk."""
    early = self._early[str(path)]
    assert not early, early

  def assert_lasting(self, path, top=None):
    """Also its name is on the disk now, and the folders' names up to `top`."""
    self.assert_whole_or_nothing(path)
    renamed = self._events.index(('rename', str(path)))
    folders = [p for p in path.rglob('*') if p.is_dir()]
    assert all(map(self._holds, [*folders, *[path] * path.is_dir()]))
    above = path.parents[: path.parents.index(top or path.parent) + 1]
    for folder in above:
      assert ('sync', folder.stat().st_ino) in self._events[renamed:], folder


def _content(about):
  return about.st_size, about.st_mtime_ns


def with_devices(devices):
  """The environment of a process that has so many virtual devices."""
  flags = os.environ.get('XLA_FLAGS', '')
  count = f'--xla_force_host_platform_device_count={devices}'
  return {
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')]),
    'XLA_FLAGS': f'{flags} {count}'.strip(),
  }


def run_worker(name, *args, devices=1):
  """Runs tests/NAME in its own process on virtual devices; its JSON line."""
  env = os.environ | with_devices(devices)
  result = subprocess.run(
    [sys.executable, str(ROOT / 'tests' / name), *map(str, args)],
    env=env,
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  return json.loads(result.stdout.splitlines()[-1])
