"""A finished run is enough: evaluated, asked, exported, fine-tuned from."""

import csv
import io
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax, softmax
from support import WEIGHTS, changed, small_config, write_digits_npz

from tsla.commands import evaluate, export, predict
from tsla.config.forms import default_config
from tsla.data import datasets, prepare
from tsla.errors import InputError
from tsla.evaluation.calibration import fit_temperature
from tsla.models import create, pretrained
from tsla.runs import predictions
from tsla.runs.directory import read_run
from tsla.training import build, finished, loop, start

pytestmark = [pytest.mark.usefixtures('compile_once'), pytest.mark.ci]
_ALONE = """
import importlib.abc, json, sys

class Only(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path, target=None):
    if name.split('.')[0] in {'tsla', 'flax', 'optax', 'orbax', 'safetensors'}:
      raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Only())
import jax, jax.export, numpy
program = jax.export.deserialize(open(sys.argv[1], 'rb').read())
images = numpy.load(sys.argv[2])
said = [program.call(images[:n]).tolist() for n in (1, len(images))]
assert not {'tsla', 'flax', 'optax'} & set(sys.modules)
print(json.dumps(said))
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  config = small_config(write_digits_npz(folder / 'digits.npz', train=80))
  return changed(config, data__validation=0.2, epochs=3)


@pytest.fixture(scope='module')
def images(config):
  """The test images as stored, and their labels."""
  test = datasets.load_dataset(config.data).test
  return test.images, test.labels


@pytest.fixture(scope='module')
def run(config, images, tmp_path_factory):
  """A finished run, whose data set is not there any more."""
  workdir = tmp_path_factory.mktemp('run') / 'run'
  loop.train_and_evaluate(config, workdir)
  path = pathlib.Path(config.data.path)
  path.rename(path.with_name('gone.npz'))
  yield workdir
  path.with_name('gone.npz').rename(path)


def kept(run, split='test'):
  return read_run(run, 'run').predictions(split)


def temperature(run):
  return json.loads((run / 'model.json').read_text())['temperature']


def test_the_directory_says_what_the_network_takes_and_says(run):
  about = json.loads((run / 'model.json').read_text())
  assert about['format'] == 1
  assert about['class_names'] == [str(k) for k in range(10)]
  assert about['image_shape'] == [8, 8, 1]
  view = {'crop': 0, 'mean': [0.5], 'std': [0.5], 'dtype': 'float32'}
  assert about['view'] == view
  assert about['model']['name'] == 'resnet8'
  assert about['arrays']['params/fc/kernel'] == [16, 10]
  assert about['arrays']['batch_stats/bn1/mean'] == [4]


def test_predictions_are_those_that_the_log_judged(run, images):
  said, (row,) = kept(run), read_run(run, 'run').log['eval'][-1:]
  np.testing.assert_array_equal(said['labels'], images[1])
  np.testing.assert_array_equal(said['ids'], np.arange(40))
  log_p = log_softmax(said['logits'].astype(np.float64), axis=1)
  right = said['logits'].argmax(1) == images[1]
  assert right.mean() == pytest.approx(row['top1'])
  assert -log_p[np.arange(40), images[1]].mean() == pytest.approx(row['nll'])


def test_the_temperature_is_fitted_on_the_validation_split(run):
  said = kept(run, 'validation')
  assert len(said['labels']) == 16
  expected = fit_temperature(said['logits'], said['labels'])
  assert temperature(run) == expected != 1


def test_predictions_that_changed_are_refused(run, tmp_path):
  other = shutil.copytree(run, tmp_path / 'run')
  file = other / 'predictions/test.npz'
  content = bytearray(file.read_bytes())
  content[-300] ^= 1
  file.write_bytes(content)
  with pytest.raises(InputError, match='SHA-256 is not that'):
    kept(other)
  model = json.loads((other / 'model.json').read_text())
  for change, text in (
    ({'format': 2}, 'newer version'),
    ({'temperature': 0.0}, 'temperature = 0'),
    ({'image_shape': [8, 8]}, 'run'),
    ({'class_names': ['a', 'b']}, 'params/fc/bias is'),
  ):
    (other / 'model.json').write_text(json.dumps({**model, **change}))
    with pytest.raises(InputError, match=text):
      finished.load(other, 'run')


def test_a_run_that_is_not_finished_is_refused(run, tmp_path, capsys):
  other = shutil.copytree(run, tmp_path / 'run')
  (other / 'model.json').unlink()
  assert evaluate.main([str(other)]) == 2
  assert 'has no model.json' in capsys.readouterr().err


def test_of_many_classes_what_comes_of_the_logits_is_kept(tmp_path):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(3, 1001)).astype(np.float32)
  labels = np.array([5, logits[1].argmax(), 1000], np.int32)
  said = {'ids': np.arange(3), 'labels': labels, 'logits': logits}
  predictions.write(tmp_path / 'p', {'test': said}, 2.0, {'step': 4})
  read = predictions.read(tmp_path / 'p', 'test', 4)
  assert 'logits' not in read
  for divisor in (1.0, 2.0):
    log_p = log_softmax(logits.astype(np.float64) / divisor, axis=1)
    found = predictions.scores(read, divisor)
    np.testing.assert_allclose(found.nll, -log_p[range(3), labels])
    np.testing.assert_allclose(found.confidence, np.exp(log_p.max(1)))
    assert found.correct.tolist() == [False, True, False]
  assert predictions.read(tmp_path / 'p', 'test', 5) is None
  assert predictions.read(tmp_path / 'p', 'train', 4) is None


def top1_in(text):
  """What `evaluate` printed of the network as it was trained."""
  return text.split('Top-1 %')[1].split()[0]


def test_evaluate_needs_no_data_and_finds_classes_by_name(
  run, images, tmp_path, capsys
):
  assert evaluate.main([str(run)]) == 0
  own = capsys.readouterr().out
  right = (kept(run)['logits'].argmax(1) == images[1]).mean()
  by_temperature = f'{temperature(run):.3f}'
  header, top1, *others = own.splitlines()[1:]
  assert header.split() == ['as', 'trained', 'temperature', by_temperature]
  about = json.loads((run / 'model.json').read_text())
  shutil.copytree(run, tmp_path / 'plain')
  (tmp_path / 'plain/model.json').write_text(
    json.dumps(about | {'temperature': 1.0})
  )
  assert evaluate.main([str(tmp_path / 'plain')]) == 0
  assert capsys.readouterr().out.splitlines()[1].split() == ['as', 'trained']
  assert top1.split() == ['Top-1', '%', *[f'{100 * right:.2f}'] * 2]
  assert others[0].split()[0] == 'NLL'
  other = tmp_path / 'other.npz'
  arrays = {
    'train_images': images[0],
    'train_labels': 9 - images[1],
    'test_images': images[0],
    'test_labels': 9 - images[1],
  }
  names = np.array([str(9 - k) for k in range(10)])
  np.savez(other, **arrays, class_names=names)
  assert evaluate.main([str(run), f'--data.path={other}']) == 0
  of = f" of data.name = 'npz', data.path = '{other}'"
  header, _, figures = own.partition('\n')
  assert capsys.readouterr().out == f'{header}{of}\n{figures}'
  np.savez(other, **arrays, class_names=np.append(names[:9], 'ten'))
  assert evaluate.main([str(run), f'--data.path={other}']) == 2
  assert 'classes of' in capsys.readouterr().err


def test_evaluate_tells_what_a_run_would_of_the_data(
  run, images, tmp_path, capsys
):
  some = (images[1] == 3) | (images[1] == 7)
  arrays = {'images': images[0][some], 'labels': images[1][some]}
  splits = {f'{s}_{k}': v for s in ('train', 'test') for k, v in arrays.items()}
  np.savez(tmp_path / 'some.npz', **splits)
  assert evaluate.main([str(run), f'--data.path={tmp_path / "some.npz"}']) == 0
  found = capsys.readouterr()
  assert 'labels 0 to 1 are 3, 7' in found.err
  right = (kept(run)['logits'].argmax(1) == images[1])[some].mean()
  assert top1_in(found.out) == f'{100 * right:.2f}'


def test_evaluate_takes_new_images_without_any_to_train_on(
  run, images, tmp_path, capsys
):
  right = kept(run)['logits'].argmax(1) == images[1]
  new, path = images[1] == 3, tmp_path / 'new.npz'  # of one class only
  own = {'test_images': images[0][new], 'test_labels': images[1][new]}
  np.savez(path, **own)
  for split in ('test', 'all'):
    argv = [str(run), f'--data.path={path}', f'--split={split}']
    assert evaluate.main(argv) == 0
    found = capsys.readouterr().out
    assert f'{split}, {new.sum()} images' in found
    assert top1_in(found) == f'{100 * right[new].mean():.2f}'
  assert evaluate.main([str(run), f'--data.path={path}', '--split=train']) == 2
  assert '--split of test, all' in capsys.readouterr().err
  large = [
    Image.fromarray(i[..., 0]).resize((24, 16)) for i in own['test_images']
  ]
  small = [i.resize((8, 8), Image.Resampling.BILINEAR) for i in large]
  said = set()
  for pixels in (large, small):  # those of another size are resized
    np.savez(path, **own | {'test_images': np.stack(pixels)})
    assert evaluate.main([str(run), f'--data.path={path}']) == 0
    said.add(capsys.readouterr().out)
  assert len(said) == 1
  np.savez(path, **own, train_images=own['test_images'])
  assert evaluate.main([str(run), f'--data.path={path}']) == 2
  assert 'it has no train_labels' in capsys.readouterr().err


def test_evaluate_of_all_takes_every_split_of_a_set(
  run, images, tmp_path, capsys
):
  path, part = tmp_path / 'new.npz', np.arange(40) < 30
  splits = {'train': ~part, 'test': part}
  arrays = {f'{s}_images': images[0][p] for s, p in splits.items()}
  arrays |= {f'{s}_labels': images[1][p] for s, p in splits.items()}
  np.savez(path, **arrays, class_names=np.arange(10).astype(str))
  assert evaluate.main([str(run), f'--data.path={path}', '--split=all']) == 0
  found, _, own = capsys.readouterr().out.partition('\n')
  assert 'all, 40 images of ' in found
  assert evaluate.main([str(run)]) == 0
  assert capsys.readouterr().out.partition('\n')[2] == own


def edited(run, path, name, **fields):
  """A copy of a run with other fields in one of its files."""
  file = shutil.copytree(run, path) / name
  file.write_text(json.dumps(json.loads(file.read_text()) | fields))
  return path


def test_two_classes_of_one_name_stay_two(run, images, tmp_path, capsys):
  """ImageNet has two cranes. Nothing is mapped, or it is refused."""
  names = ['crane', '1', '2', 'crane', *'456789']
  cranes = edited(run, tmp_path / 'run', 'model.json', class_names=names)
  path, top1 = tmp_path / 'new.npz', kept(run)['logits'].argmax(1)
  arrays = {'test_images': images[0], 'test_labels': images[1]}
  np.savez(path, **arrays, class_names=np.array(names))
  assert evaluate.main([str(cranes), f'--data.path={path}']) == 0
  right = (top1 == images[1]).mean()
  assert top1_in(capsys.readouterr().out) == f'{100 * right:.2f}'
  for other in (names[::-1], ['crane', *'123456789']):
    np.savez(path, **arrays, class_names=np.array(other))
    for who in (cranes, run):
      assert evaluate.main([str(who), f'--data.path={path}']) == 2
      error = capsys.readouterr().err
      assert 'no name twice' in error and "'crane'" in error
      assert len(error.splitlines()) <= 3
  out = tmp_path / 'out.csv'
  assert predict.main([str(cranes), str(path), f'--out={out}']) == 0
  rows = csv.DictReader(io.StringIO(out.read_text()))
  shown = {0: 'crane (0)', 3: 'crane (3)'}
  assert [r['class'] for r in rows] == [shown.get(k, str(k)) for k in top1]
  assert {0, 3} <= {*top1.tolist()}


def test_a_prepared_set_is_evaluated_where_it_lies_and_left_alone(
  run, tmp_path, capsys, monkeypatch
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  fields = {'data.name': 'digits', 'data.path': ''}
  of_digits = edited(run, tmp_path / 'run', 'config.json', **fields)
  root, below = tmp_path / 'sets', tmp_path / 'sets/of/none'
  prepare.prepare('digits', root)
  below.mkdir(parents=True)
  before = sorted(root.rglob('*'))
  assert evaluate.main([str(of_digits), f'--data.path={root}']) == 0
  found = capsys.readouterr().out
  assert f"360 images of data.name = 'digits', data.path = '{root}'" in found
  options = default_config().data
  options.update(name='digits', path=str(root))
  test = datasets.load_dataset(options, to_train=False).test
  logits = finished.load(run, 'run').logits(test.images[:])
  right = np.asarray(logits).argmax(1) == test.labels
  assert top1_in(found) == f'{100 * right.mean():.2f}'
  for argv in (
    [f'--data.path={below}'],  # no images
    [f'--data.path={below}', '--data.name=digits'],
    [f'--data.path={below}/none', '--data.name=digits'],
  ):
    assert evaluate.main([str(of_digits), *argv]) == 2
    error = capsys.readouterr().err
    assert ('not prepared' if len(argv) > 1 else 'no training im') in error
  assert sorted(root.rglob('*')) == before


def test_evaluate_says_which_labels_are_noise(run, images, tmp_path, capsys):
  path = tmp_path / 'new.npz'
  np.savez(path, test_images=images[0], test_labels=images[1])
  fields = {'data.label_noise': 0.25}
  noisy = edited(run, tmp_path / 'run', 'config.json', **fields)
  said = 'data.label_noise: 0.25 of train and validation labels wrong'
  for who, argv, there in (
    (noisy, ['--split=validation'], True),
    (noisy, ['--split=test'], False),
    (noisy, [f'--data.path={path}', '--split=all'], False),
    (run, ['--split=validation'], False),
  ):
    assert evaluate.main([str(who), *argv]) == 0
    assert (said in capsys.readouterr().out.splitlines()) == there


def test_predict_asks_files_folders_and_arrays(run, images, tmp_path, capsys):
  p = softmax(kept(run)['logits'].astype(float) / temperature(run), axis=1)
  folder = tmp_path / 'images'
  (folder / 'deep').mkdir(parents=True)
  for index in range(3):
    Image.fromarray(images[0][index, ..., 0]).save(folder / f'{index}.png')
  large = Image.fromarray(images[0][3, ..., 0]).resize((16, 16), 0)
  large.convert('RGB').save(folder / 'deep/3.png')
  (folder / 'bad.png').write_bytes(b'none')
  (folder / 'notes.txt').write_text('none')
  out = tmp_path / 'out.csv'
  assert predict.main([str(run), str(folder), f'--out={out}']) == 1
  assert 'bad.png' in capsys.readouterr().err
  rows = list(csv.DictReader(io.StringIO(out.read_text())))
  names = [f'{folder}/{name}' for name in ('0.png', '1.png', '2.png')]
  assert [row['image'] for row in rows] == [*names, f'{folder}/deep/3.png']
  for index, row in enumerate(rows[:3]):  # the last one was resized
    best = np.argsort(-p[index])[:5]
    assert row['class'] == str(best[0])
    assert float(row['confidence_5']) == pytest.approx(p[index, best[4]], 1e-4)
  npz = tmp_path / 'new.npz'
  np.savez(npz, images=images[0][:4])
  for suffix in ('jsonl', 'npz'):
    out = tmp_path / f'out.{suffix}'
    assert predict.main([str(run), str(npz), f'--out={out}']) == 0
    assert capsys.readouterr().out == f'{out}: 4 images\n'
  lines = (tmp_path / 'out.jsonl').read_text().splitlines()
  assert [json.loads(line)['class'] for line in lines] == [
    str(k) for k in p[:4].argmax(1)
  ]
  with np.load(tmp_path / 'out.npz') as arrays:
    np.testing.assert_allclose(arrays['probabilities'], p[:4], rtol=1e-4)
  assert predict.main([str(run), str(npz)]) == 0
  shown = capsys.readouterr().out.splitlines()
  assert len(shown) == 4 and f'{p[0].max():.4f}' in shown[0]


def test_predict_names_all_that_is_missing_before_it_asks(
  run, tmp_path, capsys, monkeypatch
):
  def load(path, where):
    raise AssertionError('asked before it looked')

  monkeypatch.setattr(finished, 'load', load)
  there = tmp_path / 'there.png'
  Image.new('L', (8, 8)).save(there)
  absent = [str(tmp_path / 'a.png'), str(tmp_path / ('b' * 300))]
  assert predict.main([str(run), str(there), *absent]) == 2
  # A long line is cut in its middle.
  said = f'not found, or not readable: {absent[0]}, {tmp_path / "bbb"}'
  assert capsys.readouterr().err.startswith(said)


def test_the_exported_file_is_torchs(run, images, tmp_path, monkeypatch):
  file = tmp_path / 'own.safetensors'
  assert export.main([str(run), f'--out={file}']) == 0
  model, variables, _ = pretrained.load_network(file)
  seen = (images[0] / 255 - 0.5) / 0.5
  logits = model.apply(variables, seen.astype(np.float32), train=False)
  np.testing.assert_allclose(logits, kept(run)['logits'], atol=1e-4)
  # Of a network that torch wrote: its tensors, of which torch's logits come.
  theirs = pretrained.read_state_dict(WEIGHTS)
  model, variables, _ = pretrained.load_network(WEIGHTS)
  network = finished.Network(model, variables, None, {})
  monkeypatch.setattr(finished, 'load', lambda path, where: network)
  assert export.main(['run', f'--out={file}']) == 0
  written = pretrained.read_state_dict(file)
  wanted = {n for n in theirs if not n.endswith('num_batches_tracked')}
  assert written.keys() == wanted
  for name in wanted:
    np.testing.assert_array_equal(written[name], theirs[name])


def test_the_exported_program_runs_with_jax_alone(run, images, tmp_path):
  folder = tmp_path / 'program'
  assert export.main([str(run), f'--out={folder}']) == 0
  assert export.main([str(run), f'--out={folder}']) == 2  # it is there
  about = json.loads((folder / 'model.json').read_text())
  assert about['class_names'][3] == '3' and '8, 8, 1' in about['input']
  np.save(tmp_path / 'images.npy', images[0][:7])
  result = subprocess.run(
    [
      *(sys.executable, '-I', '-c', _ALONE),
      *map(str, (folder / 'program.bin', tmp_path / 'images.npy')),
    ],
    capture_output=True,
    text=True,
    cwd=tmp_path,
  )
  assert result.returncode == 0, result.stderr
  one, seven = map(np.array, json.loads(result.stdout))
  logits = kept(run)['logits'].astype(np.float64)
  expected = softmax(logits / temperature(run), axis=1)[:7]
  np.testing.assert_allclose(one, expected[:1], atol=1e-5)
  np.testing.assert_allclose(seven, expected, atol=1e-5)


@pytest.mark.parametrize('names', ['0123456789', '0123456', '9876543210'])
def test_a_run_is_what_another_is_fine_tuned_from(run, config, names):
  options = changed(config, model__weights=str(run)).model
  start.check_origin(options, '', 3)
  model = create('resnet8', len(names), stem='cifar', width=4)
  zeros = np.zeros((1, 8, 8, 1), np.float32)
  variables = model.init(jax.random.key(1), zeros, train=False)
  first = build.step.TrainState(None, None, None, None)
  first = first.replace(**variables)
  begun = start._from_weights(options, first, tuple(names))
  ours = finished.load(run, 'run').variables
  for name in ('conv1', 'fc'):
    anew = name == 'fc' and names != '0123456789'
    source = variables if anew else ours
    np.testing.assert_array_equal(
      begun.state.params[name]['kernel'], source['params'][name]['kernel']
    )
  said = 'arrays taken, the head drawn anew for other classes or another order'
  assert (said in begun.note) == anew
  jax.tree.map(
    np.testing.assert_array_equal,
    *(begun.state.batch_stats, ours['batch_stats']),
  )


@pytest.mark.parametrize('names', [None, 'ab', 'ba'])
def test_what_is_taken_for_a_head_of_another_name_is_said(
  config, monkeypatch, names
):
  """A file does not say its classes; of a run they are known."""
  weights = {'head.weight': np.eye(2, dtype=np.float32)}
  weights['bn.running_mean'] = np.ones(2, np.float32)
  said = weights, names and list(names)
  monkeypatch.setattr(start, 'read_weights', lambda path, sha256: said)
  zeros = jax.numpy.zeros((2, 2))
  head = {'head': {'kernel': zeros}}
  first = build.step.TrainState(None, None, None, None)
  first = first.replace(params=head, batch_stats={'bn': {'mean': zeros[0]}})
  begun = start._from_weights(config.model, first, ('a', 'b'))
  kernel = begun.state.params['head']['kernel']
  np.testing.assert_array_equal(kernel, np.eye(2))
  assert '2 arrays taken' in begun.note
  assert ('the head too' in begun.note) == (names == 'ba')
