"""config + data set + devices → the compiled functions of a run."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tsla import programs
from tsla.config import tables as config_tables
from tsla.config.durations import Durations
from tsla.config.schema import Section
from tsla.data.datasets import Dataset
from tsla.data.pipeline import View
from tsla.errors import InputError
from tsla.evaluation import metrics
from tsla.models import create_configured
from tsla.smoothing.method import UNIFORM, Method, Target, Task
from tsla.training import optimizer, step
from tsla.training import probe as probe_lib
from tsla.training.parallel import Devices
from tsla.training.teacher import Teacher, teacher_target


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
  name = config.smoothing.schedule
  with programs.explained(f'config.smoothing.schedule = {name!r}', name):
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
  first = first_state(config, dataset, durations, tables)
  _check_network(config, dataset, first)
  view, axis = view_of(config), devices.axis_name
  make = _make_optimizer(config.optimizer, config.smoothing, durations)
  apply = create_configured(
    config.model, dataset.num_classes, axis_name=axis
  ).apply
  method = config_tables.method_of(config.smoothing)
  _check_range(config.smoothing, method, np.asarray(tables.theta))
  rules = config_tables.rules_of(config.smoothing)
  target = _target(
    *(config.smoothing, method, dataset),
    lambda: teacher_target(teacher, dataset, view, config.eval_batch_size),
  )
  train, test = devices.replicate(
    (
      step.Inputs(
        step.Examples(dataset.train.images, dataset.train.labels),
        np.uint32(config.seed),
        tables,
        target.arrays,
      ),
      step.Examples(dataset.test.images, dataset.test.labels),
    )
  )
  chunk = devices.map(
    step.make_train_chunk(
      *(apply, make, view, method.loss, target),
      batch_size=config.batch_size,
      axis_name=axis,
    ),
    donate_state=True,
  )
  own = config_tables.metrics_of(config.eval_metrics, dataset.num_classes)
  sums = devices.map(step.make_evaluation(apply, view, own, axis_name=axis))
  slots = devices.slots(config.batch_size)
  eval_size = devices.round_up(min(config.eval_batch_size, len(test.labels)))
  eval_slots = devices.slots(eval_size)
  probe = None
  if durations.probe_every:
    measure = devices.map(
      probe_lib.make_probe(
        *(apply, view, method, target, rules, config.variance),
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
          # Of FILE.py:name it is the name.
          *(config.smoothing.rule.rpartition(':')[2], rules, method),
          min_step=durations.at('smoothing.min', 0),
          patience=config.smoothing.patience,
        )
      ),
    )

    def probe(
      state: step.TrainState,
    ) -> tuple[step.TrainState, probe_lib.Probed]:
      return measure(state, inputs, slots, config.variance.num_batches)

  return Compiled(
    state=devices.replicate(first),
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
  method = config_tables.method_of(config.smoothing)
  return step.create_state(
    create_configured(config.model, dataset.num_classes),
    make(schedules),
    seed=config.seed,
    image_shape=view_of(config).input_shape(dataset.image_shape),
    target=_target(config.smoothing, method, dataset, lambda: UNIFORM).state,
  )


def _check_network(
  config: ml_collections.ConfigDict, dataset: Dataset, state: step.TrainState
) -> None:
  """Raises InputError for a network of one's own that does not fit."""
  shape = view_of(config).input_shape(dataset.image_shape)
  model = create_configured(config.model, dataset.num_classes)
  logits, sown = jax.eval_shape(
    lambda images: model.apply(
      state.variables, images, train=False, mutable=['intermediates']
    ),
    jax.ShapeDtypeStruct((2, *shape), jnp.dtype(config.model.dtype)),
  )
  where = f'config.model.name = {config.model.name!r}'
  if logits.shape != (2, dataset.num_classes) or logits.dtype != jnp.float32:
    raise InputError(
      f'{where}: gives {logits.dtype}{list(logits.shape)} for 2 images of '
      f'{dataset.num_classes} classes',
      allowed=f'float32{[2, dataset.num_classes]}',
    )
  probed = config.variance.every_epochs and config.variance.mode
  sows = 'features' in sown.get('intermediates', {})
  if probed == 'last_layer' and not sows:
    raise InputError(
      f"config.variance.mode = 'last_layer': {where} sows no features",
      allowed="self.sow('intermediates', 'features', x) before the last layer",
      cure='--config.variance.mode=exact',
    )


def _check_range(options: Section, method: Method, theta: np.ndarray) -> None:
  """Raises InputError where a schedule leaves the bounds of the method."""
  if not method.lowest <= theta.min() <= theta.max() <= method.highest:
    raise InputError(
      f'config.smoothing.schedule = {options.schedule!r}: theta from '
      f'{theta.min():g} to {theta.max():g}',
      allowed=f'{method.lowest:g} to {method.highest:g} with '
      f'smoothing.method = {options.method!r}',
      cure='--config.smoothing.theta=…, or another schedule',
    )


def _target(
  options: Section,
  method: Method,
  dataset: Dataset,
  teacher: Callable[[], Target],
) -> Target:
  labels = dataset.train.labels
  task = Task(dataset.num_classes, len(labels), labels)
  return config_tables.target_of(options, method, task, teacher)


def _make_optimizer(
  options: Section, smoothing: Section, durations: Durations
) -> step.MakeOptimizer:
  return functools.partial(
    optimizer.create,
    options,
    rules=config_tables.rules_of(smoothing) if durations.probe_every else None,
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
  for name in ('crop', 'pad'):
    if config.augment[name] > min(height, width):
      raise InputError(
        f'config.augment.{name} = {config.augment[name]}: larger than the '
        f'images of {dataset.name}, {height}×{width}',
        allowed=f'0 to {min(height, width)}',
        cure=f'--config.augment.{name}=… or --config.data.image_size=…',
      )


def image_bytes(dataset: Dataset) -> int:
  """What the images of a set take on each device."""
  splits = dataset.train, dataset.test, dataset.held_out
  return sum(split.images.nbytes for split in splits if split is not None)
