"""The benchmarks run, on a bare image too, and say what they measured."""

import ast
import importlib
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import linen as nn
from support import ROOT

BENCHMARKS = ROOT / 'benchmarks'


@pytest.fixture
def load(monkeypatch):
  monkeypatch.syspath_prepend(str(BENCHMARKS))
  return importlib.import_module


def python(*argv):
  return subprocess.run(
    [sys.executable, *map(str, argv)],
    cwd=ROOT,
    env=os.environ,
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_they_import_nothing_that_a_bare_image_lacks():
  own = {path.stem for path in BENCHMARKS.glob('*.py')} | {'tsla'}
  allowed = own | {'jax', 'flax', 'optax', 'numpy', 'torch'}
  for path in BENCHMARKS.glob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [node.module]
      for name in names:
        top = name.split('.')[0]
        assert top in allowed | sys.stdlib_module_names, (path, name)
  code = (
    'import sys\n'
    "for name in ('ml_collections', 'clu', 'tensorboardX', 'PIL', 'sklearn',\n"
    "             'tensorflow_datasets', 'safetensors', 'tqdm'):\n"
    '  sys.modules[name] = None\n'
    "sys.path.insert(0, 'benchmarks')\n"
    'import ours'
  )
  result = python('-c', code)
  assert result.returncode == 0, result.stderr


def test_a_ratio_is_the_median_round_by_round(load):
  common = load('common')
  found = common.ratio([2.0, 30.0, 4.0, 5.0, 6.0], [1.0, 10.0, 1.0, 1.0, 1.0])
  assert found['ratio'] == 4.0  # of 2, 3, 4, 5, 6
  assert 2 <= found['low'] < 4 < found['high'] <= 6
  same = common.ratio([3.0, 3.0, 3.0], [2.0, 2.0, 2.0])
  assert same == {'ratio': 1.5, 'low': 1.5, 'high': 1.5}


def test_contenders_take_turns_there_and_back(load):
  calls = []
  contenders = {n: lambda n=n: calls.append(n) for n in 'abc'}
  seconds = load('common').in_turn(contenders, rounds=2)
  assert ''.join(calls) == 'abc' + 'abc' + 'cba'
  assert {name: len(times) for name, times in seconds.items()} == {
    'a': 2,
    'b': 2,
    'c': 2,
  }


def test_the_table_is_the_newest_line_of_each_setting(load, tmp_path):
  table = load('table')
  line = {
    'benchmark': 'loss',
    'device': 'GPU',
    'cores': 16,
    'versions': {'python': '3.11.7', 'jax': '0.10.2', 'numpy': '2.4.6'},
    'size': 'cifar',
    'dtype': 'bfloat16',
    'batch': 128,
    'figures': {'ours': {'milliseconds': 5.0}},
  }
  newer = line | {
    'figures': {
      'images_per_second': 12345.0,
      'ours': {'ratio': 0.5, 'low': 0.4, 'high': 0.6},
    }
  }
  with (tmp_path / 'loss.jsonl').open('w') as file:
    for each in (line, newer):
      file.write(json.dumps(each) + '\n')
  rows = table.table(table.newest(tmp_path)).splitlines()
  assert rows[2:] == [
    '| GPU, 16 cores | cifar, bfloat16, batch 128 | loss '
    '| python 3.11.7, jax 0.10.2 '
    '| images per second: 12,345<br>ours: ratio 0.5 (0.4 to 0.6) |'
  ]


@pytest.mark.ci
def test_the_work_of_the_cifar_network(load, monkeypatch):
  """Against the multiply-adds of its layers, added up by hand."""
  monkeypatch.setattr(sys, 'argv', ['roofline.py', '--examples=256'])
  common, ours, roofline = map(load, ('common', 'ours', 'roofline'))
  # Else each core is a device in all tests that come after, in this process.
  monkeypatch.setattr(ours, 'split_cores', lambda *args: None)
  args = common.parse(common.arguments(''))
  rows = roofline.layers(ours.Ours(args))
  stem = 32 * 32 * 9 * 3 * 64
  rest = 4 * 32 * 32 * 9 * 64 * 64
  for side, before in ((16, 64), (8, 128), (4, 256)):
    after = 2 * before
    rest += side * side * after * (9 * before + 3 * 9 * after + before)
  expected = (4 * stem + 6 * rest) / 1e9
  assert sum(row['gigaflop'] for row in rows) == pytest.approx(expected)
  # Activations behind the 20 convolutions, in bf16, eight passes; two more
  # for the eight shortcuts.
  sizes = np.array([32 * 32 * 64, 16 * 16 * 128, 8 * 8 * 256, 4 * 4 * 512])
  passes = 8 * (sizes * 5).sum() + 2 * (sizes * 2).sum()
  outside = sum(row['megabyte'] for row in rows if not row['convolution'])
  assert outside == pytest.approx(2 * passes / 1e6)


def test_the_convolutions_are_those_of_the_blocks(load):
  common, convolutions = load('common'), load('convolutions')
  found = list(convolutions.layers(common.SIZES['cifar']))
  assert found == [
    (32, 64, 64, 1, 4),
    (32, 64, 128, 2, 1),
    (16, 128, 128, 1, 3),
    (16, 128, 256, 2, 1),
    (8, 256, 256, 1, 3),
    (8, 256, 512, 2, 1),
    (4, 512, 512, 1, 3),
  ]


@pytest.mark.parametrize('add', [False, True])
def test_one_residual_gives_the_gradient_of_flax_in_float64(load, add):
  one = load('norm').norm_add_relu
  rng = np.random.default_rng(0)
  x, shortcut, g = rng.normal(1, 2, (3, 4, 5, 5, 6))
  scale, bias = rng.normal(size=(2, 6))
  added = shortcut if add else None

  def flax(x, scale, bias, added):
    norm = nn.BatchNorm(
      use_running_average=False, epsilon=1e-3, param_dtype=np.float64
    )
    y, updated = norm.apply(
      {
        'params': {'scale': scale, 'bias': bias},
        'batch_stats': {'mean': np.zeros(6), 'var': np.zeros(6)},
      },
      x,
      mutable=['batch_stats'],
    )
    new = updated['batch_stats']
    y = nn.relu(y if added is None else y + added)
    return y, new['mean'] / 0.01, new['var'] / 0.01

  with jax.enable_x64(True):
    results, backward = jax.vjp(
      lambda *a: one(*a, 1e-3, None), x, scale, bias, added
    )
    expected, backward_of_flax = jax.vjp(flax, x, scale, bias, added)
    for got, want in zip(results, expected, strict=True):
      np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)
    none = np.zeros(6)
    got, want = backward((g, none, none)), backward_of_flax((g, none, none))
    assert (got[3] is None) == (want[3] is None) == (not add)
    for i in range(3 + add):
      np.testing.assert_allclose(got[i], want[i], rtol=0, atol=1e-9)


def test_what_of_the_copying_a_trace_hides(load):
  """Against numbers by hand; the profiler's own form, of two GPUs."""
  feed = load('feed')

  def plane(name, **lines):
    text, names = f'name: "{name}"', []
    for line, events in lines.items():
      text += f' lines {{ name: "{line}" timestamp_ns: 1000'
      for event, begin, length in events:
        names.append(event)
        text += f' events {{ metadata_id: {len(names)}'
        text += (
          f' offset_ps: {begin}000000000 duration_ps: {length}000000000 }}'
        )
      text += ' }'
    for number, event in enumerate(names, start=1):
      text += f' event_metadata {{ key: {number}'
      text += f' value {{ id: {number} name: "{event}" }} }}'
    return f'planes {{ {text} }}'

  def copying(*planes):
    text = ' '.join(planes)
    return feed.copying(jax.profiler.ProfileData.from_text_proto(text))

  # Of 10 + 4 ms of copies the kernels hide 3 + 1 and 4: they run from 1 to 7
  # in three pieces that overlap, from 9 to 10 and from 20 to 30.
  copies = [('MemcpyH2D', 4, 10), ('MemcpyH2D', 25, 4), ('MemcpyD2H', 0, 9)]
  kernels = [('b', 20, 10), ('a', 1, 5), ('c', 2, 1), ('d', 5, 2), ('e', 9, 1)]
  one = plane(
    '/device:GPU:0',
    **{'Stream #13(MemcpyH2D)': copies, 'Stream #7(Compute)': kernels},
    **{'XLA Modules': [('jit_chunk', 0, 100)]},
  )
  expected = {'copied': 14.0, 'hidden': round(8 / 14, 4), 'computed': 17.0}
  assert copying(one) == {'trace': expected}
  # Kernels of another GPU hide nothing.
  other = plane('/device:GPU:1', **{'Stream #7': [('a', 0, 100)]})
  both = expected | {'computed': 117.0}
  assert copying(one, other, plane('/host:CPU')) == {'trace': both}
  none = plane('/device:GPU:0', **{'Stream #7': [('MemcpyH2D', 0, 3)]})
  alone = {'copied': 3.0, 'hidden': 0.0, 'computed': 0.0}
  assert copying(none) == {'trace': alone}
  assert copying(plane('/host:CPU', python=[('a', 0, 1)])) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
  'script',
  [
    'augment',
    'epoch',
    'feed',
    'loss',
    'norm',
    'peer_flax_loop',
    'probe',
    'roofline',
    'scale',
    'startup',
    'step',
    'sweep_time',
  ],
)
def test_each_runs_and_prints_its_line(script):
  result = python(BENCHMARKS / f'{script}.py', '--size=tiny')
  assert result.returncode == 0, result.stderr
  line = json.loads(result.stdout.splitlines()[-1])
  assert line['benchmark'] == script
  assert line['size'] == 'tiny'
  assert 'jax' in line['versions']
  assert line['figures']


@pytest.mark.slow
def test_compare_lets_processes_take_turns():
  result = python(BENCHMARKS / 'compare.py', '--size=tiny', '--forms=')
  assert result.returncode == 0, result.stderr
  figures = json.loads(result.stdout.splitlines()[-1])['figures']
  assert list(figures) == ['real', 'bare', 'flax_loop', 'busy_cores']
  assert figures['flax_loop']['ratio'] > 0
