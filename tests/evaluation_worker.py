"""Evaluates a linear model on 1, 7, 97 and 360 digits with several batches."""

import json
import sys

import jax
import numpy as np
from sklearn.datasets import load_digits

from tsla.config.forms import default_config
from tsla.evaluation import metrics
from tsla.training import parallel
from tsla.training.build import view_of
from tsla.training.step import Examples, TrainState, make_evaluation


def logits_of(variables, images, train):
  assert not train
  return images.reshape(len(images), -1) @ variables['params']


def main():
  mode = sys.argv[1]
  digits = load_digits()
  images = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
  labels = digits.target.astype(np.int32)
  weights = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
  devices = parallel.choose(mode, batch_size=8)
  state = devices.replicate(
    TrainState(step=np.int32(0), params=weights, batch_stats={}, opt_state=())
  )
  evaluate = devices.map(
    make_evaluation(
      *(logits_of, view_of(default_config())), axis_name=devices.axis_name
    )
  )
  rows = []
  for number in (1, 7, 97, 360):
    test = Examples(images[-number:], labels[-number:])
    pixels = (
      test.images.reshape(number, -1).astype(np.float64) / 255 - 0.5
    ) * 2
    for batch_size in (8, 64, 504):
      sums = evaluate(
        state, devices.replicate(test), devices.slots(batch_size), batch_size
      )
      rows.append(
        {
          'got': metrics.finalize(sums),
          'logits': (pixels @ weights).tolist(),
          'labels': test.labels.tolist(),
        }
      )
  print(json.dumps({'devices': len(jax.devices()), 'rows': rows}))


if __name__ == '__main__':
  sys.exit(main())
