"""config + data set + devices → the compiled functions of a run."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from tsla.config.durations import Durations
from tsla.data.datasets import Dataset
from tsla.errors import InputError
from tsla.evaluation import metrics
from tsla.training import network, optimizer, smoothing_label, step
from tsla.training import probe as probe_lib
from tsla.training.parallel import Parallel
from tsla.training.teacher import Teacher


class Run(NamedTuple):
  """What the loop calls; the data and the devices are inside."""

  state: step.TrainState  # before the first update
  # (state, length) -> state after `length` updates and their metrics; the
  # state that goes in is gone afterwards.
  train_chunk: Callable[
    [step.TrainState, int], tuple[step.TrainState, step.TrainMetrics]
  ]
  # (state) -> the metrics on the test set
  evaluate: Callable[[step.TrainState], dict[str, float]]
  # (state) -> the state with what was decided, and what was found; the state
  # that goes in is gone afterwards. None: the run is not probed.
  probe: (
    Callable[[step.TrainState], tuple[step.TrainState, probe_lib.Probed]] | None
  ) = None


def build(
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  durations: Durations,
  mapping: Parallel,
  teacher: Teacher | None = None,
) -> Run:
  """Places the data on the devices and compiles nothing yet.

  Args:
    config: a validated config.
    dataset: what `config.data` names; `check_fits` has passed.
    durations: of the config, on this data set.
    mapping: how the devices share the work.
    teacher: what `tsla.training.teacher.load` makes of config and dataset.
  """
  state = _first_state(config, dataset, durations, mapping)
  source = smoothing_label.create(config, dataset, teacher)
  train, test = mapping.replicate(
    (
      step.Inputs(
        step.Examples(
          dataset.train.images, dataset.train.labels, source.arrays
        ),
        np.uint32(config.seed),
        optimizer.tabulate(config, durations),
      ),
      step.Examples(dataset.test.images, dataset.test.labels),
    )
  )
  chunk = mapping.map(
    step.make_train_chunk(config, source.y_hat, axis_name=mapping.axis_name),
    donate_state=True,
  )
  sums = mapping.map(step.make_evaluation(config, axis_name=mapping.axis_name))
  slots = mapping.slots(config.batch_size)
  eval_size = mapping.round_up(min(config.eval_batch_size, len(test.labels)))
  eval_slots = mapping.slots(eval_size)
  return Run(
    state=mapping.replicate(state),
    train_chunk=lambda state, length: chunk(state, train, slots, length),
    evaluate=lambda state: metrics.finalize(
      sums(state, test, eval_slots, eval_size)
    ),
    probe=_probe(config, dataset, durations, mapping, source, train)
    if config.variance.every_epochs
    else None,
  )


def _probe(
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  durations: Durations,
  mapping: Parallel,
  source: smoothing_label.Source,
  train: step.Inputs,
) -> Callable[[step.TrainState], tuple[step.TrainState, probe_lib.Probed]]:
  held_out = dataset.held_out
  inputs = probe_lib.Inputs(
    train,
    held_out
    and mapping.replicate(step.Examples(held_out.images, held_out.labels)),
    mapping.replicate(probe_lib.decision(config, durations)),
  )
  probe = mapping.map(
    probe_lib.make_probe(config, source.y_hat, axis_name=mapping.axis_name),
    donate_state=True,
  )
  slots = mapping.slots(config.batch_size)
  return lambda state: probe(state, inputs, slots, config.variance.num_batches)


def state_shapes(
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  durations: Durations,
  mapping: Parallel,
) -> step.TrainState:
  """Shapes and dtypes of the state, without computing it.

  Args: as of `build`.
  """
  return jax.eval_shape(
    lambda: _first_state(config, dataset, durations, mapping)
  )


def _first_state(
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  durations: Durations,
  mapping: Parallel,
) -> step.TrainState:
  model = network.create(
    config, dataset.num_classes, axis_name=mapping.axis_name
  )
  tx, learning_rate = optimizer.create(config, durations)
  return step.TrainState.create(
    model,
    tx,
    learning_rate,
    seed=config.seed,
    image_shape=network.input_shape(config, dataset),
  )


def check_fits(
  config: ml_collections.ConfigDict, dataset: Dataset, memory: int | None
) -> None:
  """Checks config, data set and device against each other.

  Args:
    config: a validated config.
    dataset: what `config.data` names.
    memory: bytes of a device, which holds the whole set; None: unknown.

  Raises:
    InputError: one asks for what another cannot give.
  """
  size = image_bytes(dataset)
  if memory is not None and size > memory // 2:
    raise InputError(
      f'data.name = {dataset.name!r}: its images take {size / 1e9:.1f} GB',
      allowed=f'{memory / 2e9:.1f} GB, half of the device',
      cure='a smaller --config.data.image_size, or a larger device',
    )
  num_examples = len(dataset.train.labels)
  if config.batch_size > num_examples:
    raise InputError(
      f'config.batch_size = {config.batch_size}: more than the {num_examples} '
      f'training examples of {dataset.name}',
      allowed=f'1 to {num_examples}',
      cure=f'--config.batch_size={max(1, num_examples // 8)}',
    )
  most = num_examples // config.batch_size
  if config.variance.every_epochs and config.variance.num_batches > most:
    raise InputError(
      f'config.variance.num_batches = {config.variance.num_batches} of '
      f'{config.batch_size}: more than the {num_examples} training examples of '
      f'{dataset.name}',
      allowed=f'3 to {most}' if most >= 3 else 'batches of a third at the most',
      cure='--config.variance.num_batches=… or --config.batch_size=…',
    )
  height, width, channels = dataset.image_shape
  for name in ('mean', 'std'):
    values = config.data[name]
    if len(values) not in (1, channels):
      raise InputError(
        f'config.data.{name} = {values}: {len(values)} numbers for images of '
        f'{channels} channels',
        allowed=f'{channels}, or 1 for all',
      )
  if config.augment.crop > min(height, width):
    raise InputError(
      f'config.augment.crop = {config.augment.crop}: larger than the images of '
      f'{dataset.name}, {height}×{width}',
      allowed=f'0 to {min(height, width)}',
      cure='--config.augment.crop=… or --config.data.image_size=…',
    )


def image_bytes(dataset: Dataset) -> int:
  """What the images of a set take on each device."""
  splits = dataset.train, dataset.test, dataset.held_out
  return sum(split.images.nbytes for split in splits if split is not None)
