"""Both feeds on one device, in pmap or in jit on four: are the bits the same?

What follows is the folder, the mode, and the mode of the probe if there is one,
or crop: windows of random area, of images whose sources have other aspects.
The images are mapped from a file in the folder, and the last time the device is
so small that a call has one of the four updates of an epoch. Of several devices
it says, too, which rows of a batch are read for each.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import sys

import jax
import numpy as np
from support import small_config, write_digits_npz

from tsla.config import durations
from tsla.data import datasets
from tsla.training import parallel
from tsla.training.build import build

UPDATES = 8


def mapped(split, path):
  """The same split with its images mapped from a file, as a cache has them."""
  path.write_bytes(split.images[:].tobytes())
  images = np.memmap(path, np.uint8, 'r', shape=split.images.shape)
  aspects = np.random.default_rng(0).uniform(0.3, 3, len(images))
  more = {'images': np.asarray(images), 'aspects': aspects.astype(np.float32)}
  return dataclasses.replace(split, **more)


def digest(tree):
  leaves = jax.tree.leaves(jax.tree.map(np.asarray, tree))
  return hashlib.sha256(b''.join(x.tobytes() for x in leaves)).hexdigest()


def train(config, dataset, devices, feed):
  config.data.feed = feed
  steps = durations.resolve(config, steps_per_epoch=4)
  run = build(config, dataset, steps, devices)
  state, done, found = run.state, 0, []
  while done < UPDATES:
    length = min(run.longest, 4 - done % 4)
    state, row = run.train_chunk(state, length, done)
    found += [[float(x) for x in np.asarray(row.loss)]]
    done += length
  tests = {kind: run.evaluate[kind](state) for kind in run.evaluate}
  end = digest(state)
  sizes = [float(np.abs(leaf).sum()) for leaf in jax.tree.leaves(state)]
  probed = run.probe(state)[1].compute() if run.probe else {}
  return {
    'calls': len(found),
    'losses': [loss for row in found for loss in row],
    'probed': {n: float(x) for n, x in probed.items() if 'error' not in n},
    'tests': tests,
    'state': end,
    'sizes': sizes,
    'feed': run.feed,
  }


def main():
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  folder, mode, *probed = pathlib.Path(sys.argv[1]), *sys.argv[2:]
  config = small_config(
    write_digits_npz(folder / 'digits.npz', train=80, test=37)
  )
  config.data.validation, config.log_every_steps = 0.2, 4
  if probed == ['crop']:
    config.augment.pad, config.augment.crop_area = 0, 0.08
    probed = []
  if probed:
    config.variance.every_epochs, config.variance.num_batches = 1, 3
    config.variance.mode = probed[0]
  dataset = datasets.load_dataset(config.data)
  dataset = dataclasses.replace(
    dataset,
    **{n: mapped(s, folder / n) for n, s in dataset.splits.items()},
  )
  devices, runs = parallel.choose(mode, 16), {}
  for feed, memory in (('resident', 2**30), ('mapped', 2**30), ('auto', 1)):
    # A device of 1 byte: the feed is chosen, and a call has one update.
    os.environ['TSLA_DEVICE_MEMORY'] = str(memory)
    if (feed, probed) != ('mapped', []):
      runs[feed] = train(config, dataset, devices, feed)
  rows, asked = np.random.default_rng(0).permutation(64).reshape(2, 32), []

  def read(rows):
    asked.append(rows.tolist())
    return rows.astype(np.uint8)[..., None, None, None]

  indices, images = devices.deal(rows, read)
  result = {
    'runs': runs,
    'rows': rows.tolist(),
    'asked': [a for a in asked if np.size(a)],
    'parts': [
      np.asarray(shard.data).reshape(2, -1).tolist()
      for shard in indices.addressable_shards
    ],
    'same': bool(
      (np.asarray(images)[..., 0, 0, 0] == np.asarray(indices)).all()
    ),
  }
  print(json.dumps(result))


if __name__ == '__main__':
  sys.exit(main())
