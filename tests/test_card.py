"""The cards of the report: what runs said, as numbers, intervals, figures."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from scipy import stats
from test_report import cells, report, words_of, write_run, write_table

from tsla.commands.report import main
from tsla.pages import figures as pages
from tsla.report import cards
from tsla.report.results import read_results
from tsla.runs import predictions

RECORD = json.loads(
  pathlib.Path(__file__)
  .with_name('golden')
  .joinpath('evaluation.json')
  .read_text()
)['sets']


def said(name):
  logits, labels = (np.array(RECORD[name][k]) for k in ('logits', 'labels'))
  ids = np.arange(len(labels), dtype=np.int32)
  return {'ids': ids, 'labels': labels.astype(np.int32), 'logits': logits}


def keep(folder, test, validation=None, temperature=1.0):
  """Leaves in a run's directory what its network said."""
  classes = test['logits'].shape[1]
  model = {
    'class_names': [f'c{k}' for k in range(classes)],
    'image_shape': [8, 8, 1],
    'temperature': temperature,
    'format': 1,
  }
  (folder / 'model.json').write_text(json.dumps(model))
  splits = {'test': test} | ({'validation': validation} if validation else {})
  predictions.write(folder / 'predictions', splits, temperature, {'step': 20})
  return folder


def table_at(page, words):
  """The rows of the table whose caption holds the words."""
  return cells(page, page.split(words)[0].count('<figcaption><b>Table'))


def card_of(page, name):
  return page.split(f'>{name}</h3>')[1].split('<h3')[0]


def number(cell):
  return float(cell.split(' ')[0].replace('−', '-').replace(',', ''))


def test_the_numbers_are_those_of_the_other_libraries(tmp_path):
  """One run, which fits its temperature on the images that it is tested on."""
  values = RECORD['seven']['values']
  folder = write_table(tmp_path, ['baseline'], (0,))
  t = values['temperature']
  keep(write_run(folder / 'r0-seed0'), said('seven'), said('seven'), t)
  rows = table_at(report(folder), 'Mean ± standard deviation over the seeds.')
  logits, labels = said('seven')['logits'], said('seven')['labels']

  def nll(z):
    z = z - z.max(1, keepdims=True)
    return (np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), labels]).mean()

  assert rows['Temperature'] == ['–', f'{t:.3f}']
  # As trained is what the log says.
  assert rows['NLL'] == ['0.500', f'{nll(logits / t):.3f}']
  assert rows['ECE (equal width), %'][0] == '2.00'
  mass = 100 * values['uncertainty']['ece_equal_mass']
  assert abs(number(rows['ECE (equal mass), %'][0]) - mass) < 0.006
  a = values['accuracy']
  augrc = (1 - values['auroc']) * a * (1 - a) + (1 - a) ** 2 / 2
  assert rows['AUGRC, ‰'][0] == f'{1000 * augrc:.2f}'
  assert rows['AURC (normalised logits), ‰'][1] == '–'
  (run,) = read_results([folder])[0].runs
  ece = values['uncertainty']['ece']
  np.testing.assert_allclose(run.card['ece'], ece, 1e-6)
  accuracy = table_at(report(folder), 'By class, mean over the seeds; of')
  expected = sorted(values['class_accuracy'])
  assert [row[1] for row in accuracy.values()][1:] == [
    f'{100 * share:.1f}' for share in expected
  ]


@pytest.fixture
def three(tmp_path):
  """Three seeds each of a baseline and LSR, on 60 images of 4 classes."""
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(4), 15).astype(np.int32)
  ids = np.arange(60, dtype=np.int32)
  folder, kept = write_table(tmp_path, ['baseline', 'LSR'], range(3)), {}
  for row, shrink in enumerate((1.0, 0.2)):
    for seed in range(3):
      logits = rng.standard_normal((60, 4)).astype(np.float32)
      logits[ids, labels] += 3 - 0.05 * seed
      kept[row, seed] = {
        'ids': ids,
        'labels': labels,
        'logits': logits * shrink,
      }
      run = write_run(folder / f'r{row}-seed{seed}', seed=seed)
      keep(run, kept[row, seed])
  return folder, kept


def by_hand(differences, level=0.05):
  """Mean, ends and detectable difference of fewer than ten seeds × images."""
  d = np.array(differences, np.float64)
  n, m = d.shape
  g, row, col = d.mean(), d.mean(1), d.mean(0)
  seeds = m * ((row - g) ** 2).sum() / (n - 1)
  images = n * ((col - g) ** 2).sum() / (m - 1)
  total = (d**2).sum() - m * (row**2).sum() - n * (col**2).sum() + n * m * g**2
  rest = total / ((n - 1) * (m - 1))
  error = np.sqrt(max(seeds + images - rest, seeds, images) / (n * m))
  t = stats.t.ppf(1 - level / 2, n - 1)
  least = (t + stats.t.ppf(0.8, n - 1)) * error
  return g, g - t * error, g + t * error, least


def shown(g, low, high, _, scale=1, digits=3):
  """As a cell has them."""
  g, low, high = (round(scale * x, digits) + 0.0 for x in (g, low, high))
  text = f'{g:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]'
  return text.replace('-', '−')


def judged(one):
  """By image: NLL, Brier, right or not."""
  z, labels = one['logits'].astype(np.float64), one['labels']
  p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
  hot = np.eye(z.shape[1])[labels]
  nll = -np.log((p * hot).sum(1))
  return nll, ((p - hot) ** 2).sum(1), z.argmax(1) == labels


def changes(kept, row, number):
  """A figure of `judged`, a row's less the baseline's, a line a seed."""
  pairs = (
    [judged(kept[r, seed])[number] for r in (row, 0)] for seed in (0, 1, 2)
  )
  return [own * 1.0 - other for own, other in pairs]


def test_the_table_speaks_of_seeds_and_images(three):
  """Four rows, decided on the NLL; the squared error is in its own test."""
  folder, kept = three
  table = write_table(folder, ['baseline', 'LSR', 'B', 'none'], range(3))
  declare(table, 'nll')
  rng = np.random.default_rng(7)
  for seed in range(3):
    logits = kept[0, seed]['logits'] + 0.1 * rng.standard_normal((60, 4))
    kept[2, seed] = kept[0, seed] | {'logits': logits.astype(np.float32)}
    keep(write_run(folder / f'r2-seed{seed}', seed=seed), kept[2, seed])
  page = report(folder)
  rows, told, least = cells(page, 2), [], []
  head = rows['Method']
  assert head[3] == 'NLL (primary, 98.33 %)'  # of three rows
  assert head[1] == 'Top-1 % (secondary, 95 %)'
  assert rows['none'][3] == '– (no pair)'
  for name, row in (('LSR', 1), ('B', 2)):
    plain = [cell for cell in rows[name]]
    nll = by_hand(changes(kept, row, 0), 0.05 / 3)
    assert plain[3].startswith(shown(*nll))
    inside = nll[1] <= 0 <= nll[2]
    assert ('inside the noise' in plain[3]) == inside
    told += [] if inside else [f'{name} ({shown(*nll).split(" ")[0]}, worse)']
    least.append(nll[3])
    assert plain[4].startswith(shown(*by_hand(changes(kept, row, 1))))
    top1 = by_hand(changes(kept, row, 2))
    assert plain[1].startswith(shown(*top1, 100, 2))
    assert 'inside' not in plain[1] + plain[4]
  assert len(told) == 1
  words = 'In NLL, against baseline and beyond the noise of seeds and images'
  assert f'<p class="lead">{words}: {told[0]}.</p>' in page
  assert 'other images like these test images' in words_of(page)
  text = (
    f'{min(least):.3f} in half of the rows, {max(least):.3f} in the noisiest'
  )
  assert f'level of the claim: {text}; 10 seeds tell' in words_of(page)
  assert 'So few seeds tell almost nothing' in words_of(page)


def test_the_best_is_marked_where_it_is_told_from_each_other(three):
  """Two of the three are one and the same but for a little."""
  folder, kept = three
  table = write_table(folder, ['baseline', 'LSR', 'B', 'none'], range(3))
  declare(table, 'nll')
  for seed in range(3):
    one = kept[0, seed] | {'logits': kept[0, seed]['logits'] * 1.001}
    keep(write_run(folder / f'r2-seed{seed}', seed=seed, nll=0.6), one)
    log = folder / f'r1-seed{seed}' / 'metrics.jsonl'
    log.write_text(log.read_text().replace('"nll": 0.5', '"nll": 1.5'))
  marked = [cell.startswith('**') for cell in by_metric(folder, 'NLL')]
  nll = by_hand(np.subtract(changes(kept, 1, 0), 0), 0.05 / 2)
  assert nll[1] > 0, 'the baseline is better than LSR'
  near = [1.001 * kept[0, seed]['logits'] for seed in range(3)]
  nearly = [
    judged(kept[0, seed] | {'logits': near[seed]})[0] - judged(kept[0, seed])[0]
    for seed in range(3)
  ]
  clear = by_hand(nearly, 0.05 / 2)[1] > 0
  assert marked == [clear, False, False, False]
  # Without the near one it is told; in accuracy they are as good as another.
  write_table(folder, ['baseline', 'LSR'], range(3))
  assert by_metric(folder, 'NLL') == [
    '**0.500** (alike in these digits)',
    '1.500 (alike in these digits)',
  ]
  assert not any('**' in cell for cell in by_metric(folder, 'Top-1 %'))
  # Nor with one seed, however far apart.
  write_table(folder, ['baseline', 'LSR'], (0,))
  assert not any('**' in cell for cell in by_metric(folder, 'NLL'))


def by_metric(folder, label):
  """The cells of a metric in the table of means."""
  rows = cells(report(folder), 1)
  place = rows.pop('Method').index(label)
  return [row[place] for row in rows.values()]


def test_ece_is_decided_on_the_squared_error(three):
  folder, kept = three
  declare(folder, 'ece')
  page = report(folder)
  rows, means = cells(page, 2), []
  assert rows['Method'][5] == 'Squared cal. error (primary, 95 %)'
  for row in (1, 0):
    for seed in range(3):
      z = kept[row, seed]['logits'].astype(np.float64)
      p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
      d = (z.argmax(1) == kept[row, seed]['labels']) - p.max(1)
      d = d[np.argsort(p.max(1))].reshape(15, 4)  # no two are equal
      pairs = d[:, :, None] * d[:, None] * (1 - np.eye(4))
      means.append(pairs.sum((1, 2)).mean() / 12)
  change = 1e4 * (np.mean(means[:3]) - np.mean(means[3:]))
  text = f'{change:+.2f}'.replace('-', '−')
  assert rows['LSR'][5].startswith(f'{text} ')
  (lead,) = re.findall('<p class="lead">(In .*)</p>', page)
  assert lead.startswith('In Squared cal. error')
  noise = 'inside the noise' in rows['LSR'][5]
  assert noise == ('no method can be told from baseline' in lead)
  assert noise or lead.endswith(f'LSR ({text}, worse).')
  # Without predictions it is ECE, over the seeds, which claims nothing.
  for path in folder.glob('r*/predictions'):
    shutil.rmtree(path)
  page = report(folder)
  assert cells(page, 2)['Method'][5] == 'ECE % (primary, 95 %)'
  assert cells(page, 2)['LSR'][5].endswith('(seeds only)')


@pytest.mark.parametrize('damage', ['lost', 'turned', 'other'])
def test_pairs_that_did_not_see_the_same_images_speak_of_seeds(three, damage):
  folder, kept = three
  runs = [folder / f'r1-seed{seed}' for seed in range(3)]
  if damage == 'lost':
    shutil.rmtree(runs[1] / 'predictions')
  elif damage == 'turned':  # the same labels
    order = np.arange(60).reshape(4, 15)[:, ::-1].ravel()
    keep(runs[1], {name: a[order] for name, a in kept[1, 1].items()})
  else:  # each pair its own images
    for row in (0, 1):
      one = kept[row, 2] | {'ids': kept[row, 2]['ids'] + 1}
      keep(folder / f'r{row}-seed2', one)
  rows = cells(report(folder), 2)
  assert rows['LSR'][0] == '3'
  assert all(rows['LSR'][i].endswith('(seeds only)') for i in (1, 2, 3, 4))
  assert 'Nothing is claimed against baseline' in report(folder)


def test_predictions_are_read_once(three, monkeypatch):
  folder, _ = three
  read, seen = predictions.read, []

  def count(place, split, step):
    seen.append((place, split))
    return read(place, split, step)

  monkeypatch.setattr(predictions, 'read', count)
  report(folder)
  assert len(seen) == len({*seen}) == 2 * 6


def declare(folder, primary):
  """Names the metric that a table is decided on."""
  path = folder / 'table.json'
  table = json.loads(path.read_text()) | {'primary': primary}
  path.write_text(json.dumps(table))


def test_differences_are_scipy_s_of_so_many_comparisons(three):
  folder, kept = three
  card = card_of(report(folder), 'LSR')
  assert 'No validation split, so no temperature is fitted' in card
  assert 'Calibrated' not in card
  rows = table_at(report(folder), 'over the seeds, and differences (9 comp')

  def risk(one):
    z = one['logits'].astype(np.float64)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    wrong = (z.argmax(1) != one['labels'])[np.argsort(-p.max(1))]
    return (np.cumsum(wrong) / np.arange(1, 61)).mean()

  base, own = ([risk(kept[row, seed]) for seed in range(3)] for row in (0, 1))
  level = 1 - 0.05 / 9
  low, high = stats.ttest_rel(own, base).confidence_interval(level)
  mean = np.mean(np.subtract(own, base))
  expected = f'{1000 * mean:+.2f} [{1000 * low:+.2f}, {1000 * high:+.2f}]'
  found = rows['AURC, ‰']
  assert found[0] == (
    f'{1000 * np.mean(own):.2f} ± {1000 * np.std(own, ddof=1):.2f}'
  )
  assert found[1].startswith(expected.replace('-', '−'))
  for name in ('AURC, ‰', 'AUGRC, ‰', 'ECE (equal mass), %'):
    assert rows[name][1].endswith('(seeds only)')
  nll = by_hand(changes(kept, 1, 0), 0.05 / 9)
  assert rows['NLL'][1] == shown(*nll)
  brier = by_hand(changes(kept, 1, 1), 0.05 / 9)
  assert rows['Brier'][1].startswith(shown(*brier))
  # They are not corrected over the methods, so nothing is claimed of them.
  assert 'utside the noise' not in card


def test_classes_are_counted_one_by_one(three):
  folder, kept = three
  rows = table_at(report(folder), 'By class, mean over the seeds, in points')
  changes = []
  for k in range(4):
    gave, took, right = np.zeros((3, 3))
    table = np.zeros((3, 15))
    for seed in range(3):
      base, own = (
        kept[row, seed]['logits'].argmax(1) == kept[row, seed]['labels']
        for row in (0, 1)
      )
      mine = kept[0, seed]['labels'] == k
      gave[seed] = (own & ~base)[mine].mean()
      table[seed] = own[mine] * 1.0 - base[mine]
      took[seed] = (base & ~own)[mine].mean()
      right[seed] = own[mine].mean()
    shares = (100 * x.mean() for x in (right, gave, took))
    assert rows[f'c{k}'][:4] == ['15', *(f'{share:.1f}' for share in shares)]
    text = rows[f'c{k}'][4]
    assert text.startswith(shown(*by_hand(table, 0.05 / 4), 100, 1))
    changes.append((gave - took).mean())
  order = np.array([int(name[1:]) for name in [*rows][1:]])
  assert (np.diff(np.array(changes)[order]) >= 0).all()


@pytest.mark.ci
def test_a_run_without_predictions_is_named_and_its_log_still_counts(three):
  folder, _ = three
  before = {
    row: [cell.replace('**', '') for cell in values]  # none is told any more
    for row, values in cells(report(folder), 1).items()
  }
  for seed in (0, 2):
    for file in (folder / f'r1-seed{seed}' / 'predictions').glob('*'):
      file.unlink()
    (folder / f'r1-seed{seed}' / 'predictions').rmdir()
  page = report(folder)
  assert cells(page, 1) == before
  assert 'Not measured' in words_of(page)
  assert (
    words_of(page)
    .split('Not measured')[1]
    .split('\n')[0]
    .endswith(': LSR (2 of 3 seeds).')
  )
  card = card_of(page, 'LSR')
  assert 'one pair: no interval' in card
  for path in folder.glob('*/predictions/*'):
    path.unlink()
  for path in folder.glob('*/predictions'):
    path.rmdir()
  page = report(folder)
  assert cells(page, 1) == before
  assert '<h3' not in page
  assert 'baseline (3 of 3 seeds), LSR (3 of 3 seeds)' in words_of(page)
  assert page.count('class="plot"') == 2


def test_runs_on_other_images_are_no_pair(three):
  folder, kept = three
  for seed in range(3):
    turned = {name: array[::-1] for name, array in kept[1, seed].items()}
    keep(folder / f'r1-seed{seed}', turned)
  card = card_of(report(folder), 'LSR')
  assert 'Difference' not in card
  assert 'Gave' not in card
  assert 'Outside the noise' not in card


def test_above_a_thousand_classes_there_are_no_normalised_logits(tmp_path):
  rng = np.random.default_rng(1)
  labels = rng.integers(0, 1001, 30).astype(np.int32)
  ids = np.arange(30, dtype=np.int32)
  logits = rng.standard_normal((30, 1001)).astype(np.float32)
  logits[ids[:15], labels[:15]] += 12
  many = {'ids': ids, 'labels': labels, 'logits': logits}
  folder = write_table(tmp_path, ['baseline'], (0,))
  keep(write_run(folder / 'r0-seed0'), many, many, 2.0)
  page = report(folder)
  rows = table_at(page, 'Mean ± standard deviation over the seeds.')
  assert rows['AURC (normalised logits), ‰'] == ['–', '–']
  z = logits.astype(np.float64) / 2
  p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
  expected = -np.log(p[ids, labels]).mean()
  assert rows['NLL'] == ['0.500', f'{expected:.3f}']
  names = [*table_at(page, 'By class, mean over the seeds; of more')][1:]
  seen = [f'c{k}' for k in range(1001) if k in labels]
  wrong = [f'c{k}' for k in sorted({*labels[15:]} - {*labels[:15]})]
  assert len(names) == 10
  assert {*names} <= {*seen}
  assert {*names[:5]} <= {*wrong}


def test_scores_alone_tell_differences_too(tmp_path):
  """Above a thousand classes, where top-5 knows no image."""
  rng = np.random.default_rng(2)
  labels = rng.integers(0, 1001, 30).astype(np.int32)
  ids = np.arange(30, dtype=np.int32)
  folder, kept = write_table(tmp_path, ['baseline', 'LSR'], range(3)), {}
  for row, lift in enumerate((4.0, 8.0)):
    for seed in range(3):
      logits = rng.standard_normal((30, 1001)).astype(np.float32)
      logits[ids, labels] += lift
      one = {'ids': ids, 'labels': labels, 'logits': logits}
      kept[row, seed] = one
      keep(write_run(folder / f'r{row}-seed{seed}', seed=seed), one)
  rows = cells(report(folder), 2)
  plain = [cell for cell in rows['LSR']]
  assert plain[1].startswith(shown(*by_hand(changes(kept, 1, 2)), 100, 2))
  assert plain[3] == shown(*by_hand(changes(kept, 1, 0)))
  assert plain[2].endswith('(seeds only)')
  assert 'seeds only' not in plain[1] + plain[3] + plain[4] + plain[5]


def test_the_first_five_rank_as_the_log_does(tmp_path):
  rng = np.random.default_rng(3)
  logits = rng.integers(0, 4, (200, 9)).astype(np.float32)  # many are equal
  logits[:5, 3] = -np.inf
  labels = rng.integers(0, 9, 200).astype(np.int32)
  one = {'ids': np.arange(200, dtype=np.int32), 'labels': labels}
  folder = write_table(tmp_path, ['baseline'], (0,))
  keep(write_run(folder / 'r0-seed0'), one | {'logits': logits})
  (run,) = read_results([folder])[0].runs
  order = np.argsort(-logits, 1, kind='stable')[:, :5]
  expected = (order == labels[:, None]).any(1)
  np.testing.assert_array_equal(run.card['top5_by_image'], expected)


def test_the_figure_shows_counts_and_errors(three, monkeypatch):
  folder, kept = three
  drawn = []
  monkeypatch.setattr(
    pages, 'picture', lambda figure, name: drawn.append(figure)
  )
  monkeypatch.setattr(cards.blocks, 'FigureBlock', lambda *parts: parts)
  [*cards.of_results(read_results([folder])[0], 3)]
  top, risk, below, _ = drawn[0].axes
  rows = [kept[0, seed] for seed in range(3)]
  z = np.concatenate([one['logits'] for one in rows]).astype(np.float64)
  labels = np.concatenate([one['labels'] for one in rows])
  p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
  right, confidence = z.argmax(1) == labels, p.max(1)
  count, edges = np.histogram(confidence, 15, (0, 1))
  hits, _ = np.histogram(confidence[right], edges)
  sums, _ = np.histogram(confidence, edges, weights=confidence)
  seen = count > 0
  everything, wrong = below.containers
  np.testing.assert_allclose(everything.datavalues, count[seen])
  np.testing.assert_allclose(wrong.datavalues, (count - hits)[seen])
  assert [t.get_text() for t in below.texts] == [f'{n}' for n in count[seen]]
  points = top.collections[-1].get_offsets()
  expected = 100 * np.stack([sums, hits])[:, seen] / count[seen]
  np.testing.assert_allclose(points.T, expected, 1e-6)
  # Each line ends at full coverage, where the risk is the share of errors.
  for line in risk.lines:
    x, y = line.get_data()
    np.testing.assert_allclose(x[-1], 100)
    np.testing.assert_allclose(y[-1], 100 * (~right).mean())


def test_damaged_predictions_are_three_lines(three, capsys):
  folder, _ = three
  path = folder / 'r0-seed1' / 'predictions' / 'test.npz'
  path.write_bytes(path.read_bytes()[:-40])
  assert main([str(folder)]) == 2
  error = capsys.readouterr().err
  assert 'predictions' in error
  assert len(error.strip().split('\n')) <= 3
