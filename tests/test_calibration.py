"""Scores, calibration and temperature, against other libraries and formulas."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from support import RECORDED, recorded

from tsla.evaluation import metrics
from tsla.evaluation.calibration import (
  Scores,
  calibration,
  fit_temperature,
  scores,
)


def nll(logits, labels, temperature=1.0):
  """Plain, in extended precision."""
  z = np.asarray(logits, np.longdouble) / temperature
  z = z - z.max(1, keepdims=True)
  own = z[np.arange(len(z)), labels]
  return float((np.log(np.exp(z).sum(1)) - own).mean())


def drawn(confidence, correct):
  """Scores of given confidences."""
  confidence = np.asarray(confidence, np.float64)
  nothing = np.zeros(len(confidence))
  return Scores(nothing, nothing, np.asarray(correct, bool), confidence)


@pytest.mark.parametrize('name', RECORDED)
def test_scikit_learn_s_values(name):
  logits, labels, expected = recorded(name)
  found = scores(logits, labels)
  for got, key in (
    (found.nll, 'nll'),
    (found.brier, 'brier'),
    (found.correct, 'accuracy'),
  ):
    np.testing.assert_allclose(got.mean(), expected[key], 1e-12, err_msg=key)
  count, hits, confidence = calibration(found)['bins']
  seen = count > 0
  np.testing.assert_allclose(
    hits[seen] / count[seen], expected['bin_accuracy'], 1e-12
  )
  np.testing.assert_allclose(
    confidence[seen] / count[seen], expected['bin_confidence'], 1e-12
  )
  got = fit_temperature(logits, labels)
  np.testing.assert_allclose(got, expected['temperature'], 1e-6)


@pytest.mark.parametrize('name', RECORDED)
def test_torch_uncertainty_s_values(name):
  logits, labels, values = recorded(name)
  expected = values['uncertainty']
  found = scores(logits, labels)
  errors = calibration(found)
  np.testing.assert_allclose(found.brier.mean(), expected['brier'], 1e-6)
  np.testing.assert_allclose(errors['ece'], expected['ece'], 1e-6)
  np.testing.assert_allclose(
    errors['ece_equal_mass'], expected['ece_equal_mass'], 1e-10
  )
  if name == 'tied':  # one confidence a bin: the same estimator
    np.testing.assert_allclose(
      errors['squared_error'], expected['debiased'] ** 2, 1e-10
    )


@pytest.mark.parametrize('name', RECORDED)
def test_the_metrics_of_training_are_the_same(name):
  logits, labels, _ = recorded(name)
  sums = metrics.batch_sums(
    logits.astype(np.float32), labels, np.ones(len(labels), bool)
  )
  found = scores(logits, labels)
  got = metrics.finalize(sums)
  np.testing.assert_allclose(calibration(found)['ece'], got['ece'], 1e-5)
  np.testing.assert_allclose(found.nll.mean(), got['nll'], 1e-5)
  np.testing.assert_allclose(found.brier.mean(), got['brier'], 1e-5)
  assert found.correct.mean() == pytest.approx(got['top1'])


def test_the_squared_error_is_the_mean_over_pairs():
  rng = np.random.default_rng(1)
  confidence, correct = rng.uniform(0.3, 1, 100), rng.integers(0, 2, 100)
  order = np.argsort(confidence)
  total = 0.0
  for places in np.array_split(order, 15):
    d = correct[places] - confidence[places]
    pairs = [
      d[i] * d[j] for i in range(len(d)) for j in range(len(d)) if i != j
    ]
    total += np.mean(pairs) * len(places) / 100
  found = calibration(drawn(confidence, correct))
  assert found['squared_error'] == pytest.approx(total, rel=1e-12)


def test_of_calibrated_images_the_squared_error_is_0_and_the_ece_4_points():
  rng = np.random.default_rng(2)
  found = []
  for _ in range(2000):
    confidence = rng.uniform(0.4, 1, 360)
    errors = calibration(drawn(confidence, rng.random(360) < confidence))
    found.append((errors['squared_error'], errors['ece']))
  squared, ece = np.array(found).T
  assert abs(squared.mean()) < 4 * squared.std() / np.sqrt(2000)
  assert 0.035 < ece.mean() < 0.055


def test_the_squared_error_is_unbiased_where_confidences_in_a_bin_differ():
  # `a (1 - a) / (n - 1)` of equal confidences would put it at -1 / 48.
  rng = np.random.default_rng(7)
  confidence = rng.uniform(0, 1, (5000, 4))
  correct = rng.random((5000, 4)) < confidence
  found = [
    calibration(drawn(*pair), 1)['squared_error']
    for pair in zip(confidence, correct, strict=True)
  ]
  assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(5000) < 1 / 96


def test_equal_confidences_share_a_bin_in_any_order():
  confidence = np.repeat([0.5, 0.7, 0.9], [10, 3, 7])
  correct = np.arange(20) % 3 == 0
  expected = calibration(drawn(confidence, correct), 4)
  # Bins begin at the images 0, 5, 10 and 15: 0.7 and 0.9 begin at 10 and 13.
  late = confidence > 0.5
  gap = abs(correct[~late].sum() - 5) + abs((correct - confidence)[late].sum())
  assert expected['ece_equal_mass'] == pytest.approx(gap / 20)
  for seed in range(5):
    order = np.random.default_rng(seed).permutation(20)
    got = calibration(drawn(confidence[order], correct[order]), 4)
    for name in ('ece', 'ece_equal_mass', 'squared_error'):
      assert got[name] == pytest.approx(expected[name], rel=1e-12)


def test_a_confidence_on_an_edge_is_in_the_bin_below():
  count, _, _ = calibration(drawn([1 / 3, 0.4, 1.0], [True] * 3))['bins']
  np.testing.assert_array_equal(np.flatnonzero(count), [4, 5, 14])


def test_fewer_images_than_bins():
  found = calibration(drawn([0.4, 0.6], [True, True]))
  assert found['ece'] == found['ece_equal_mass'] == pytest.approx(0.5)
  assert np.isnan(found['squared_error'])
  assert calibration(drawn([1.0, 1.0], [True, True]))['squared_error'] == 0
  np.testing.assert_array_equal(found['bins'].sum(1), [2, 2, 1])


def test_a_single_image_in_a_bin_is_left_out_of_the_squared_error():
  # Five images, two bins of three and two; then two bins of two and one.
  found = calibration(drawn([0.5, 0.5, 0.9], [False, False, True]), 2)
  assert found['squared_error'] == pytest.approx(0.25)


def test_impossible_classes_and_huge_logits():
  found = scores(
    [[-np.inf, 1e30, 0], [-np.inf, 0, 0], [0, -np.inf, 5]], [1, 2, 1]
  )
  np.testing.assert_allclose(found.nll, [0, np.log(2), np.inf])
  np.testing.assert_allclose(found.brier[:2], [0, 0.5])
  np.testing.assert_array_equal(found.correct, [True, False, False])
  np.testing.assert_allclose(found.confidence[:2], [1, 0.5])


@pytest.mark.parametrize(
  ('logits', 'labels'),
  [
    ([[0.0, np.nan]], [0]),
    ([[0.0, np.inf]], [0]),
    ([[-np.inf, -np.inf]], [0]),
    ([[0.0, 1.0]], [2]),
    ([[0.0, 1.0]], [-1]),
    ([[0.0, 1.0]], [0.5]),
    (np.zeros((0, 3)), np.zeros(0, int)),
  ],
)
@pytest.mark.parametrize('function', [scores, fit_temperature])
def test_what_cannot_be_scored_is_refused(function, logits, labels):
  with pytest.raises(ValueError, match='a label that is no class'):
    function(logits, labels)


def test_the_temperature_changes_no_prediction():
  logits, labels, _ = recorded('seven')
  tied = np.round(logits)
  expected = scores(tied, labels).correct
  for temperature in (1e-3, 0.3, 1e8):
    found = scores(tied, labels, temperature)
    np.testing.assert_array_equal(found.correct, expected)
    assert found.nll.mean() == pytest.approx(nll(tied, labels, temperature))
  assert scores([[0.0, 1e-300]], [1], 1e30).correct.all()


@pytest.mark.parametrize('scale', [1e-30, 1.0, 1e30])
@pytest.mark.parametrize('classes', [2, 3, 50])
def test_the_temperature_minimises_the_nll_at_any_scale(classes, scale):
  rng = np.random.default_rng(classes)
  logits = 3 * rng.standard_normal((300, classes))
  labels = logits.argmax(1)
  labels[::4] = rng.integers(0, classes, 75)
  expected = minimize_scalar(
    lambda log_t: nll(logits, labels, np.exp(log_t)),
    bounds=(-5, 5),
    method='bounded',
    options={'xatol': 1e-9},
  )
  got = fit_temperature(logits * scale + 7 * scale, labels)
  np.testing.assert_allclose(got, np.exp(expected.x) * scale, 1e-6)


def test_the_slope_of_the_nll_is_0_at_the_temperature():
  logits, labels, _ = recorded('two')
  t = fit_temperature(logits, labels)
  slope = (nll(logits, labels, t * 1.001) - nll(logits, labels, t / 1.001)) / 2
  assert abs(slope) < 1e-9
  assert nll(logits, labels, t) < nll(logits, labels, t * 1.01)
  assert nll(logits, labels, t) < nll(logits, labels, t / 1.01)


def test_where_all_labels_are_right_platt_s_targets_are_fitted():
  rng = np.random.default_rng(3)
  for classes in (2, 5):
    logits = rng.standard_normal((40, classes))
    labels = logits.argmax(1)
    targets = np.full(logits.shape, 1 / 42 / (classes - 1))
    targets[np.arange(40), labels] = 41 / 42

    def loss(log_t, logits=logits, targets=targets):
      z = logits / np.exp(log_t)
      return (np.log(np.exp(z).sum(1)) - (targets * z).sum(1)).mean()

    expected = minimize_scalar(
      loss, bounds=(-5, 3), method='bounded', options={'xatol': 1e-9}
    )
    got = fit_temperature(logits, labels)
    np.testing.assert_allclose(got, np.exp(expected.x), 1e-6)
    assert nll(logits, labels, got) < nll(logits, labels)


def test_smoothed_and_plain_networks_without_an_error_get_one_calibration():
  logits = np.random.default_rng(4).standard_normal((30, 4))
  labels = logits.argmax(1)
  plain = scores(logits, labels, fit_temperature(logits, labels))
  sharp = scores(9 * logits, labels, fit_temperature(9 * logits, labels))
  np.testing.assert_allclose(plain.nll, sharp.nll, 1e-9)


def test_where_all_are_wrong_the_predictions_become_uniform():
  logits = np.random.default_rng(5).standard_normal((30, 4))
  labels = logits.argmin(1)
  t = fit_temperature(logits, labels)
  assert np.isfinite(t)
  assert nll(logits, labels, t) == pytest.approx(np.log(4), rel=1e-5)
  # The second of the classes beats the mean: then a finite T is best.
  labels = logits.argsort(1)[:, 2]
  t = fit_temperature(logits, labels)
  assert 0 < t < 100
  assert nll(logits, labels, t) < min(np.log(4), nll(logits, labels))


def test_images_that_no_temperature_can_help_do_not_move_it():
  logits, labels, _ = recorded('seven')
  expected = fit_temperature(logits, labels)
  lost = np.vstack([logits, [[-np.inf, 1, 2, 3, 4, 5, 6]]])
  got = fit_temperature(lost, np.append(labels, 0))
  assert got == pytest.approx(expected, rel=1e-12)
  impossible = np.hstack([logits, np.full((len(logits), 1), -np.inf)])
  got = fit_temperature(impossible, labels)
  assert got == pytest.approx(expected, rel=1e-9)
  assert fit_temperature([[-np.inf, 0.0]], [0]) == 1
  assert fit_temperature([[2.0, 2.0]], [1]) == 1
  assert fit_temperature([[3.0, -np.inf]], [0]) == 1


def test_very_unequal_margins_end():
  logits = np.array([[0, 1e-12], [0, 1e30], [0, 1e-12], [0, 1e-12]])
  t = fit_temperature(logits, [1, 1, 1, 0])
  assert 0 < t < 1e-11
