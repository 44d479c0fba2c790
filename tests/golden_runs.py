"""Six kinds of run, before and after a change of the code, bit for bit.

For a rebuilding that must not change a run. On one machine, nothing else
installed in between:

  git worktree add /tmp/before COMMIT
  (cd /tmp/before && python tests/golden_runs.py write /tmp/golden-before)
  python tests/golden_runs.py write /tmp/golden-after
  python tests/golden_runs.py compare /tmp/golden-before /tmp/golden-after

`write` trains each run by `main.py` on one core, compiled as for users, in two
minutes. RUN.npz has the last state by name (`params/…`, `statistics/…`,
`momentum/…`, `second_moment/…`, `theta`, `count`, `rules/…`), RUN.jsonl the
rows of the log. The names are not those of the optimiser's state, whose shape
may change: `read_state` translates, and is all that knows how a run is saved.

`compare` prints every difference and exits with 1 if there is one. What a probe
estimated may differ by 1e-5 of it, what the clock says by anything. Another
machine or another jax has other bits: keep what is written out of the
repository.
"""

import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOLERANCE = 1e-5
CLOCK = {'images_per_second', 'seconds'}
EXACT = {'kind', 'step', 'epoch'}  # of the fields of a probe's row

COMMON = (
  *('epochs=4', 'batch_size=16', 'eval_batch_size=32', 'log_every_steps=3'),
  *('checkpoint_every_epochs=1', 'model.width=4', 'data.name=npz'),
)
# Name -> the config file and what is changed in it; {folder} holds all runs.
RUNS = {
  'plain': ('digits_baseline.py', 'augment.flip=true', 'seed=1'),
  'tsla': (
    *('digits_tsla.py:2', 'data.label_noise=0.2', 'augment.pad=0'),
    *('augment.crop=6', 'smoothing.reset_momentum=true'),
    *('optimizer.schedule=step', 'optimizer.milestone_epochs=(3,)'),
  ),
  'teacher': ('digits_tsla_pre.py:3', 'teacher.run={folder}/plain'),
  'probed': (
    *('digits_tsla.py:2', 'variance.every_epochs=1', 'variance.num_batches=3'),
    *('smoothing.target=prior', 'optimizer.warmup_epochs=1'),
  ),
  'auto': (
    *(
      'digits_auto.py:plateau',
      'variance.num_batches=3',
      'data.validation=0.2',
    ),
    *('variance.mode=last_layer', 'smoothing.patience=1'),
    *('smoothing.min_epochs=1', 'smoothing.max_epochs=3'),
    *('optimizer.learning_rate=0.5', 'smoothing.reset_momentum=true'),
  ),
  'trunk': (
    *('digits_lsr.py', 'checkpoint_keep_epochs=(2,)', 'optimizer.name=adamw'),
    'optimizer.learning_rate=0.01',
  ),
  'forked': (
    *('digits_tsla.py:2', 'init.fork_from={folder}/trunk@2'),
    *('optimizer.name=adamw', 'optimizer.learning_rate=0.01'),
  ),
}


def read_state(workdir):
  """The last state of a run by name, however it is saved."""
  import orbax.checkpoint as ocp  # after the environment is set

  steps = [p for p in (workdir / 'checkpoints').iterdir() if p.name.isdigit()]
  newest = max(steps, key=lambda path: int(path.name))
  with ocp.StandardCheckpointer() as checkpointer:
    saved = checkpointer.restore(newest.absolute())
  names = (
    (r'step', 'count'),
    (r'params/(.+)', r'params/\1'),
    (r'batch_stats/(.+)', r'statistics/\1'),
    (r'opt_state/.*\b(?:trace|mu)/(.+)', r'momentum/\1'),
    (r'opt_state/.*\bnu/(.+)', r'second_moment/\1'),
    (r'opt_state/.*\btheta', 'theta'),
    (r'opt_state/.*\bmemory/(.+)', r'rules/\1'),
  )
  state = {}
  for name, array in saved.items():
    for pattern, plain in names:
      if match := re.fullmatch(pattern, name):
        assert match.expand(plain) not in state, name
        state[match.expand(plain)] = np.asarray(array)
  # Older states have the counts of the rules in one array.
  counts = state.pop('rules/firings', ())
  for rule, count in zip(
    ('delta', 'mse', 'floor', 'plateau'), counts, strict=False
  ):
    state[f'rules/firings/{rule}'] = count
  # And −1 where no θ is followed.
  if not state.pop('rules/follows', True):
    state['rules/followed'] = np.float32(-1)
  found = {name.partition('/')[0] for name in state}
  assert found >= {'params', 'statistics', 'momentum', 'theta', 'count'}, found
  return state


def read_rows(workdir):
  """The rows of a run's log, without what the clock says."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  rows = [row for row in rows if row['kind'] != 'format']  # the log's own
  return [{k: v for k, v in r.items() if k not in CLOCK} for r in rows]


def set_environment(cache):
  """Nothing that jax or the project reads is left to chance."""
  for name in list(os.environ):
    if name.startswith(('JAX_', 'TSLA_', 'TFDS_', 'XLA_', 'PYTHONPATH')):
      del os.environ[name]
  os.environ['JAX_PLATFORMS'] = 'cpu'
  os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
  os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=1'
  os.environ['XDG_CACHE_HOME'] = str(cache)
  # The number of cores that a program sees changes its sums.
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def write_digits(path):
  """160 digits to train on, 80 to test: ten updates an epoch."""
  from sklearn.datasets import load_digits

  digits = load_digits()
  images = np.round(digits.images * 255 / 16).astype(np.uint8)
  np.savez(
    path,
    train_images=images[:160],
    train_labels=digits.target[:160],
    test_images=images[160:240],
    test_labels=digits.target[160:240],
  )


def write(out):
  """Trains every run and writes what it came to."""
  out.mkdir(parents=True)
  with tempfile.TemporaryDirectory(prefix='golden-') as temporary:
    folder = pathlib.Path(temporary)
    set_environment(folder / 'cache')
    write_digits(folder / 'digits.npz')
    for name, (file, *fields) in RUNS.items():
      fields = [*COMMON, 'data.path={folder}/digits.npz', *fields]
      flags = [f'--config.{field.format(folder=folder)}' for field in fields]
      result = subprocess.run(
        [
          *(sys.executable, 'main.py', f'--config=configs/{file}', *flags),
          f'--workdir={folder / name}',
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
      )
      if result.returncode:
        sys.exit(f'{name}: exit code {result.returncode}\n{result.stderr}')
      state, rows = read_state(folder / name), read_rows(folder / name)
      np.savez(out / f'{name}.npz', **state)
      lines = ''.join(json.dumps(row) + '\n' for row in rows)
      (out / f'{name}.jsonl').write_text(lines)
      print(f'{name}: {len(state)} arrays, {len(rows)} rows', flush=True)


def compare(before, after):
  """Every difference of two folders that `write` made, one line each."""
  names = {path.name for folder in (before, after) for path in folder.iterdir()}
  missing = {f'{run}.{end}' for run in RUNS for end in ('npz', 'jsonl')} - names
  yield from (f'{name}: in neither' for name in sorted(missing))
  for name in sorted(names):
    one, other = before / name, after / name
    if not (one.exists() and other.exists()):
      yield f'{name}: only in {before if one.exists() else after}'
    elif name.endswith('.npz'):
      with np.load(one) as a, np.load(other) as b:
        yield from (f'{name}: {line}' for line in _arrays(dict(a), dict(b)))
    else:
      a, b = (path.read_text().splitlines() for path in (one, other))
      yield from (f'{name}: {line}' for line in _rows(a, b))


def _arrays(a, b):
  for name in sorted(a.keys() | b.keys()):
    if name not in a or name not in b:
      yield f'{name}: only {"before" if name in a else "after"}'
    elif (a[name].dtype, a[name].shape) != (b[name].dtype, b[name].shape):
      yield (
        f'{name}: {a[name].dtype}{a[name].shape} before, '
        f'{b[name].dtype}{b[name].shape} after'
      )
    elif a[name].tobytes() != b[name].tobytes():
      # What the rules remember was estimated by a probe.
      estimate = name.startswith('rules/') and a[name].dtype.kind == 'f'
      if not (estimate and np.allclose(a[name], b[name], TOLERANCE, 0)):
        apart = np.abs(a[name].astype(float) - b[name]).max()
        yield f'{name}: differs, by up to {apart:g}'


def _rows(a, b):
  if len(a) != len(b):
    yield f'{len(a)} rows before, {len(b)} after'
  for one, other in zip(map(json.loads, a), map(json.loads, b), strict=False):
    for field in sorted(one.keys() | other.keys()):
      old, new = one.get(field, 'nothing'), other.get(field, 'nothing')
      estimate = one['kind'] == other['kind'] == 'probe' and field not in EXACT
      estimate &= isinstance(old, float) and isinstance(new, float)
      if old != new and not (
        estimate and math.isclose(old, new, rel_tol=TOLERANCE)
      ):
        where = f'{one["kind"]} row of update {one["step"]}'
        yield f'{where}: {field} is {old} before, {new} after'


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  what = parser.add_subparsers(dest='what', required=True)
  what.add_parser('write').add_argument('folder', type=pathlib.Path)
  both = what.add_parser('compare')
  both.add_argument('before', type=pathlib.Path)
  both.add_argument('after', type=pathlib.Path)
  args = parser.parse_args()
  if args.what == 'write':
    write(args.folder)
    return 0
  differences = list(compare(args.before, args.after))
  print('\n'.join(differences) or 'no difference')
  return int(bool(differences))


if __name__ == '__main__':
  sys.exit(main())
