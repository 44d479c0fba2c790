"""Writes evaluation.json: metrics of scikit-learn and torch-uncertainty.

  pip install scikit-learn==1.9.1 torch==2.13.0 torchmetrics==1.9.0 \
    matplotlib seaborn
  pip install --no-deps torch-uncertainty==0.13.0 lightning-utilities
  python tests/golden/make_evaluation.py

Of torch-uncertainty only the modules of metrics are imported: the package as a
whole needs Lightning and torchvision. Only this script needs any of it.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import pathlib
import sys
import types

import numpy as np
import torch
from sklearn import metrics
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator

NUM_BINS = 15


def without_packages():
  """Makes the modules of metrics importable without their packages' code."""
  spec = importlib.util.find_spec('torch_uncertainty')
  name, path = 'torch_uncertainty', pathlib.Path(spec.origin).parent
  for part in (None, 'metrics', 'classification'):
    if part:
      name, path = f'{name}.{part}', path / part
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(path)]


def uncertainty(module):
  name = f'torch_uncertainty.metrics.classification.{module}'
  return importlib.import_module(name)


class Logits(ClassifierMixin, BaseEstimator):
  """A classifier whose inputs are its logits."""

  def fit(self, x, y):
    self.classes_ = np.unique(y)
    return self

  def decision_function(self, x):
    return (x[:, 1] - x[:, 0]) / 2 if x.shape[1] == 2 else x

  def predict(self, x):
    return x.argmax(1)


def sets():
  rng = np.random.default_rng(0)
  for name, count, classes in (('seven', 200, 7), ('two', 120, 2)):
    labels = rng.permutation(np.arange(count) % classes)
    logits = 2 * rng.standard_normal((count, classes))
    logits[np.arange(count), labels] += 1.5
    yield name, logits.round(4), labels
  # Fifteen confidences, five images each: each equal-mass bin has one.
  rows = rng.standard_normal((15, 3)).round(4)
  yield 'tied', np.repeat(rows, 5, 0), rng.permutation(np.arange(75) % 3)


def values(logits, labels):
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  correct, confidence = p.argmax(1) == labels, p.max(1)
  classes = np.arange(p.shape[1])
  shares, means = calibration_curve(correct, confidence, n_bins=NUM_BINS)
  calibrated = CalibratedClassifierCV(
    FrozenEstimator(Logits().fit(logits, labels)), method='temperature'
  ).fit(logits, labels)
  beta = calibrated.calibrated_classifiers_[0].calibrators[0].beta_
  found = {
    'nll': metrics.log_loss(labels, p, labels=classes),
    'brier': metrics.brier_score_loss(
      labels, p, labels=classes, scale_by_half=False
    ),
    'accuracy': metrics.accuracy_score(labels, p.argmax(1)),
    'class_accuracy': metrics.recall_score(
      labels, p.argmax(1), average=None
    ).tolist(),
    'auroc': metrics.roc_auc_score(correct, confidence),
    'bin_accuracy': shares.tolist(),
    'bin_confidence': means.tolist(),
    'temperature': 1 / float(beta),
  }
  p, labels = torch.tensor(p), torch.tensor(labels)
  confidence, correct = torch.tensor(confidence), torch.tensor(correct)
  adaptive = uncertainty('calibration.adaptive_calibration_error')
  risk = uncertainty('risk_coverage')
  multiclass = uncertainty('calibration.calibration_error')
  aurc, augrc = risk.AURC(), risk.AUGRC()
  brier = uncertainty('brier_score').BrierScore(num_classes=p.shape[1])
  ece = multiclass.MulticlassCalibrationError(p.shape[1], n_bins=NUM_BINS)
  for metric in (aurc, augrc, ece):
    metric.update(p, labels)
  brier.update(p, labels)

  def error(norm):
    return float(
      adaptive._ace_compute(
        confidence, correct.double(), NUM_BINS, norm, debias=norm == 'l2'
      )
    )

  return found | {
    'uncertainty': {
      'brier': float(brier.compute()),
      'ece': float(ece.compute()),
      'ece_equal_mass': error('l1'),
      'debiased': error('l2'),
      'aurc': float(aurc.compute()),
      'augrc': float(augrc.compute()),
    }
  }


def main():
  without_packages()
  names = 'numpy', 'scikit-learn', 'torch', 'torchmetrics', 'torch-uncertainty'
  record = {
    'versions': {name: importlib.metadata.version(name) for name in names},
    'sets': {
      name: {
        'logits': logits.tolist(),
        'labels': labels.tolist(),
        'values': values(logits, labels),
      }
      for name, logits, labels in sets()
    },
  }
  path = pathlib.Path(__file__).with_name('evaluation.json')
  path.write_text(json.dumps(record) + '\n')


if __name__ == '__main__':
  main()
