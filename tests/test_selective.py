"""Selective prediction, classes and the card, against brute force."""

import itertools

import numpy as np
import pytest
from support import RECORDED, recorded

from tsla.evaluation.calibration import scores
from tsla.evaluation.card import figures, normalized
from tsla.evaluation.per_class import class_accuracy, class_changes
from tsla.evaluation.selective import normalized_confidence, selective_risk


def plain(confidence, correct):
  """Curve and areas, image by image: the mean over all orders of ties."""
  confidence, n = np.asarray(confidence), len(correct)
  curves = []
  groups = [
    np.flatnonzero(confidence == value)
    for value in sorted(set(confidence), reverse=True)
  ]
  for orders in itertools.product(*map(itertools.permutations, groups)):
    wrong = [not correct[i] for order in orders for i in order]
    curves.append([sum(wrong[:k]) for k in range(n + 1)])
  found = np.mean(curves, 0)
  aurc = np.mean([found[k] / k for k in range(1, n + 1)])
  augrc = sum((found[k] + found[k + 1]) / 2 for k in range(n)) / n**2
  return found[1:] / np.arange(1, n + 1), aurc, augrc


def left_out(confidence, correct, which):
  """Standard error by leaving out each image in turn."""
  n = len(correct)
  values = [
    plain(np.delete(confidence, i), np.delete(correct, i))[which]
    for i in range(n)
  ]
  return np.sqrt((n - 1) / n * ((values - np.mean(values)) ** 2).sum())


CASES = [
  ([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 1, 0]),
  ([0.9, 0.9, 0.7, 0.7, 0.7, 0.2], [1, 0, 1, 0, 0, 1]),
  ([0.5] * 6, [1, 0, 1, 1, 0, 1]),
  ([0.1, 0.2, 0.3], [0, 0, 0]),
  ([0.1, 0.2, 0.2], [1, 1, 1]),
  ([0.3, 0.9], [0, 1]),
  ([0.4, 0.4], [0, 1]),
  ([0.9, 0.2, 0.9, 0.2, 0.5, 0.2], [0, 0, 1, 1, 0, 1]),
]


@pytest.mark.parametrize(('confidence', 'correct'), CASES)
def test_curve_areas_and_errors_are_those_of_all_orders(confidence, correct):
  confidence, correct = np.array(confidence), np.array(correct, bool)
  risk, aurc, augrc = plain(confidence, correct)
  found = selective_risk(confidence, correct)
  np.testing.assert_allclose(found['risk'], risk, 1e-12)
  n = len(correct)
  np.testing.assert_allclose(found['coverage'], np.arange(1, n + 1) / n)
  np.testing.assert_allclose(
    [found['aurc'], found['augrc']], [aurc, augrc], 1e-12
  )
  for which, name in enumerate(('aurc_error', 'augrc_error'), 1):
    expected = left_out(confidence, correct, which)
    np.testing.assert_allclose(found[name], expected, 1e-9, 1e-12)


def test_the_closed_form_of_the_jackknife_on_many_images():
  rng = np.random.default_rng(0)
  confidence = rng.integers(0, 60, 150) / 60
  correct = rng.random(150) < confidence
  found = selective_risk(confidence, correct)
  for name in ('aurc', 'augrc'):
    values = np.array(
      [
        selective_risk(np.delete(confidence, i), np.delete(correct, i))[name]
        for i in range(150)
      ]
    )
    expected = np.sqrt(149 * values.var())
    np.testing.assert_allclose(found[f'{name}_error'], expected, 1e-9)


def test_the_error_is_the_spread_over_test_sets():
  rng = np.random.default_rng(1)
  found = []
  for _ in range(1000):
    confidence = rng.uniform(0.3, 1, 300)
    right = rng.random(300) < confidence
    risk = selective_risk(confidence, right)
    found.append(
      [risk[x] for x in ('aurc', 'aurc_error', 'augrc', 'augrc_error')]
    )
  aurc, aurc_error, augrc, augrc_error = np.array(found).T
  np.testing.assert_allclose(aurc_error.mean(), aurc.std(), 0.1)
  np.testing.assert_allclose(augrc_error.mean(), augrc.std(), 0.1)


@pytest.mark.parametrize('name', RECORDED)
def test_augrc_is_that_of_scikit_learn_s_auroc(name):
  logits, labels, values = recorded(name)
  found = scores(logits, labels)
  a = values['accuracy']
  expected = (1 - values['auroc']) * a * (1 - a) + (1 - a) ** 2 / 2
  got = selective_risk(found.confidence, found.correct)['augrc']
  np.testing.assert_allclose(got, expected, 1e-12)


@pytest.mark.parametrize('name', ['seven', 'two'])
def test_areas_of_torch_uncertainty_are_of_this_curve(name):
  # It leaves out the coverage below 1/N, where the curve has no point, and
  # breaks ties at random.
  logits, labels, values = recorded(name)
  own = scores(logits, labels)
  found = selective_risk(own.confidence, own.correct)
  coverage, risk = found['coverage'], found['risk']
  scale = 1 - 1 / len(labels)
  expected = values['uncertainty']
  aurc = np.trapezoid(risk, coverage) / scale
  augrc = np.trapezoid(risk * coverage, coverage) / scale
  np.testing.assert_allclose(
    [aurc, augrc], [expected['aurc'], expected['augrc']], 1e-5
  )


def test_one_image():
  found = selective_risk([0.5], [False])
  assert (found['aurc'], found['augrc']) == (1, 0.5)
  assert np.isnan(found['aurc_error'])
  assert np.isnan(found['augrc_error'])


@pytest.mark.parametrize('norm', [1, 2, 3, 8])
def test_normalized_logits(norm):
  logits, _, _ = recorded('seven')
  expected = []
  for row in logits:
    c = row - row.mean()
    expected.append(c.max() / np.linalg.norm(c, norm))
  got = normalized_confidence(logits, norm)
  np.testing.assert_allclose(got, expected, 0, 1e-12)
  for other in (logits * 1e30 + 1e30, np.hstack([logits, [[-np.inf]] * 200])):
    np.testing.assert_allclose(
      normalized_confidence(other, norm), expected, 1e-9
    )
  np.testing.assert_array_equal(normalized_confidence([[3.0, 3.0]], norm), [0])


@pytest.mark.parametrize('norm', [1, 2, 8])
def test_equal_normalized_confidences_are_tied_whatever_the_rounding(norm):
  logits, labels, _ = recorded('two')
  rng = np.random.default_rng(1)
  if norm == 1:  # one logit above the mean: 1/2, in any order of the classes
    logits = -rng.random((2000, 10))
    logits[np.arange(2000), rng.integers(10, size=2000)] = 20
    labels = np.zeros(2000, int)
  found = normalized_confidence(logits, norm)
  np.testing.assert_allclose(found, 0.5 ** (1 / norm), 1e-11)
  assert len(np.unique(found)) == 1
  correct = rng.random(len(labels)) < 0.7
  # Any order of equally sure images: the risk is the error at any coverage.
  risk = selective_risk(found, correct)['aurc']
  np.testing.assert_allclose(risk, 1 - correct.mean(), 1e-12)


def test_normalized_logits_recover_the_order_that_smoothing_lost():
  # The greatest logit is held down where the network is right.
  rng = np.random.default_rng(2)
  correct = rng.random(2000) < 0.8
  noise = rng.standard_normal((2000, 10)) * np.where(correct, 0.1, 1)[:, None]
  noise[:, 0] = noise.max(1) + np.where(correct, 2, 2.5)
  msp = selective_risk(scores(noise, np.zeros(2000, int)).confidence, correct)
  other = selective_risk(normalized_confidence(noise, 2), correct)
  assert other['aurc'] < msp['aurc'] / 2


def test_accuracy_per_class_is_scikit_learn_s():
  for name in RECORDED:
    logits, labels, values = recorded(name)
    classes = logits.shape[1]
    got = class_accuracy(scores(logits, labels).correct, labels, classes + 1)
    np.testing.assert_allclose(got[:-1], values['class_accuracy'], 1e-12)
    assert np.isnan(got[-1])


def test_what_a_method_gave_and_took():
  rng = np.random.default_rng(3)
  labels = rng.integers(0, 3, 50)
  method, baseline = rng.random((2, 4, 50)) < 0.7
  found = class_changes(method, baseline, labels, 4)
  for k in range(3):
    own, others = method[:, labels == k], baseline[:, labels == k]
    change = own.mean(1) - others.mean(1)
    np.testing.assert_allclose(found['gave'][k], (own & ~others).mean())
    np.testing.assert_allclose(found['took'][k], (others & ~own).mean())
    part = found['change'][k]
    np.testing.assert_allclose(part.mean, change.mean(), 1e-12, 1e-15)
    np.testing.assert_allclose(found['accuracy'][k], own.mean())
    assert found['count'][k] == own.shape[1]
    assert (part.seeds, part.images) == own.shape
    # The noise of images is that of the means over seeds, less the rest's.
    table = own * 1.0 - others
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    n, m = table.shape
    error = (rest**2).sum() / ((n - 1) * (m - 1) * n * m)
    noise = table.mean(0).var(ddof=1) / m - error
    np.testing.assert_allclose(part.image_variance, max(0, noise), 1e-9, 1e-12)
    np.testing.assert_allclose(part.seed_variance, change.var(ddof=1), 1e-9)
  assert found.pop('count')[3] == 0
  assert np.isnan(found.pop('change')[3].mean)
  assert all(np.isnan(values[3]) for values in found.values())
  one = class_changes(method[:1], baseline[:1], labels, 3)
  assert not any(part.known for part in one['change'])
  assert np.isfinite([part.mean for part in one['change']]).all()


def test_the_figures_of_a_card():
  logits, labels, values = recorded('seven')
  own = scores(logits, labels)
  found = figures(own)
  recorded_as = {'nll': 'nll', 'brier': 'brier', 'top1': 'accuracy'}
  for name, other in recorded_as.items():
    np.testing.assert_allclose(found[name], values[other], 1e-12)
  np.testing.assert_allclose(found['ece'], values['uncertainty']['ece'], 1e-6)
  expected = plain_area(own.confidence, own.correct)
  np.testing.assert_allclose(found['aurc'], expected, 1e-12)


def test_the_norm_is_chosen_on_the_validation_images():
  logits, labels, _ = recorded('seven')
  held = {'logits': logits[50:], 'labels': labels[50:]}
  other = {'logits': logits[:50], 'labels': labels[:50]}

  def area(said, p):
    c = said['logits'] - said['logits'].mean(1, keepdims=True)
    confidence = c.max(1) / np.linalg.norm(c, p, axis=1)
    return plain_area(confidence, said['logits'].argmax(1) == said['labels'])

  best = min(range(1, 9), key=lambda p: area(held, p))
  assert best not in (2, min(range(1, 9), key=lambda p: area(other, p)))
  for validation, norm in ((held, best), (None, 2)):
    found = normalized(other, validation)
    assert found['norm'] == norm
    np.testing.assert_allclose(found['aurc'], area(other, norm), 1e-12)


def plain_area(confidence, correct):
  wrong = ~correct[np.argsort(-confidence)]
  return np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1))
