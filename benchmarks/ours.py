"""The training path of TSLA, from random data, for the benchmarks."""

import argparse
import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import common
from tsla import smoothing
from tsla.data.pipeline import View, clean_view
from tsla.models import resnet
from tsla.runs.environment import split_cores
from tsla.smoothing.method import UNIFORM, Method, Target, Task
from tsla.smoothing.methods import METHODS
from tsla.smoothing.rules import RULES
from tsla.training import optimizer, parallel, step

Namespace = types.SimpleNamespace


def config(args: argparse.Namespace, probe_every: int = 0) -> Namespace:
  """The fields of a config that a step of training, and a probe, read."""
  size = common.SIZES[args.size]
  return Namespace(
    seed=0,
    batch_size=args.batch,
    data=Namespace(mean=(0.5,), std=(0.25,)),
    augment=Namespace(pad=size.pad, crop=size.crop, flip=True),
    model=Namespace(name=size.model, dtype=args.dtype),
    variance=Namespace(every_epochs=probe_every, augment=True, mode='exact'),
    optimizer=Namespace(
      name='sgd',
      momentum=0.9,
      nesterov=False,
      weight_decay=5e-4,
    ),
  )


class Ours:
  """Data and state on the devices, and the compiled functions over them.

  Args:
    args: parsed options.
    epochs: of the run that the schedules are for.
    method: what the loss is of; label smoothing by default.
    target: where ŷ comes from, if not from the method; uniform by default.
    probe_every: of the config; more than 0: the state can be probed.
    block: of the network, in place of its own.
    flip: whether images are mirrored.
    data: images and labels, if not random ones.
  """

  def __init__(
    self,
    args: argparse.Namespace,
    epochs: int = 100,
    method: Method | None = None,
    target: Target = UNIFORM,
    probe_every: int = 0,
    block: type[nn.Module] | None = None,
    flip: bool = True,
    data: tuple[np.ndarray, np.ndarray] | None = None,
  ):
    self.args, size = args, common.SIZES[args.size]
    self.config = config(args, probe_every)
    split_cores(self.config.model.name, args.batch)
    self.devices = parallel.choose('auto', args.batch)
    axis = self.devices.axis_name
    self.model = resnet.create(
      size.model,
      num_classes=size.classes,
      stem=size.stem,
      width=size.width,
      dtype=jnp.dtype(args.dtype),
      axis_name=axis,
    )
    if block is not None:
      self.model = self.model.clone(block=block)
    self.steps_per_epoch = args.examples // args.batch
    total = epochs * self.steps_per_epoch
    tables = optimizer.tabulate(
      optimizer.Schedules(
        smoothing.two_stage(0.1, total // 2),
        optax.cosine_decay_schedule(0.01, total),
      ),
      total,
    )
    self.make_optimizer = functools.partial(
      optimizer.create,
      self.config.optimizer,
      rules=RULES if probe_every else None,
    )
    self.config.augment.flip = flip
    self.view = View(
      *(size.pad, size.crop, flip),
      *(self.config.data.mean, self.config.data.std, args.dtype),
    )
    images, labels = data or common.data(args)
    method = method or METHODS['label_smoothing']()
    if method.target is not None:
      target = method.target(Task(size.classes, len(labels), labels))
    state = step.create_state(
      self.model,
      self.make_optimizer(optimizer.from_tables(tables)),
      seed=0,
      image_shape=(size.side, size.side, size.channels),
      target=target.state,
    )
    inputs = step.Inputs(
      step.Examples(images, labels), np.uint32(0), tables, target.arrays
    )
    self.state = self.devices.replicate(state)
    self.inputs = self.devices.replicate(inputs)
    self.slots = self.devices.slots(args.batch)
    self.chunk = self.devices.map(
      step.make_train_chunk(
        *(self.model.apply, self.make_optimizer, self.view),
        *(method.loss, target),
        batch_size=args.batch,
        axis_name=axis,
      ),
      donate_state=True,
    )
    self._bare = self.devices.map(self._bare_chunk, donate_state=True)
    self._evaluate = self.devices.map(
      step.make_evaluation(self.model.apply, self.view, axis_name=axis)
    )

  @property
  def device(self) -> str:
    """The devices, in words."""
    return self.devices.describe()

  def train(self, steps: int) -> step.TrainMetrics:
    """The real path: shuffle, gather, augment, update; does not wait."""
    self.state, row = self.chunk(self.state, self.inputs, self.slots, steps)
    return row

  def epoch(self) -> None:
    """An epoch in chunks as the loop runs it: each row is read a chunk late."""
    left, row = self.steps_per_epoch, None
    while left:
      length = min(left, self.args.steps)
      late, row = row, self.train(length)
      if late is not None:
        late.compute()
      left -= length
    row.compute()

  def bare(self, steps: int) -> step.TrainMetrics:
    """The update alone, on one batch that lies ready; does not wait."""
    self.state, row = self._bare(self.state, self.inputs, self.slots, steps)
    return row

  def first(self, count: int) -> step.Examples:
    """The first `count` training examples, to be evaluated on."""
    return jax.tree.map(lambda rows: rows[:count], self.inputs.examples)

  def evaluate(self, examples: step.Examples) -> Any:
    """Every metric over `examples`; waits."""
    size = self.devices.round_up(min(500, len(examples.labels)))
    return jax.block_until_ready(
      self._evaluate(self.state, examples, self.devices.slots(size), size)
    )

  def two_late(self, run: Callable[[int], step.TrainMetrics]) -> None:
    """Two chunks as the loop runs them: the first row read during the second.

    Afterwards it waits for the second.
    """
    first = run(self.args.steps)
    second = run(self.args.steps)
    first.compute()
    second.compute()

  def _bare_chunk(
    self,
    state: step.TrainState,
    inputs: step.Inputs,
    slots: jax.Array,
    length: int,
  ) -> tuple[step.TrainState, step.TrainMetrics]:
    """As `step.make_train_chunk`'s, without the data's part of the work."""
    images = clean_view(self.view, inputs.examples.images[slots])
    batch = step.Batch(images, inputs.examples.labels[slots])
    schedules = optimizer.from_tables(inputs.tables)
    tx = self.make_optimizer(schedules)
    return jax.lax.scan(
      lambda state, _: step.train_step(
        *(state, batch, self.model.apply, tx, schedules.learning_rate),
        axis_name=self.devices.axis_name,
      ),
      state,
      length=length,
    )
