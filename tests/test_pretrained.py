"""PyTorch's weights in and out: same logits, same bits, nothing executed."""

import hashlib
import io
import os
import pathlib
import pickle
import runpy
import struct
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tsla.commands import weights
from tsla.errors import InputError
from tsla.models import create, pretrained, torch_zip

GOLDEN = pathlib.Path(__file__).parent / 'golden'
WEIGHTS = GOLDEN / 'torch_resnet18.safetensors'


def like(name='resnet18', num_classes=5, stem='imagenet', width=3):
  model = create(name, num_classes=num_classes, stem=stem, width=width)
  return jax.eval_shape(
    lambda: model.init(
      jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False
    )
  )


def logits(variables, images, **kwargs):
  """Of torch's images, f32[B, C, H, W]."""
  model = create('resnet18', stem='imagenet', **kwargs)
  return jax.jit(lambda v, x: model.apply(v, x, train=False))(
    variables, images.transpose(0, 2, 3, 1)
  )


def refused(function, *args):
  """The text of the error, which has at most three lines."""
  with pytest.raises(InputError) as error:
    function(*args)
  assert len(str(error.value).splitlines()) <= 3
  return str(error.value)


@pytest.fixture
def state_dict():
  return pretrained.read_state_dict(WEIGHTS)


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_logits_are_pytorchs(suffix):
  golden = np.load(GOLDEN / 'torch_resnet18.npz')
  state_dict = pretrained.read_state_dict(WEIGHTS.with_suffix(suffix))
  variables, _ = pretrained.to_variables(state_dict, like())
  ours = logits(variables, golden['images'], num_classes=5, width=3)
  np.testing.assert_allclose(ours, golden['logits'], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_logits_of_a_full_resnet18_are_pytorchs(tmp_path):
  torch = pytest.importorskip('torch')
  trained = runpy.run_path(str(GOLDEN / 'make_torch_resnet.py'))['trained']
  images = np.random.default_rng(0).normal(size=(2, 3, 224, 224))
  images = images.astype(np.float32)
  model, expected = trained(64, 1000, torch.from_numpy(images))
  torch.save(model.state_dict(), tmp_path / 'new.pth')
  variables, _ = pretrained.to_variables(
    pretrained.read_state_dict(tmp_path / 'new.pth'),
    like(num_classes=1000, width=64),
  )
  ours = logits(variables, images, num_classes=1000)
  np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=1e-4)

  # And back: torch takes our state dict, strictly.
  ours = pretrained.to_state_dict(variables)
  back = {name: torch.from_numpy(array) for name, array in ours.items()}
  model.load_state_dict(back, strict=True)
  assert torch.equal(model(torch.from_numpy(images)), expected)

  old = tmp_path / 'old.pth'
  torch.save(model.state_dict(), old, _use_new_zipfile_serialization=False)
  assert 'before torch 1.6' in refused(pretrained.read_state_dict, old)
  torch.save(torch.nn.Linear(1, 1), old)
  assert 'torch.nn.modules.linear.Linear' in refused(
    pretrained.read_state_dict, old
  )


def test_a_pth_holds_the_numbers_of_every_kind_of_tensor():
  golden = np.load(GOLDEN / 'torch_dtypes.npz')
  found = pretrained.read_state_dict(GOLDEN / 'torch_dtypes.pth')
  assert list(found) == golden.files
  for name, array in found.items():
    expected = golden[name]
    if name == 'bfloat16':
      assert array.dtype == ml_dtypes.bfloat16
      array = array.astype(np.float32)
    assert array.dtype == expected.dtype, name
    np.testing.assert_array_equal(array, expected, strict=True)
  checkpoint = torch_zip.read_tensors(
    (GOLDEN / 'torch_dtypes.pth').read_bytes()
  )
  assert checkpoint['step'] == 2**40
  assert checkpoint['betas'] == (0.9, 0.999, 0.5, -1)
  assert checkpoint['tags'] == ['a', None, True]


def test_the_round_trip_is_equal_to_the_bit(tmp_path, state_dict):
  variables, _ = pretrained.to_variables(state_dict, like())
  path = tmp_path / 'new.safetensors'
  pretrained.write_safetensors(path, pretrained.to_state_dict(variables))
  assert list(tmp_path.iterdir()) == [path]
  again, _ = pretrained.to_variables(pretrained.read_state_dict(path), like())
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  # Another library reads what PyTorch wrote.
  ours, torchs = map(safetensors.numpy.load_file, (path, WEIGHTS))
  torchs = {k: v for k, v in torchs.items() if 'num_batches' not in k}
  assert ours.keys() == torchs.keys()
  for name, array in torchs.items():
    np.testing.assert_array_equal(ours[name], array, strict=True)


def timm_shapes(width, classes, blocks, bottleneck):
  """Names and shapes of a ResNet of timm 1.0, in the order of its modules."""

  def conv(name, outputs, inputs, size):
    shapes[f'{name}.weight'] = (outputs, inputs, size, size)

  def norm(name, channels):
    for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
      shapes[f'{name}.{leaf}'] = (channels,)
    shapes[f'{name}.num_batches_tracked'] = ()

  shapes, inputs = {}, width
  conv('conv1', width, 3, 7)
  norm('bn1', width)
  for stage, count in enumerate(blocks):
    planes = width << stage
    sizes, outputs = ((planes, 3), (planes, 3)), planes
    if bottleneck:
      sizes, outputs = ((planes, 1), (planes, 3), (4 * planes, 1)), 4 * planes
    for index in range(count):
      block, channels = f'layer{stage + 1}.{index}', inputs
      for number, (features, size) in enumerate(sizes, 1):
        conv(f'{block}.conv{number}', features, channels, size)
        norm(f'{block}.bn{number}', features)
        channels = features
      if index == 0 and (stage or inputs != outputs):
        conv(f'{block}.downsample.0', outputs, inputs, 1)
        norm(f'{block}.downsample.1', outputs)
      inputs = outputs
  shapes |= {'fc.weight': (classes, inputs), 'fc.bias': (classes,)}
  return shapes


@pytest.mark.parametrize(
  ('blocks', 'bottleneck', 'tensors'),
  [
    ((2, 2, 2, 2), False, 122),
    ((3, 4, 6, 3), False, 218),
    ((3, 4, 6, 3), True, 320),
  ],
)
def test_every_tensor_of_timm_s_file_has_its_place(
  tmp_path, blocks, bottleneck, tensors
):
  """As its models lie on their hub: sorted, with metadata and counters."""
  rng = np.random.default_rng(0)
  shapes = timm_shapes(2, 5, blocks, bottleneck)
  assert len(shapes) == tensors
  file = {
    key: rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if shape
    else np.array(7, np.int64)
    for key, shape in sorted(shapes.items())
  }
  path = tmp_path / 'model.safetensors'
  safetensors.numpy.save_file(file, path, metadata={'format': 'pt'})
  model, variables, rows = pretrained.load_network(path)
  assert (model.stage_sizes, model.stem) == (blocks, 'imagenet')
  assert {row.name: row.shape for row in rows} == shapes
  back = pretrained.to_state_dict(variables)
  assert back.keys() == {key for key in file if not key.endswith('tracked')}
  for key, array in back.items():
    np.testing.assert_array_equal(array, file[key], strict=True)


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(tmp_path, state_dict, dtype):
  stored = {name: array.astype(dtype) for name, array in state_dict.items()}
  path = tmp_path / 'other.safetensors'
  path.write_bytes(safetensors.numpy.save(stored))
  variables, rows = pretrained.to_variables(
    pretrained.read_state_dict(path), like()
  )
  kernel = variables['params']['conv1']['kernel']
  assert kernel.dtype == np.float32
  expected = stored['conv1.weight'].astype(np.float32)
  np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), expected)
  (row,) = (row for row in rows if row.name == 'conv1.weight')
  assert row.action == f'OIHW → HWIO, {np.dtype(dtype)} → float32'


def test_another_number_of_classes_keeps_the_networks_head(state_dict):
  tree = like(num_classes=7)
  head = {
    'kernel': np.full((24, 7), 0.5, np.float32),
    'bias': np.arange(7, dtype=np.float32),
  }
  tree['params']['fc'] = head
  variables, rows = pretrained.to_variables(state_dict, tree)
  jax.tree.map(np.testing.assert_array_equal, variables['params']['fc'], head)
  notes = {row.name: row for row in rows}
  assert notes.keys() == state_dict.keys()
  assert notes['fc.weight'].path == ''
  assert '5 classes, the network has 7' in notes['fc.weight'].action
  assert 'not used' in notes['bn1.num_batches_tracked'].action
  assert notes['layer2.0.downsample.1.running_var'] == (
    'layer2.0.downsample.1.running_var',
    (6,),
    'batch_stats/layer2_0/downsample_1/var',
    'copied',
  )


def test_every_misfit_is_named_in_one_error(state_dict):
  state_dict['bn1.bias'] = np.array([0, np.nan, 0], np.float32)
  state_dict['layer1.0.bn1.weight'] = np.ones(4, np.float32)
  state_dict['layer1.0.bn1.bias'] = np.ones(3, np.int64)
  state_dict['layer1.0.bn2.bias'] = np.full(3, 1e300)
  state_dict['layer9'] = state_dict.pop('layer1.1.bn2.bias')
  text = refused(pretrained.to_variables, state_dict, like())
  assert '6 misfits' in text
  for part in (
    'bn1.bias holds NaN',
    'layer1.0.bn1.weight is (4,) instead of (3,)',
    'layer1.0.bn1.bias is int64',
    'layer1.0.bn2.bias holds NaN or infinity',
    'layer1.1.bn2.bias is missing',
    "'layer9' is not in the network",
  ):
    assert part in text


@pytest.mark.parametrize(
  ('other', 'cure'),
  [
    ({'name': 'resnet34'}, '--config.model.name=resnet18'),
    ({'name': 'resnet50'}, '--config.model.name=resnet18'),
    ({'stem': 'cifar'}, '--config.model.stem=imagenet'),
    ({'width': 4}, '--config.model.width=3'),
  ],
)
def test_another_architecture_is_recognised(state_dict, other, cure):
  assert cure in refused(pretrained.to_variables, state_dict, like(**other))


class Command:
  """Unpickled, it runs a command."""

  def __init__(self, command):
    self.command = command

  def __reduce__(self):
    return os.system, (self.command,)


def archive(pickled, records=(), compression=zipfile.ZIP_STORED):
  """A .pth file with the pickle `pickled`."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', compression) as file:
    file.writestr('x/data.pkl', pickled)
    for name, content in records:
      file.writestr(name, content)
  return buffer.getvalue()


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_command_in_a_pth_is_refused_and_does_not_run(tmp_path, protocol):
  trace = tmp_path / 'trace'
  pickled = pickle.dumps(Command(f'touch {trace}'), protocol)
  pickle.loads(pickled)
  assert trace.exists(), 'the test has a harmless pickle'
  trace.unlink()
  path = tmp_path / 'evil.pth'
  path.write_bytes(archive(pickled))
  text = refused(pretrained.read_state_dict, path)
  assert f'{os.system.__module__}.system' in text
  assert not trace.exists()


TENSOR = (
  b'\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00'
  b'\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu'
  b'K\x04tQK%c(K%ct(K%ct\x89NtRs.'
)


@pytest.mark.parametrize(
  ('offset', 'size', 'stride', 'fits'),
  [(0, 4, 1, True), (2, 2, 1, True), (2, 3, 1, False), (0, 9, 0, False)],
)
def test_a_tensor_lies_within_its_storage(offset, size, stride, fits):
  data = archive(TENSOR % (offset, size, stride), [('x/data/0', bytes(16))])
  if fits:
    assert torch_zip.read_tensors(data)['w'].shape == (size,)
  else:
    with pytest.raises(ValueError, match='larger than its storage'):
      torch_zip.read_tensors(data)


def test_no_damage_goes_unnoticed_or_breaks_out(tmp_path):
  """Cut anywhere, or one byte changed: an InputError or the same tensors."""
  path = tmp_path / 'damaged'
  rng = np.random.default_rng(0)
  for golden in (GOLDEN / 'torch_dtypes.pth', WEIGHTS):
    data = golden.read_bytes()
    expected = pretrained.read_state_dict(golden)
    for cut in [0, 1, 8, 9, 100, *rng.integers(len(data), size=20)]:
      path.write_bytes(data[:cut])
      refused(pretrained.read_state_dict, path)
    if golden == WEIGHTS:  # holds no checksum: that is what sha256 is for
      continue
    for place in rng.integers(len(data), size=300):
      changed = bytearray(data)
      changed[place] ^= 1 << rng.integers(8)
      path.write_bytes(changed)
      try:
        found = pretrained.read_state_dict(path)
      except InputError:
        continue
      for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])


def test_what_is_no_file_of_weights_is_refused_with_its_reason(tmp_path):
  def read(content):
    path = tmp_path / 'file'
    path.write_bytes(content)
    return refused(pretrained.read_state_dict, path)

  assert 'No such file' in refused(
    pretrained.read_state_dict, tmp_path / 'missing.pth'
  )
  assert 'Is a directory' in refused(pretrained.read_state_dict, tmp_path)
  assert 'not a file of weights' in read(b'<!DOCTYPE html>')
  old = pickle.dumps(0x1950A86A20F9469CFC6C, 2)  # as torch before 1.6 began
  assert 'NEW.safetensors' in read(old + old)
  bomb = TENSOR % (0, 4, 1), [('x/data/0', bytes(16))], zipfile.ZIP_DEFLATED
  assert 'compressed' in read(archive(*bomb))
  assert '3 of 4' in read(archive(bomb[0], [('x/data/0', bytes(12))]))
  assert 'pop from empty list' in read(archive(b'.'))
  big = archive(TENSOR % (0, 4, 1), [('x/byteorder', b'big')])
  assert 'big-endian' in read(big)
  assert "'epoch'" in read(archive(pickle.dumps({'epoch': 3}, 2)))
  assert 'unknown kind' in read(struct.pack('<Q', 1 << 40) + b'{}')


def test_the_sha256_is_checked_first():
  digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
  assert pretrained.read_state_dict(WEIGHTS, digest.upper())
  text = refused(pretrained.read_state_dict, WEIGHTS, '0' * 64)
  assert 'model.weights_sha256' in text and digest in text
  assert 'sha256' in refused(pretrained.read_state_dict, __file__, digest)


def test_the_command_line_converts_and_says_what_went_where(tmp_path, capsys):
  out = tmp_path / 'new.safetensors'
  source = WEIGHTS.with_suffix('.pth')
  assert weights.main(['--in', str(source), '--out', str(out)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 122
  (line,) = (line for line in lines if line.startswith('layer1.0.conv1.weight'))
  assert line.split()[-4:] == [
    'params/layer1_0/conv1/kernel',
    'OIHW',
    '→',
    'HWIO',
  ]
  variables = [
    pretrained.to_variables(pretrained.read_state_dict(path), like())[0]
    for path in (source, out)
  ]
  jax.tree.map(np.testing.assert_array_equal, *variables)


def test_the_command_line_exits_with_2_on_bad_input(tmp_path):
  missing = tmp_path / 'missing.pth'
  result = subprocess.run(
    [
      *(sys.executable, '-m', 'tsla', 'weights'),
      *('--in', missing, '--out', tmp_path / 'new.safetensors'),
    ],
    cwd=GOLDEN.parent.parent,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 2 and not result.stdout
  assert 1 <= len(result.stderr.splitlines()) <= 3
  assert 'missing.pth' in result.stderr


def test_the_command_line_names_bad_networks_and_places(tmp_path, capsys):
  dtypes = str(GOLDEN / 'torch_dtypes.pth')
  nowhere = str(tmp_path / 'nowhere' / 'new.safetensors')
  assert weights.main(['--in', dtypes, '--out', nowhere]) == 2
  assert 'no known network' in capsys.readouterr().err
  assert weights.main(['--in', str(WEIGHTS), '--out', nowhere]) == 2
  reason = f'--out={nowhere}: No such file or directory\n'  # not of a draft
  assert capsys.readouterr().err == reason
