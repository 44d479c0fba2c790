"""What a run is about to do, for a person."""

import jax
import ml_collections

from tsla.config.durations import Durations
from tsla.config.tables import method_of
from tsla.data.datasets import Dataset
from tsla.training.start import Start


def announcement(
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  durations: Durations,
  start: Start,
) -> str:
  """Data, smoothing, network, optimiser and epochs, and what is to be known."""
  splits = dataset.train, dataset.validation, dataset.test
  train, select, test = (f'{len(s.labels) if s else 0:,}' for s in splits)
  smoothing, optimizer = config.smoothing, config.optimizer
  drop = durations.at('smoothing.drop')
  end = '' if drop is None else f', s = {drop / durations.steps_per_epoch:g}'
  size = sum(leaf.size for leaf in jax.tree.leaves(start.state.params))
  y_hat = f'y_hat {smoothing.target}' * (smoothing.target != 'uniform')
  method = filter(None, (smoothing.method, smoothing.options, y_hat))
  slow = method_of(smoothing).sorts and jax.default_backend() == 'cpu'
  sorts = (
    f'\nsmoothing.method = {smoothing.method!r} sorts {dataset.num_classes:,} '
    'logits an example, which is slow on a CPU: at 1,000 the loss takes 55 '
    'times as long as cross-entropy'
  )
  return (
    f'data       {dataset.name}: {train} training images, {select} to select '
    f'by, {test} test, {dataset.num_classes} classes\n'
    f'smoothing  {", ".join(method)}, theta = {smoothing.theta:g}{end}, '
    f'schedule {smoothing.schedule}, rule {smoothing.rule or "none"}\n'
    f'network    {config.model.name}, {size:,} parameters; see --overview\n'
    f'optimiser  {optimizer.name}, learning rate {optimizer.learning_rate:g} '
    f'({optimizer.schedule}), batch {config.batch_size}\n'
    f'epochs     {config.epochs}, from update {start.step:,} of '
    f'{durations.total_steps:,}'
    + ''.join(f'\n{dataset.name}: {note}' for note in dataset.notes)
    + f'\n{start.note}' * bool(start.note)
    + sorts * (slow and dataset.num_classes >= 1000)
  )
