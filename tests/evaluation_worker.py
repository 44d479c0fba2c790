"""Evaluates 1, 7, 97 and 360 digits on all devices with several batches."""

import json
import sys

import jax
import numpy as np
from sklearn.datasets import load_digits

from tsla.data.datasets import Dataset, Split
from tsla.training import config as config_lib
from tsla.training import parallel
from tsla.training.build import build


def main():
  digits = load_digits()
  images = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
  labels = digits.target.astype(np.int32)
  rows = []
  for number in (1, 7, 97, 360):
    dataset = Dataset(
      name='digits',
      train=Split(images[:64], labels[:64]),
      test=Split(images[-number:], labels[-number:]),
      class_names=tuple('0123456789'),
      fingerprint='',
    )
    for batch_size in (5, 64, 500):
      config = config_lib.default_config()
      config.batch_size = 16
      config.eval_batch_size = batch_size
      config.model.name = 'resnet8'
      config.model.width = 4
      durations = config_lib.resolve_durations(config, steps_per_epoch=4)
      mapping = parallel.choose('auto', config.batch_size)
      run = build(config, dataset, durations, mapping)
      state = jax.tree.map(np.asarray, run.state)
      pixels = (dataset.test.images / 255 - 0.5) / 0.5
      logits = state.apply_fn(
        {'params': state.params, 'batch_stats': state.batch_stats},
        pixels.astype(np.float32),
        train=False,
      )
      rows.append(
        {
          'got': run.evaluate(run.state),
          'logits': np.asarray(logits, np.float64).tolist(),
          'labels': dataset.test.labels.tolist(),
        }
      )
  print(json.dumps(rows))


if __name__ == '__main__':
  sys.exit(main())
