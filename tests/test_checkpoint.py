"""What was saved comes back as it was, or is passed over by name."""

import errno
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from support import ROOT, Disk, mounted, run_worker

from tsla.errors import InputError
from tsla.files import NewerFormat
from tsla.runs import checkpoint
from tsla.runs.checkpoint import Checkpoints


class State(flax.struct.PyTreeNode):
  step: Any
  params: Any
  opt_state: Any


def make(step, width=3):
  kernel = np.random.default_rng(step).normal(size=(4, width))
  params = {'fc': {'kernel': jnp.asarray(kernel, jnp.float32)}}
  tx = optax.chain(optax.trace(0.9), optax.scale_by_adam())
  return State(jnp.asarray(step, jnp.int32), params, tx.init(params))


def values(state):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def same(a, b):
  return all(
    x.dtype == y.dtype and np.array_equal(x, y)
    for x, y in zip(values(a), values(b), strict=True)
  )


def save_all(directory, steps, keep_steps=(), scores=None):
  with Checkpoints(directory, keep_steps) as checkpoints:
    for step in steps:
      checkpoints.save(step, make(step), scores)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  directory = tmp_path_factory.mktemp('run') / 'checkpoints'
  save_all(directory, [1, 2, 3])
  return directory


def names(directory):
  return sorted(path.name for path in directory.iterdir())


def test_the_manifest_is_of_the_arrays_and_of_every_file(saved):
  folder = saved / '3'
  manifest = json.loads((folder / 'manifest.json').read_text())
  kernel = np.asarray(make(3).params['fc']['kernel'])
  assert manifest['arrays']['params/fc/kernel'] == {
    'shape': [4, 3],
    'dtype': 'float32',
    'sha256': hashlib.sha256(kernel.tobytes()).hexdigest(),
  }
  files = {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in folder.rglob('*')
    if path.is_file() and path.name != 'manifest.json'
  }
  assert manifest['files'] == files
  assert len(files) > 5


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(
  tmp_path, monkeypatch
):
  disk = Disk(monkeypatch)
  save_all(tmp_path, [1])
  disk.assert_lasting(tmp_path / '1')
  disk.assert_whole_or_nothing(tmp_path / '1.partial' / 'manifest.json')


def test_the_newest_two_the_best_and_the_kept_stay(tmp_path):
  save_all(
    tmp_path, range(1, 9), keep_steps=[2], scores={3: 0.5, 4: 0.9, 5: 0.9}
  )
  assert names(tmp_path) == ['2', '4', '7', '8']
  save_all(tmp_path, [9], scores={4: 0.9, 8: 1.0})
  assert names(tmp_path) == ['8', '9']


def test_what_kills_left_is_cleared_and_nothing_of_the_users(tmp_path):
  save_all(tmp_path, [1, 2])
  for name in ('3.partial', '3.partial.orbax-checkpoint-tmp', '1.old', 'notes'):
    (tmp_path / name / 'd').mkdir(parents=True)
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.steps == [1, 2]
  assert len(names(tmp_path)) == 6
  save_all(tmp_path, [3])
  assert names(tmp_path) == ['2', '3', 'notes']


def test_reading_changes_nothing(saved, tmp_path):
  def listing():
    return {
      str(path): (path.stat().st_mtime_ns, path.stat().st_size)
      for path in saved.parent.rglob('*')
    }

  before = listing()
  with Checkpoints(saved) as checkpoints:
    assert checkpoints.latest_step == 3
    assert same(checkpoints.restore(make(0), 3), make(3))
    assert same(checkpoints.restore(make(0), 2), make(2))
  with Checkpoints(tmp_path / 'none') as checkpoints:
    assert (checkpoints.steps, checkpoints.latest_step) == ([], None)
  assert listing() == before
  assert not (tmp_path / 'none').exists()


def test_another_network_or_dtype_is_refused(saved):
  with Checkpoints(saved) as checkpoints:
    with pytest.raises(InputError, match=r'kernel is float32\[4, 3\] there'):
      checkpoints.restore(make(0, width=5), 3)
    state = make(0)
    with pytest.raises(InputError, match=r'step is int32\[\] .* float32\[\]'):
      checkpoints.restore(state.replace(step=jnp.zeros(())), 3)
    with pytest.raises(InputError, match='missing here'):
      checkpoints.restore(state.replace(opt_state=()), 3)


def damage(path, kind, rng):
  data = bytearray(path.read_bytes())
  if kind == 'delete':
    path.unlink()
    return
  if kind == 'truncate':
    path.write_bytes(data[: rng.randrange(len(data))])
    return
  data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  path.write_bytes(data)


def damage_one(saved, tmp_path, seed):
  """One random fault: either the newest good step comes back, or an error."""
  rng = random.Random(seed)
  directory = shutil.copytree(saved, tmp_path / f'damaged{seed}')
  files = sorted(path for path in directory.rglob('*') if path.is_file())
  path = rng.choice(files)
  kind = rng.choice(['flip', 'flip', 'truncate', 'delete'])
  damage(path, kind, rng)
  hit = int(path.relative_to(directory).parts[0])
  newest = max({2, 3} - {hit})
  with Checkpoints(directory) as checkpoints:
    step = checkpoints.latest_step
    assert same(checkpoints.restore(make(0), step), make(step))
    if step != newest:
      # A blank in the manifest became another blank.
      assert (path.name, kind, step) == ('manifest.json', 'flip', 3)
    elif hit == 3:
      (line,) = checkpoints.passed_over
      assert line.startswith('the checkpoint of update 3 is damaged: ')
      assert path.name in line
      with pytest.raises(InputError, match='damaged'):
        checkpoints.restore(make(0), 3)
      checkpoints.save(3, make(3))  # the run comes by again
  with Checkpoints(directory) as checkpoints:
    if hit == 3 or step != newest:
      assert same(checkpoints.restore(make(0), 3), make(3))
  shutil.rmtree(directory)


def test_random_damage_never_changes_a_state(saved, tmp_path):
  for seed in range(20):
    damage_one(saved, tmp_path, seed)


def rewrite_manifest(folder, change):
  """Changes a manifest as if it had been written so."""
  path = folder / 'manifest.json'
  content = json.loads(path.read_text())
  del content['sha256']
  change(content)
  text = json.dumps(content, sort_keys=True).encode()
  content['sha256'] = hashlib.sha256(text).hexdigest()
  path.write_text(json.dumps(content))


def test_a_manifest_says_of_which_format_it_is(saved, tmp_path):
  manifest = json.loads((saved / '3/manifest.json').read_text())
  assert manifest['format'] == 2
  directory = shutil.copytree(saved, tmp_path / 'old')
  rewrite_manifest(
    directory / '3',
    lambda content: [content.pop(key) for key in ('format', 'run')],
  )
  with Checkpoints(directory) as checkpoints:
    assert same(checkpoints.restore(make(0), 3), make(3))
  rewrite_manifest(directory / '3', lambda content: content.update(format=3))
  with (
    Checkpoints(directory) as checkpoints,
    pytest.raises(NewerFormat, match=r'3/manifest\.json: format 3') as error,
  ):
    checkpoints.latest_step  # noqa: B018
  assert len(str(error.value).splitlines()) == 3


def test_a_full_disk_that_orbax_tells_of_as_it_closes(tmp_path, monkeypatch):
  """Its metadata is written by a thread whose error waits for the end."""
  reason = os.strerror(errno.ENOSPC)
  close = ocp.StandardCheckpointer.close

  def fail(checkpointer):
    close(checkpointer)
    raise OSError(errno.ENOSPC, reason)

  monkeypatch.setattr(ocp.StandardCheckpointer, 'close', fail)
  with pytest.raises(InputError, match=reason), Checkpoints(tmp_path) as c:
    c.save(1, make(1))


@pytest.mark.slow
def test_200_random_damages_never_change_a_state(saved, tmp_path):
  for seed in range(20, 220):
    damage_one(saved, tmp_path, seed)


def test_when_none_is_whole_the_run_does_not_begin_anew_by_itself(
  saved, tmp_path
):
  directory = shutil.copytree(saved, tmp_path / 'checkpoints')
  for step in ('2', '3'):
    (directory / step / '_METADATA').unlink()
  with (
    Checkpoints(directory) as checkpoints,
    pytest.raises(InputError, match='no checkpoint is whole') as error,
  ):
    checkpoints.latest_step  # noqa: B018
  assert len(str(error.value).splitlines()) <= 3
  for text in ('update 2', 'update 3', '_METADATA', 'rm -r'):
    assert text in str(error.value)


def test_a_manifest_that_lost_a_file_is_not_believed(saved, tmp_path):
  """Of what it still speaks of, everything is right."""
  directory = shutil.copytree(saved, tmp_path / 'checkpoints')
  path = directory / '3/manifest.json'
  manifest = json.loads(path.read_text())
  del manifest['files']['_METADATA']
  path.write_text(json.dumps(manifest))
  with Checkpoints(directory) as checkpoints:
    assert checkpoints.latest_step == 2
    (line,) = checkpoints.passed_over
    assert line.endswith('manifest.json: not as it was written')


def test_a_damaged_checkpoint_takes_no_place_of_the_newest_two(saved, tmp_path):
  directory = shutil.copytree(saved, tmp_path / 'checkpoints')
  (directory / '3/_METADATA').unlink()
  with Checkpoints(directory) as checkpoints:
    assert checkpoints.latest_step == 2
    checkpoints.save(4, make(4))
  assert names(directory) == ['2', '4']


def test_arrays_that_orbax_brings_back_otherwise_are_seen(saved, monkeypatch):
  with Checkpoints(saved) as checkpoints:
    orbax = checkpoints._checkpointer.restore

    def other(*args):
      state = orbax(*args)
      leaves, tree = jax.tree.flatten(state)
      leaves[-1] = leaves[-1] + 1
      return jax.tree.unflatten(tree, leaves)

    monkeypatch.setattr(checkpoints._checkpointer, 'restore', other)
    with pytest.raises(InputError, match='not the array that was saved'):
      checkpoints.restore(make(0), 3)
    with pytest.raises(InputError, match='not the array that was saved'):
      checkpoints.confirm(3)


@pytest.mark.ci
def test_the_command_verifies_and_prints(saved, tmp_path):
  run = shutil.copytree(saved.parent, tmp_path / 'run')

  def command(path):
    return subprocess.run(
      [sys.executable, '-m', 'tsla', 'check', str(path)],
      cwd=ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
    )

  result = command(run)
  assert result.returncode == 0, result.stderr
  first, *lines = result.stdout.splitlines()
  assert first == 'run missing (not started)'
  assert [line.split()[1:3] for line in lines] == [
    ['2', 'whole:'],
    ['3', 'whole:'],
  ]
  damage(run / 'checkpoints/2/_METADATA', 'flip', random.Random(0))
  result = command(run)
  assert result.returncode == 1
  assert 'damaged: _METADATA' in result.stdout.splitlines()[1]
  assert 'whole' in result.stdout.splitlines()[2]
  assert command(tmp_path).returncode == 2


def test_the_disk_must_have_room_for_three_states(tmp_path, monkeypatch):
  state = make(0)
  size = sum(leaf.nbytes for leaf in values(state))
  asked = []

  def usage(path):
    asked.append(pathlib.Path(path))
    return shutil._ntuple_diskusage(total, 0, free)

  monkeypatch.setattr(checkpoint.shutil, 'disk_usage', usage)
  free, total = 3 * size, 10**9
  checkpoint.check_space(tmp_path / 'run/checkpoints', state)
  assert asked == [tmp_path]
  free = 3 * size - 1
  with pytest.raises(InputError, match='3 times the state'):
    checkpoint.check_space(tmp_path / 'run/checkpoints', state)
  total = 0  # what has no size says nothing of room
  checkpoint.check_space(tmp_path / 'run/checkpoints', state)


def test_a_disk_that_fills_up_is_named_and_what_was_saved_stays(tmp_path):
  big = np.random.default_rng(0).normal(size=(100, 300))
  state = {'a': jnp.asarray(big, jnp.float32)}
  disk = mounted(tmp_path / 'disk', 'size=260k')
  with disk:
    if not disk.done:
      pytest.skip('only root may mount a small disk')
    directory = tmp_path / 'disk/checkpoints'
    with (
      pytest.raises(InputError, match='No space left on device') as error,
      Checkpoints(directory) as checkpoints,
    ):
      for step in (1, 2, 3):
        checkpoints.save(step, state)
    assert len(str(error.value).splitlines()) <= 3
    with Checkpoints(directory) as checkpoints:
      assert checkpoints.latest_step == 1
      read = checkpoints.restore(state, 1)
      np.testing.assert_array_equal(read['a'], state['a'])


@pytest.mark.ci
def test_states_saved_on_4_devices_come_back_on_1_2_and_8(tmp_path):
  assert run_worker('devices_worker.py', 'save', tmp_path, devices=4)
  for devices in (1, 2, 8):
    result = run_worker('devices_worker.py', 'read', tmp_path, devices=devices)
    assert result == {'devices': devices, 'placed': devices, 'equal': True}


@pytest.mark.slow
def test_a_thousand_saves_leave_files_memory_and_disk_flat(tmp_path):
  own = pathlib.Path('/proc/self')
  seen = []
  with Checkpoints(tmp_path) as checkpoints:
    for step in range(1, 1001):
      checkpoints.save(step, make(step))
      assert same(checkpoints.restore(make(0), step), make(step))
      if step % 100 == 0:
        disk = sum(1 for _ in tmp_path.rglob('*'))
        pages = int((own / 'statm').read_text().split()[1])
        seen.append((len(list((own / 'fd').iterdir())), pages, disk))
  # The first hundreds fill caches, and checkpoints differ by a few files:
  # a leak would be a hundred each time.
  most = 1.05 * np.max(seen[:3], axis=0) + (0, 0, 10)
  assert (np.array(seen[3:]) <= most).all(), seen


@pytest.mark.parametrize('what', ['pipe', 'deep'])
def test_a_hostile_manifest_is_damaged_at_once(saved, tmp_path, what):
  directory = shutil.copytree(saved, tmp_path / 'hostile')
  path = directory / '3/manifest.json'
  path.unlink()
  if what == 'pipe':
    os.mkfifo(path)
  else:
    path.write_text('[' * 100_000)
  with Checkpoints(directory) as checkpoints:
    assert checkpoints.latest_step == 2
    assert 'update 3 is damaged' in checkpoints.passed_over[0]
