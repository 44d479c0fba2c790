"""config + data set + devices → the compiled functions of a run."""

import functools
from collections.abc import Callable, Mapping
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
from tsla.errors import InputError, Problems
from tsla.evaluation import metrics
from tsla.evaluation.metrics import EvalSums
from tsla.models import create_configured
from tsla.smoothing.method import UNIFORM, Method, Target, Task
from tsla.training import optimizer, step
from tsla.training import probe as probe_lib
from tsla.training.feeds import Feeds, choose_feed
from tsla.training.parallel import Devices
from tsla.training.step import TrainMetrics, TrainState
from tsla.training.teacher import ClassRows, Teacher, teacher_target


class Compiled(NamedTuple):
  """What the loop calls; the data and the devices are inside.

  The state that goes into `train_chunk` or `probe` is gone afterwards.
  """

  state: TrainState  # before the first update
  tables: optimizer.Tables  # θ and the learning rate at every update
  feed: str  # where the images lie, in words
  longest: int  # updates of a call of `train_chunk`
  # (state, length, updates done) -> state after `length` updates and their
  # metrics; without the last one, it waits for the state to say it
  train_chunk: Callable[..., tuple[TrainState, TrainMetrics]]
  # By kind, validation if there is such a split and eval for the test set:
  # (state) -> its metrics
  evaluate: Mapping[str, Callable[[TrainState], dict[str, float]]]
  # (state) -> the state with what was decided, and what was found; None: the
  # run is not probed
  probe: Callable[[TrainState], tuple[TrainState, probe_lib.Probed]] | None


def view_of(config: ml_collections.ConfigDict) -> View:
  """How a run's images become its network's input."""
  augment, data = config.augment, config.data
  return View(
    *(augment.pad, augment.crop, augment.flip),
    *(data.mean, data.std, config.model.dtype, augment.crop_area),
  )


def tables_of(
  config: ml_collections.ConfigDict, durations: Durations
) -> optimizer.Tables:
  """θ and the learning rate of a run at every update."""
  name = config.smoothing.schedule
  with programs.explained(f'config.smoothing.schedule = {name!r}', name):
    schedules = optimizer.Schedules(
      config_tables.theta_schedule(config.smoothing, durations),
      config_tables.learning_rate(config.optimizer, durations),
    )
    return optimizer.tabulate(schedules, durations.total_steps)


def build(
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  durations: Durations,
  devices: Devices,
  teacher: Teacher | ClassRows | None = None,
) -> Compiled:
  """Places the data on the devices and compiles nothing yet.

  `check_fits` has passed; `teacher` is what `load_teacher` made.
  """
  tables = tables_of(config, durations)
  first = first_state(config, dataset, durations, tables)
  if programs.is_own(config.model.name):
    _check_network(config, dataset, first)
  view, method = view_of(config), config_tables.method_of(config.smoothing)
  _check_range(config.smoothing, method, np.asarray(tables.theta))
  classes, axis = dataset.num_classes, devices.axis_name
  apply = create_configured(config.model, classes, axis_name=axis).apply
  feeds = Feeds(
    choose_feed(config.data.feed, dataset, devices.memory()),
    *(dataset, devices),
    seed=config.seed,
    batch_size=config.batch_size,
    at_most=config.log_every_steps,
    total_steps=durations.total_steps,
  )
  by_class = config.smoothing.target == 'class_similarity'
  asked = teacher, dataset, view, config.eval_batch_size, by_class
  target = _target(config.smoothing, dataset, lambda: teacher_target(*asked))
  train = step.Inputs(
    feeds.examples(dataset.train),
    *devices.replicate((np.uint32(config.seed), tables, target.arrays)),
  )
  make = _make_optimizer(config, durations)
  chunk = devices.map(
    step.make_train_chunk(
      *(apply, make, view, method.loss, target),
      batch_size=config.batch_size,
      axis_name=axis,
    ),
    donate_state=True,
  )
  own = config_tables.metrics_of(config.eval_metrics, classes)
  sums = devices.map(step.make_evaluation(apply, view, own, axis_name=axis))
  splits = {'validation': dataset.validation, 'eval': dataset.test}
  splits = {kind: split for kind, split in splits.items() if split}
  placed = {kind: feeds.examples(split) for kind, split in splits.items()}

  def evaluation(kind: str, most: int) -> Callable[[TrainState], EvalSums]:
    return feeds.evaluation(sums, splits[kind], placed[kind], most)

  def evaluator(kind: str) -> Callable[[TrainState], dict[str, float]]:
    evaluate = evaluation(kind, config.eval_batch_size)
    return lambda state: metrics.finalize(evaluate(state))

  probe = None
  if durations.probe_every:
    held_out, unseen = placed.get('validation'), None
    if held_out and held_out.images is None:
      unseen = evaluation('validation', config.batch_size)
    parts = (apply, view, method, target)
    probe = _probe(
      *(config, durations, devices, feeds, parts, train, held_out, unseen)
    )

  def train_chunk(
    state: TrainState, length: int, done: int | None = None
  ) -> tuple[TrainState, TrainMetrics]:
    done = int(state.step) if done is None else done
    return chunk(state, train, feeds.updates(done, length), length)

  return Compiled(
    state=devices.replicate(first),
    tables=tables,
    feed=feeds.about,
    longest=feeds.longest,
    train_chunk=train_chunk,
    evaluate={kind: evaluator(kind) for kind in splits},
    probe=probe,
  )


def _probe(
  config: ml_collections.ConfigDict,
  durations: Durations,
  devices: Devices,
  feeds: Feeds,
  parts: tuple[step.Apply, View, Method, Target],
  train: step.Inputs,
  held_out: step.Examples | None,
  unseen: Callable[[TrainState], EvalSums] | None,
) -> Callable[[TrainState], tuple[TrainState, probe_lib.Probed]]:
  """`Compiled.probe`; `unseen` evaluates held-out examples that are fed."""
  rules = config_tables.rules_of(config.smoothing)
  measure = devices.map(
    probe_lib.make_probe(
      *(*parts, rules, config.variance),
      batch_size=config.batch_size,
      axis_name=devices.axis_name,
    ),
    donate_state=True,
  )
  decision = probe_lib.decision(
    config.smoothing.rule.rpartition(':')[2],  # of FILE.py:name the name
    *(rules, parts[2]),
    min_step=durations.at('smoothing.min', 0),
    patience=config.smoothing.patience,
  )
  inputs = probe_lib.Inputs(train, held_out, devices.replicate(decision))
  length = config.variance.num_batches

  def probe(state: TrainState) -> tuple[TrainState, probe_lib.Probed]:
    seen = inputs
    if unseen:
      seen = inputs._replace(held_out=devices.replicate(unseen(state)))
    fed = feeds.probe(probe_lib.EPOCH, length)
    return measure(state, seen, fed, length)

  return probe


def first_state(
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  durations: Durations,
  tables: optimizer.Tables,
) -> TrainState:
  """The state before the first update; under `jax.eval_shape` its shapes."""
  make = _make_optimizer(config, durations)
  # One program, not one for each shape; with the tables for an argument.
  init = jax.jit(lambda t, params: make(optimizer.from_tables(t)).init(params))
  tx = make(optimizer.from_tables(tables))
  target = _target(config.smoothing, dataset, lambda: UNIFORM)
  name = config.model.name
  with programs.explained(f'config.model.name = {name!r}', name):
    return step.create_state(
      create_configured(config.model, dataset.num_classes),
      tx._replace(init=functools.partial(init, tables)),
      seed=config.seed,
      image_shape=view_of(config).input_shape(dataset.image_shape),
      target=target.state,
    )


def _check_network(
  config: ml_collections.ConfigDict, dataset: Dataset, state: TrainState
) -> None:
  """Raises InputError for a network of one's own that does not fit."""
  shape = view_of(config).input_shape(dataset.image_shape)
  model = create_configured(config.model, dataset.num_classes)
  images = jax.ShapeDtypeStruct((2, *shape), jnp.dtype(config.model.dtype))
  where = f'config.model.name = {config.model.name!r}'
  mutable = ['intermediates', 'batch_stats']
  with programs.explained(where, config.model.name):
    for train in (True, False):
      apply = functools.partial(model.apply, train=train, mutable=mutable)
      logits, sown = jax.eval_shape(apply, state.variables, images)
  if logits.shape != (2, dataset.num_classes) or logits.dtype != jnp.float32:
    problem = f'{where}: gives {logits.dtype}{list(logits.shape)} for 2 images'
    problem += f' of {dataset.num_classes} classes'
    raise InputError(problem, allowed=f'float32{[2, dataset.num_classes]}')
  probed = config.variance.every_epochs and config.variance.mode
  if probed == 'last_layer' and 'features' not in sown.get('intermediates', {}):
    problem = f"config.variance.mode = 'last_layer': {where} sows no features"
    allowed = "self.sow('intermediates', 'features', x) before the last layer"
    cure = '--config.variance.mode=exact'
    raise InputError(problem, allowed=allowed, cure=cure)


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
  options: Section, dataset: Dataset, teacher: Callable[[], Target]
) -> Target:
  method, labels = config_tables.method_of(options), dataset.train.labels
  task = Task(dataset.num_classes, len(labels), labels)
  return config_tables.target_of(options, method, task, teacher)


def _make_optimizer(
  config: ml_collections.ConfigDict, durations: Durations
) -> step.MakeOptimizer:
  rules = config_tables.rules_of(config.smoothing)
  return functools.partial(
    optimizer.create,
    config.optimizer,
    rules=rules if durations.probe_every else None,
    reset_momentum=config.smoothing.reset_momentum,
  )


def check_fits(
  config: ml_collections.ConfigDict,
  dataset: Dataset,
  memory: int | None,
  devices: int = 1,
) -> None:
  """Raises InputError where config, data set or device contradict each other.

  `memory` are the bytes of each of the `devices`; None: unknown.
  """
  problems, target = Problems(), config.smoothing.target
  feed = choose_feed(config.data.feed, dataset, memory)
  count = len(dataset.train.labels)
  too_many = f'more than the {count} training examples of {dataset.name}'
  most, probed = count // config.batch_size, config.variance.num_batches
  if not most:
    problems.note(
      f'config.batch_size = {config.batch_size}: {too_many}',
      allowed=f'1 to {count}',
      cure=f'--config.batch_size={max(1, count // 8)}',
    )
  elif config.variance.every_epochs and probed > most:
    problems.note(
      f'config.variance.num_batches = {probed} of {config.batch_size}: '
      f'{too_many}',
      allowed=f'3 to {most}' if most >= 3 else 'batches of a third or less',
      cure='--config.variance.num_batches=… or --config.batch_size=…',
    )
  elif feed == 'mapped' and memory is not None:
    part = config.batch_size // devices * bool(config.variance.every_epochs)
    kept = probed * part * dataset.train.images[:1].nbytes
    if (target, config.teacher.view) == ('teacher', 'clean'):
      kept += 2 * count * dataset.num_classes
    if kept > memory // 4:
      problems.note(
        f"config.data.feed = 'mapped': probes and a clean teacher's view take "
        f'{kept / 1e9:.1f} GB',
        allowed=f'{memory / 4e9:.1f} GB, a quarter of the device',
        cure='--config.teacher.view=augmented, or fewer variance.num_batches',
      )
  *sides, channels = dataset.image_shape
  for name in ('mean', 'std'):
    values = config.data[name]
    if len(values) not in (1, channels):
      problems.note(
        f'config.data.{name} = {values}: {len(values)} numbers for images of '
        f'{channels} channels',
        allowed=f'{channels}, or 1 for all',
      )
  for name in ('crop', 'pad'):
    if config.augment[name] > min(sides):
      problems.note(
        f'config.augment.{name} = {config.augment[name]}: larger than the '
        f'images of {dataset.name}, {sides[0]}×{sides[1]}',
        allowed=f'0 to {min(sides)}',
        cure=f'--config.augment.{name}=… or --config.data.image_size=…',
      )
  problems.raise_all()
