"""The training path of TSLA, from random data, for the benchmarks."""

import argparse
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import common
from tsla.config.durations import Durations
from tsla.data import augment
from tsla.models import resnet
from tsla.runs.environment import split_cores
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
    smoothing=Namespace(schedule='two_stage', theta=0.1, reset_momentum=False),
    variance=Namespace(every_epochs=probe_every, augment=True, mode='exact'),
    optimizer=Namespace(
      name='sgd',
      learning_rate=0.01,
      momentum=0.9,
      nesterov=False,
      weight_decay=5e-4,
      schedule='cosine',
    ),
  )


class Ours:
  """Data and state on the devices, and the compiled functions over them.

  Args:
    args: parsed options.
    epochs: of the run that the schedules are for.
    make_y_hat: as `step.make_train_chunk` takes it; uniform by default.
    y_hat: its arrays.
    probe_every: of the config; more than 0: the state can be probed.
    block: of the network, in place of its own.
  """

  def __init__(
    self,
    args: argparse.Namespace,
    epochs: int = 100,
    make_y_hat: Callable[..., Any] = lambda arrays, images, indices: None,
    y_hat: Any = (),
    probe_every: int = 0,
    block: type[nn.Module] | None = None,
  ):
    self.args, size = args, common.SIZES[args.size]
    self.config = config(args, probe_every)
    split_cores(self.config.model.name, self.config.batch_size)
    self.mapping = parallel.choose('auto', args.batch)
    axis = self.mapping.axis_name
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
    durations = Durations(self.steps_per_epoch, total, total // 2, (), 0)
    state = step.TrainState.create(
      self.model,
      *optimizer.create(self.config, durations),
      seed=0,
      image_shape=(size.side, size.side, size.channels),
    )
    images, labels = common.data(args)
    inputs = step.Inputs(
      step.Examples(images, labels, y_hat),
      np.uint32(0),
      optimizer.tabulate(self.config, durations),
    )
    self.state = self.mapping.replicate(state)
    self.inputs = self.mapping.replicate(inputs)
    self.slots = self.mapping.slots(args.batch)
    self._chunk = self.mapping.map(
      step.make_train_chunk(self.config, make_y_hat, axis_name=axis),
      donate_state=True,
    )
    self._bare = self.mapping.map(
      bare_chunk(self.config, axis), donate_state=True
    )
    self._evaluate = self.mapping.map(
      step.make_evaluation(self.config, axis_name=axis)
    )

  @property
  def device(self) -> str:
    """The devices, in words."""
    return self.mapping.describe()

  def train(self, steps: int) -> step.TrainMetrics:
    """The real path: shuffle, gather, augment, update; does not wait."""
    self.state, row = self._chunk(self.state, self.inputs, self.slots, steps)
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
    images, labels, _ = self.inputs.examples
    return step.Examples(images[:count], labels[:count])

  def evaluate(self, examples: step.Examples) -> Any:
    """Every metric over `examples`; waits."""
    size = self.mapping.round_up(min(500, len(examples.labels)))
    return jax.block_until_ready(
      self._evaluate(self.state, examples, self.mapping.slots(size), size)
    )

  def two_late(self, run: Callable[[int], step.TrainMetrics]) -> None:
    """Two chunks as the loop runs them: the first row read during the second.

    Afterwards it waits for the second.
    """
    first = run(self.args.steps)
    second = run(self.args.steps)
    first.compute()
    second.compute()


def bare_chunk(
  config: Namespace, axis_name: str | None
) -> Callable[..., tuple[step.TrainState, step.TrainMetrics]]:
  """As `step.make_train_chunk`, without the data's part of the work."""

  def chunk(
    state: step.TrainState, inputs: step.Inputs, slots: jax.Array, length: int
  ) -> tuple[step.TrainState, step.TrainMetrics]:
    images = augment.augment_eval(
      inputs.examples.images[slots], crop=config.augment.crop
    )
    images = augment.normalize(
      images, config.data.mean, config.data.std, jnp.dtype(config.model.dtype)
    )
    batch = step.Examples(images, inputs.examples.labels[slots])
    tx, rate = optimizer.from_tables(config, inputs.tables)
    end, rows = jax.lax.scan(
      lambda state, _: step.train_step(state, batch, axis_name=axis_name),
      state.replace(tx=tx, learning_rate=rate),
      length=length,
    )
    return end.replace(tx=state.tx, learning_rate=state.learning_rate), rows

  return chunk
