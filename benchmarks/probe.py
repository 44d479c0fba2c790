"""What a probe costs in ratio to an epoch, and how far the last layer is off.

`exact` and `last_layer` are probes of `--batches` mini-batches in ratio to an
`epoch` of training; the three take turns. Then the two modes are compared on
one state before each of `--epochs`. On random data, as here by default, that
says little; `--npz` is a file with train_images and train_labels of the size's
shape.

  python benchmarks/probe.py --size=digits --npz=digits.npz
"""

import argparse
import copy
from typing import Any

import jax
import numpy as np

import common
import ours
from tsla.smoothing.method import UNIFORM
from tsla.smoothing.methods import METHODS
from tsla.smoothing.rules import RULES
from tsla.training import probe, step

_COMPARED = ('sigma2', 'delta', 'theta_star', 'mse_ratio', 'cosine')


def path_of(args: argparse.Namespace) -> ours.Ours:
  """The training path, on the file's data if there is one."""
  if not args.npz:
    return ours.Ours(args, probe_every=1)
  with np.load(args.npz) as file:
    images, labels = file['train_images'], file['train_labels']
  size = common.SIZES[args.size]
  images = images.reshape(-1, size.image, size.image, size.channels)
  args.examples = len(images)
  path = ours.Ours(args, probe_every=1, flip=False)  # digits: left and right
  path.inputs = path.inputs._replace(
    examples=path.devices.replicate(
      step.Examples(images, labels.astype(np.int32))
    )
  )
  return path


def probe_of(path: ours.Ours, mode: str, batches: int) -> Any:
  """() -> what a probe finds at the path's state, which is not decided on."""
  options = copy.deepcopy(path.config.variance)
  options.mode = mode
  method = METHODS['label_smoothing']()
  decision = probe.decision('', RULES, method, min_step=0, patience=1)
  inputs = probe.Inputs(path.inputs, None, path.devices.replicate(decision))
  call = path.devices.map(
    probe.make_probe(
      *(path.model.apply, path.view, method, UNIFORM, RULES, options),
      batch_size=path.args.batch,
      axis_name=path.devices.axis_name,
    ),
    donate_state=True,
  )

  def run() -> dict[str, Any]:
    path.state, found = call(path.state, inputs, path.slots, batches)
    return jax.block_until_ready(found).compute()

  return run


def compared(
  path: ours.Ours, probes: dict[str, Any], epochs: list[int]
) -> dict[str, Any]:
  """The two modes' values at some epochs of one run."""
  figures = {name: {mode: [] for mode in probes} for name in _COMPARED}
  for epoch in range(max(epochs) + 1):
    if epoch in epochs:
      for mode, run in probes.items():
        row = run()
        for name in _COMPARED:
          figures[name][mode].append(round(float(row[name]), 4))
    jax.block_until_ready(path.train(path.steps_per_epoch))
  return figures


def main() -> None:
  """Measures in turn, then compares on a fresh run."""
  parser = common.arguments(__doc__, batches=32, npz='', epochs='0,1,2,5,10,20')
  args = common.parse(parser)
  if args.size == 'tiny':
    args.batches, args.epochs = 3, '0,1'
  path = path_of(args)
  modes = ('exact', 'last_layer')
  contenders = {mode: probe_of(path, mode, args.batches) for mode in modes}
  contenders['epoch'] = lambda: jax.block_until_ready(
    path.train(path.steps_per_epoch)
  )
  seconds = common.in_turn(contenders, args.rounds)
  figures = {}
  for name, times in seconds.items():
    figures[name] = {'milliseconds': round(1e3 * float(np.median(times)), 2)}
    if name != 'epoch':
      figures[name] |= common.ratio(times, seconds['epoch'])
  figures['batches'] = args.batches
  figures['busy_cores'] = round(common.busy_cores(), 2)
  fresh = path_of(args)
  probes = {mode: probe_of(fresh, mode, args.batches) for mode in modes}
  epochs = [int(epoch) for epoch in args.epochs.split(',')]
  figures['at_epochs'] = epochs
  figures |= compared(fresh, probes, epochs)
  common.record('probe', args, path.device, figures)


if __name__ == '__main__':
  main()
