"""config + data set + devices → the compiled functions of a run."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from tsla.config.durations import Durations
from tsla.config.schema import Section
from tsla.data.datasets import Dataset
from tsla.data.pipeline import View
from tsla.errors import InputError
from tsla.evaluation import metrics
from tsla.models import create_configured
from tsla.training import optimizer, smoothing_label, step
from tsla.training import probe as probe_lib
from tsla.training.parallel import Devices
from tsla.training.teacher import Teacher


class Compiled(NamedTuple):
  """What the loop calls; the data and the devices are inside."""

  state: step.TrainState  # before the first update
  tables: optimizer.Tables  # θ and the learning rate at every update
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


def view_of(config: ml_collections.ConfigDict) -> View:
  """How a run's images become its network's input."""
  augment, data = config.augment, config.data
  return View(
    *(augment.pad, augment.crop, augment.flip),
    *(data.mean, data.std, config.model.dtype),
  )


def tables_of(
  config: ml_collections.ConfigDict, durations: Durations
) -> optimizer.Tables:
  """θ and the learning rate of a run at every update."""
  schedules = optimizer.create_schedules(
    config.smoothing, config.optimizer, durations
  )
  return optimizer.tabulate(schedules, durations.total_steps)


def build(
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  durations: Durations,
  devices: Devices,
  teacher: Teacher | None = None,
) -> Compiled:
  """Places the data on the devices and compiles nothing yet.

  `check_fits` has passed; `teacher` is what `load_teacher` made.
  """
  tables = tables_of(config, durations)
  view, axis = view_of(config), devices.axis_name
  make = _make_optimizer(config.optimizer, config.smoothing, durations)
  apply = create_configured(
    config.model, dataset.num_classes, axis_name=axis
  ).apply
  source = smoothing_label.create(
    *(config.smoothing.target, dataset, view, teacher),
    batch_size=config.eval_batch_size,
  )
  train, test = devices.replicate(
    (
      step.Inputs(
        step.Examples(
          dataset.train.images, dataset.train.labels, source.arrays
        ),
        np.uint32(config.seed),
        tables,
      ),
      step.Examples(dataset.test.images, dataset.test.labels),
    )
  )
  chunk = devices.map(
    step.make_train_chunk(
      *(apply, make, view, source.y_hat),
      batch_size=config.batch_size,
      axis_name=axis,
    ),
    donate_state=True,
  )
  sums = devices.map(step.make_evaluation(apply, view, axis_name=axis))
  slots = devices.slots(config.batch_size)
  eval_size = devices.round_up(min(config.eval_batch_size, len(test.labels)))
  eval_slots = devices.slots(eval_size)
  probe = None
  if durations.probe_every:
    measure = devices.map(
      probe_lib.make_probe(
        *(apply, view, source.y_hat, config.variance),
        batch_size=config.batch_size,
        axis_name=axis,
      ),
      donate_state=True,
    )
    held_out = dataset.held_out
    inputs = probe_lib.Inputs(
      train,
      held_out
      and devices.replicate(step.Examples(held_out.images, held_out.labels)),
      devices.replicate(
        probe_lib.decision(
          config.smoothing.rule, durations.min_step, config.smoothing.patience
        )
      ),
    )

    def probe(
      state: step.TrainState,
    ) -> tuple[step.TrainState, probe_lib.Probed]:
      return measure(state, inputs, slots, config.variance.num_batches)

  return Compiled(
    state=devices.replicate(first_state(config, dataset, durations, tables)),
    tables=tables,
    train_chunk=lambda state, length: chunk(state, train, slots, length),
    evaluate=lambda state: metrics.finalize(
      sums(state, test, eval_slots, eval_size)
    ),
    probe=probe,
  )


def first_state(
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  durations: Durations,
  tables: optimizer.Tables,
) -> step.TrainState:
  """The state before the first update; under `jax.eval_shape` its shapes."""
  schedules = optimizer.from_tables(tables)
  make = _make_optimizer(config.optimizer, config.smoothing, durations)
  return step.create_state(
    create_configured(config.model, dataset.num_classes),
    make(schedules),
    seed=config.seed,
    image_shape=view_of(config).input_shape(dataset.image_shape),
  )


def _make_optimizer(
  options: Section, smoothing: Section, durations: Durations
) -> step.MakeOptimizer:
  return functools.partial(
    optimizer.create,
    options,
    probed=durations.probe_every > 0,
    reset_momentum=smoothing.reset_momentum,
  )


def check_fits(
  config: ml_collections.ConfigDict, dataset: Dataset, memory: int | None
) -> None:
  """Raises InputError where config, data set or device contradict each other.

  `memory` are the bytes of a device, which holds the whole set; None: unknown.
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
