"""docs/extending.md: its commands run, its code is that of tests/extending."""

import csv
import json
import re
import runpy
import shlex
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.datasets import load_digits
from support import ROOT, run_worker, write_digits_npz

import tsla
from tsla.config.durations import Durations

PAGE = (ROOT / 'docs/extending.md').read_text()
# A command is a paragraph's lines behind four spaces, and `\` goes on.
COMMANDS = [
  shlex.split(command)
  for block in re.findall(
    r'(?:^    .*\n)+', re.sub(r'```.*?```', '', PAGE, flags=re.S), re.M
  )
  for command in block.replace('\\\n', ' ').splitlines()
]
# What makes them short: 64 digits, four updates an epoch, and a network that
# takes no time to compile; θ is 0.1.
SHORT = [
  *('--config.epochs=2', '--config.batch_size=16', '--config.augment.pad=0'),
  *('--config.eval_batch_size=16', '--config.log_every_steps=1'),
  '--config.eval_test_curve=true',
]
LINEAR = """
from flax import linen as nn

class Linear(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, images, *, train):
    return nn.Dense(self.num_classes)(images.reshape(len(images), -1))
"""
NETWORK = ['--config.model.name=linear.py:Linear']
DATA = ['--config.data.name=npz', '--config.data.path=digits.npz']
DROP = ['--config.smoothing.drop_epochs=1']
PROBE = ['--config.variance.every_epochs=1', '--config.variance.num_batches=3']
RULE = [
  *('--config.smoothing.min_epochs=1', '--config.smoothing.max_epochs=-1'),
  *('--config.smoothing.patience=1', *PROBE),
  '--config.smoothing.options=cosine=2',  # it fires at once
]
VIT = ['--config.model.options=depth=1, dim=8, heads=2', *PROBE]
LAST_LAYER = ['--config.variance.mode=last_layer']


def shortened(argv):
  """The command as the test runs it, and its name: the part's file."""
  (name,) = {*re.findall(r'extending/(\w+)\.py', ' '.join(argv))} or {'sums'}
  if argv[0] != 'main.py':
    return name, argv
  more = {
    'sums': [*DROP, *NETWORK, '--config.log_every_steps=100'],
    'rule': [*DATA, *RULE, *NETWORK],
    'network': [*DATA, *DROP, *VIT, *LAST_LAYER],
  }
  workdir = [f'--workdir=runs/{name}'] * ('--workdir' not in str(argv))
  whole = ['--config.data.validation=0'] * (name != 'rule')
  return name, [
    *argv,
    *SHORT,
    *whole,
    *more.get(name, [*DATA, *DROP, *NETWORK]),
    *workdir,
  ]


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  """The folder in which one process ran them, and the outcome of each."""
  folder = tmp_path_factory.mktemp('page')
  for name in ('tests', 'configs'):
    (folder / name).symlink_to(ROOT / name)
  (folder / 'linear.py').write_text(LINEAR)
  write_digits_npz(folder / 'digits.npz')
  lines = [shortened(argv)[1] for argv in fast()]
  (folder / 'lines.json').write_text(json.dumps(lines))
  return folder, run_worker('page_worker.py', folder, folder / 'lines.json')


def fast():
  argvs = [argv[1:] for argv in COMMANDS]
  return [argv for argv in argvs if 'check-method' not in argv]


def rows_of(folder, run, kind):
  rows = (folder / 'runs' / run / 'metrics.jsonl').read_text().splitlines()
  return [row for row in map(json.loads, rows) if row['kind'] == kind]


def mine(name):
  return runpy.run_path(str(ROOT / f'tests/extending/{name}.py'))


def test_the_page_quotes_the_files_and_names_each_of_them():
  files = {p.name: p.read_text() for p in ROOT.glob('tests/extending/*.py')}
  assert len(files) == 8
  blocks = re.findall(r'```python\n(.*?)```', PAGE, re.S)
  assert len(blocks) == 8
  for name, text in files.items():
    assert f'`tests/extending/{name}`' in PAGE
    assert sum(block in text for block in blocks) == 1, name
  for path in re.findall(r'`((?:tsla|configs|tests)/[\w/.]+)`', PAGE):
    assert (ROOT / path).exists(), path
  anchors = re.findall(r'\]\(#(.*?)\)', PAGE)
  headings = re.findall(r'^##+ (.*)', PAGE, re.M)
  slugs = {
    re.sub(r'[^\w -]', '', h).lower().replace(' ', '-') for h in headings
  }
  assert set(anchors) <= slugs and len(anchors) == 7


@pytest.mark.ci
def test_each_command_of_the_page_runs(page):
  assert len(COMMANDS) == 11 and all(c[0] == 'python' for c in COMMANDS)
  for argv, (code, _, error) in zip(fast(), page[1], strict=True):
    assert code == 0, (argv, error)
    assert 'not used' not in error, error


@pytest.mark.ci
@pytest.mark.parametrize(
  'run',
  [
    *('method', 'method_with_state', 'target', 'schedule', 'network'),
    *('apart', 'margins'),
  ],
)
def test_each_part_trains_in_two_stages(page, run):
  folder, _ = page
  train = rows_of(folder, run, 'train')
  epoch = 3 if run == 'apart' else 4  # updates; a tenth is held out
  assert [row['stage'] for row in train] == [1] * epoch + [2] * epoch
  assert [row['step'] for row in rows_of(folder, run, 'switch')] == [epoch]
  for row in train:
    # Smoothing is over where both are the cross-entropy.
    added = abs(row['loss'] - row['hard_loss']) > 1e-5 * row['hard_loss']
    assert added == (row['stage'] == 1)
  known = json.loads((folder / f'runs/{run}/data.json').read_text())
  assert len(known['parts']) == 1 + (run != 'network')
  evaluated = rows_of(folder, run, 'eval')
  assert len(evaluated) == 2 and all(row['count'] == 40 for row in evaluated)


@pytest.mark.ci
def test_methods_and_targets_add_what_they_should(page):
  """At the first update all have the same logits, which nobody logs."""
  folder, _ = page
  first = {
    run: rows_of(folder, run, 'train')[0]
    for run in ('method', 'method_with_state', 'target', 'margins', 'schedule')
  }
  assert np.ptp([row['hard_loss'] for row in first.values()]) < 1e-5
  loss = {run: row['loss'] for run, row in first.items()}
  # Uniform label smoothing: of `margins`, and of means before they are moved.
  assert loss['method_with_state'] == pytest.approx(loss['margins'], rel=1e-6)
  assert loss['schedule'] == pytest.approx(loss['margins'], rel=1e-6)
  assert len({loss[run] for run in ('method', 'target', 'margins')}) == 3
  later = [
    [row['loss'] - row['hard_loss'] for row in rows_of(folder, run, 'train')]
    for run in ('method_with_state', 'margins')
  ]
  assert abs(later[0][3] - later[1][3]) > 1e-4  # ŷ has moved


@pytest.mark.ci
def test_the_schedule_is_in_the_log(page):
  theta = [row['theta'] for row in rows_of(page[0], 'schedule', 'train')]
  want = 0.1 * 0.5 ** (np.arange(4) / (0.2 * 8))
  np.testing.assert_allclose(theta, [*want, *[0] * 4], rtol=1e-6)


@pytest.mark.ci
def test_the_network_is_probed_at_its_last_layer(page):
  probes = rows_of(page[0], 'network', 'probe')
  assert len(probes) == 3 and all(row['sigma2'] > 0 for row in probes)


@pytest.mark.ci
def test_the_rule_and_the_metrics_are_in_the_report(page):
  folder, _ = page
  fired = [row['rule_apart'] for row in rows_of(folder, 'apart', 'probe')]
  assert fired[:2] == [1, 2]
  heads, rows = {}, {}
  for path in (folder / 'runs/margins/report').glob('*.csv'):
    with path.open(newline='') as file:
      head, *others = csv.reader(file)
    heads[path.name], rows[path.name] = head, others
  (rules,) = (name for name, head in heads.items() if 'delta' in head)
  assert heads[rules][-1] == 'apart' and rows[rules][0][-1] == '0'
  logged = rows_of(folder, 'margins', 'eval')[-1]
  (means,) = (n for n, h in heads.items() if {'Seeds', 'margin'} <= {*h})
  values = dict(zip(heads[means], rows[means][0], strict=True))
  assert values['margin'] == f'{logged["margin"]:.4f}'
  assert values['top3'] == f'{logged["top3"]:.4f}'
  assert logged['top1'] <= logged['top3'] <= logged['top5']


@pytest.mark.ci
def test_the_data_set_is_read_with_its_names(page):
  folder, outcomes = page
  (error,) = (
    e
    for argv, (*_, e) in zip(fast(), outcomes, strict=True)
    if '--config.data.path=sums.npz' in argv
  )
  assert '4,000 training images, 0 to select by, 1,000 test' in error
  assert ', 19 classes' in error
  digits = load_digits()
  pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
  known = {
    p.tobytes(): (i, t)
    for i, (p, t) in enumerate(zip(pixels, digits.target, strict=True))
  }
  used = {}
  with np.load(folder / 'sums.npz') as file:
    for split in ('train', 'test'):
      halves = np.split(file[f'{split}_images'], 2, axis=2)
      pairs = [[known[p.tobytes()] for p in half] for half in halves]
      sums = [a[1] + b[1] for a, b in zip(*pairs, strict=True)]
      np.testing.assert_array_equal(file[f'{split}_labels'], sums)
      used[split] = {i for half in pairs for i, _ in half}
  assert not used['train'] & used['test']


def logits_and_labels(seed=0, b=5, k=4):
  rng = np.random.default_rng(seed)
  return rng.normal(0, 3, (b, k)), rng.integers(0, k, b)


def test_the_method_is_its_formula():
  z, labels = logits_and_labels()
  loss = mine('method')['soft_suppression'](temperature=2.0).loss
  hard = -log_softmax(z, -1)[np.arange(5), labels]
  want = hard + 0.3 * (2 * logsumexp(z / 2, -1) - z.mean(-1))
  got = loss(jnp.float32(z), jnp.asarray(labels), 0.3)
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_the_state_is_the_moving_average_of_class_means():
  method = mine('method_with_state')['moving_means'](decay=0.75)
  target = method.target(tsla.Task(4, 20, None))
  state, want = target.state, np.full((4, 4), 0.25)
  for seed in range(3):
    z, labels = logits_and_labels(seed)
    seen = tsla.Seen(jnp.asarray(labels), None, logits=jnp.float32(z))
    state = target.update(state, seen)
    for k in {*labels}:
      mean = softmax(z, -1)[labels == k].mean(0)
      want[k] = 0.75 * want[k] + 0.25 * mean
  np.testing.assert_allclose(state, want, rtol=1e-5)
  np.testing.assert_allclose(
    target.y_hat((), state, seen), want[labels], rtol=1e-5
  )


def test_the_target_is_uniform_over_the_group():
  make = mine('target')['in_groups']
  target = make(tsla.Task(4, 9, None), groups=(7, 2, 7, 7))
  seen = tsla.Seen(jnp.array([0, 1]), None)
  np.testing.assert_allclose(
    target.y_hat(target.arrays, (), seen),
    [[1 / 3, 0, 1 / 3, 1 / 3], [0, 1, 0, 0]],
    rtol=1e-6,
  )
  with pytest.raises(ValueError, match='0 groups for 4 classes'):
    make(tsla.Task(4, 9, None))


def test_the_schedule_need_not_drop():
  theta = mine('schedule')['halving'](0.4, Durations(10, 100))
  np.testing.assert_allclose(
    [theta(0), theta(99)], [0.4, 0.4 * 0.5**9.9], rtol=1e-6
  )


@pytest.mark.ci
def test_the_network_sows_what_its_head_reads():
  vit = mine('network')['vit']
  network = vit(3, dtype=jnp.bfloat16, patch=4, dim=8, depth=1, heads=2)
  images = jnp.asarray(
    np.random.default_rng(0).normal(size=(2, 8, 12, 1)), jnp.float32
  )
  init = jax.jit(network.init, static_argnames='train')
  variables = init(jax.random.key(0), images, train=False)
  assert {*variables} == {'params'}
  params = variables['params']
  block = 4 * (8 * 8 + 8) + 2 * 8 * 32 + 32 + 8 + 4 * 8
  want = 16 * 8 + 8 + 6 * 8 + block + 16 + 8 * 3 + 3
  assert sum(x.size for x in jax.tree.leaves(params)) == want
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('float32')}
  logits, sown = network.apply(
    {'params': params}, images, train=True, mutable=['intermediates']
  )
  (features,) = sown['intermediates']['features']
  assert logits.dtype == features.dtype == jnp.float32
  head = params['head']
  want = np.float64(features) @ np.float64(head['kernel']) + head['bias']
  np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-5)
  with pytest.raises(ValueError, match='dim = 9 must be a multiple'):
    vit(3, dtype=jnp.bfloat16, dim=9)


@pytest.mark.parametrize(
  ('value', 'error', 'fires'),
  [
    (0.7, 0.05, True),
    (0.7, 0.11, False),
    (0.95, 0.0, False),
    (np.nan, 0.0, False),
  ],
)
def test_the_rule_fires_where_the_cosine_is_surely_low(value, error, fires):
  cosine = tsla.Estimate(jnp.float32(value), jnp.float32(error))
  seen = tsla.Observation(types.SimpleNamespace(cosine=cosine))
  assert bool(mine('rule')['apart'](seen, None)) == fires


def test_the_metrics_are_those_of_sorted_logits():
  z, labels = logits_and_labels(b=40, k=6)
  z = np.float32(z)
  z[0], z[1, labels[1]] = 1.0, np.nan
  got = mine('metric')['margins'](jnp.asarray(z), jnp.asarray(labels))
  for i, label in enumerate(labels):
    rest = np.sort(np.delete(z[i], label))[::-1]
    margin = z[i, label] - rest[0]
    np.testing.assert_allclose(got['margin'][i], margin, rtol=1e-6)
    assert got['top3'][i] == (z[i, label] > rest[2])


@pytest.mark.slow
@pytest.mark.parametrize(
  'argv',
  [
    *(argv[1:] for argv in COMMANDS if 'check-method' in argv),
    [
      *('-m', 'tsla', 'check-method'),
      'tests/extending/method_with_state.py:moving_means',
    ],
  ],
  ids=lambda argv: argv[3],
)
def test_the_methods_keep_their_promises(argv, tmp_path):
  (tmp_path / 'lines.json').write_text(json.dumps([argv]))
  ((code, out, _),) = run_worker(
    'page_worker.py', ROOT, tmp_path / 'lines.json'
  )
  assert code == 0 and len(out.splitlines()) >= 9, out
