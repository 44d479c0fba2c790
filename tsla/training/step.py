"""The training state and the pure functions that move and judge it.

Everything here is a function of arrays: no device, no file, no clock.
`axis_name` is the mapped axis to average over, None where there is none.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from tsla import smoothing
from tsla.data import batches
from tsla.data.pipeline import View, clean_view, train_view
from tsla.evaluation import metrics
from tsla.smoothing.method import UNIFORM, Loss
from tsla.training import optimizer
from tsla.training.optimizer import Schedules

# (variables, images, train=…, mutable=…) -> logits, as flax's `Module.apply`
Apply = Callable[..., Any]
# (schedules) -> the transformation that applies a gradient
MakeOptimizer = Callable[[Schedules], optax.GradientTransformationExtraArgs]


class Examples(NamedTuple):
  """A data set on the device, or without its images."""

  images: Any  # u8[N, H, W, C]; None: they come as `Fed`
  labels: jax.Array  # i32[N]
  aspects: jax.Array | None = None  # f32[N], of `Split`

  def at(self, places: jax.Array, images: jax.Array | None) -> 'Examples':
    """Some of them, with these images unless they lie here."""
    found = jax.tree.map(lambda rows: rows[places], self)
    return found if images is None else found._replace(images=images)


class Fed(NamedTuple):
  """The examples of L batches, of this device; None: the device has them."""

  indices: jax.Array  # i32[L, B], of an evaluation its places
  images: jax.Array | None = None  # u8[L, B, H, W, C]


class Batch(NamedTuple):
  """What an update sees, of this device."""

  images: jax.Array  # f32[B, H, W, C]
  labels: jax.Array  # i32[B]
  y_hat: jax.Array | None = None  # f32[K], f32[B, K]; None: uniform
  indices: jax.Array | None = None  # i32[B], for a target that learns


class Inputs(NamedTuple):
  """What every update of a run reads and none changes.

  All that tells the runs of a sweep apart, so that they share one compilation.
  """

  examples: Examples
  seed: jax.Array  # u32[]
  tables: optimizer.Tables
  target: Any = ()  # `Target.arrays`


class TrainState(flax.struct.PyTreeNode):
  """All that a run carries from one update to the next: arrays only."""

  step: jax.Array  # i32[], updates done
  params: Any
  batch_stats: Any
  opt_state: optax.OptState  # holds θ: smoothing.current_theta
  target: Any = ()  # what the target has learnt: `Target.state`

  @property
  def variables(self) -> dict[str, Any]:
    """What the network's `apply` takes."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


def create_state(
  model: nn.Module,
  tx: optax.GradientTransformationExtraArgs,
  *,
  seed: int,
  image_shape: tuple[int, int, int],
  target: Any = (),
) -> TrainState:
  """The state before the first update; `target` is its target's part."""
  # Named, so that `jax_default_prng_impl` cannot change a run.
  key = jax.random.key(seed, impl='threefry2x32')
  images = np.zeros((1, *image_shape), np.float32)
  init = jax.jit(model.init, static_argnames='train')
  variables = init(key, images, train=False)
  params, batch_stats = variables['params'], variables.get('batch_stats', {})
  step = jnp.zeros((), jnp.int32)
  return TrainState(step, params, batch_stats, tx.init(params), target)


# The `bad_array` of a state whose arrays are all finite.
NONE = 2**31 - 1


class TrainMetrics(NamedTuple):
  """What a log row says of its updates, one number for each."""

  loss: jax.Array  # f32[], from a chunk of n updates f32[n]; and so on
  hard_loss: jax.Array
  accuracy: jax.Array
  theta: jax.Array
  learning_rate: jax.Array
  bad_array: jax.Array | int = NONE  # i32[], of a chunk: `first_bad_array`

  def compute(self) -> dict[str, np.floating]:
    """Means over the updates; of θ and the learning rate the last.

    On the host: an operation of the device would wait for the chunk that runs
    there by now.
    """
    last = {'theta', 'learning_rate'}
    columns = {n: np.atleast_1d(v) for n, v in self._asdict().items()}
    return {
      name: column[-1] if name in last else column.mean()
      for name, column in columns.items()
      if name != 'bad_array'
    }


def train_step(
  state: TrainState,
  batch: Batch,
  apply: Apply,
  tx: optax.GradientTransformationExtraArgs,
  learning_rate: optax.Schedule,
  *,
  loss: Loss = smoothing.smoothed_cross_entropy,
  target: smoothing.Target = UNIFORM,
  axis_name: str | None = None,
) -> tuple[TrainState, TrainMetrics]:
  """One update: θ is read from the optimiser, used in the loss, moved on.

  `tx` owns θ and uses the `learning_rate`, which is here for the log; `target`
  learns from the logits, its ŷ is in the batch. With `axis_name` each device
  holds a part of the batch, and every result is the mean over all of it.

  Reference:
    Xu et al., arXiv:2006.11653, the TSLA algorithm: one step of either stage.
  """
  # θ is read before the update: the state holds that of this very gradient.
  theta = smoothing.current_theta(state.opt_state)

  def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
    variables = state.variables | {'params': params}
    logits, updated = apply(
      variables, batch.images, train=True, mutable=['batch_stats']
    )
    value = loss(logits, batch.labels, theta, batch.y_hat).mean()
    return value, (logits, updated.get('batch_stats', {}))

  gradient = jax.value_and_grad(loss_fn, has_aux=True)
  (value, (logits, batch_stats)), grads = gradient(state.params)
  hard_loss = smoothing.hard_cross_entropy(logits, batch.labels).mean()
  accuracy = jnp.mean(logits.argmax(-1) == batch.labels)
  if axis_name is not None:
    grads, value, hard_loss, accuracy = jax.lax.pmean(
      (grads, value, hard_loss, accuracy), axis_name
    )
  # θ is moved by the update that it belongs to, and nowhere else: a skipped,
  # repeated or restored update takes its θ along.
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  learnt = state.target
  if target.update is not None:
    # The logits that the gradient was taken at, not those after the update.
    seen = smoothing.Seen(batch.labels, batch.indices, logits=logits)
    if axis_name is not None:  # all of it everywhere: sums as on one device
      seen = jax.lax.all_gather(seen, axis_name, tiled=True)
    learnt = target.update(learnt, seen)
  row = TrainMetrics(
    loss=value,
    hard_loss=hard_loss,
    accuracy=accuracy,
    theta=theta,  # the one used above, not the one in the state by now
    learning_rate=jnp.asarray(learning_rate(state.step), jnp.float32),
  )
  step, params = state.step + 1, optax.apply_updates(state.params, updates)
  return TrainState(step, params, batch_stats, opt_state, learnt), row


def first_bad_array(state: TrainState) -> jax.Array:
  """i32[]: the first leaf that holds a NaN or an infinity, or NONE."""
  leaves = jax.tree.leaves(state)
  finite = jnp.array([jnp.isfinite(leaf).all() for leaf in leaves])
  return jnp.where(finite.all(), NONE, finite.argmin().astype(jnp.int32))


def make_batch(
  view: View,
  target: smoothing.Target,
  state: TrainState,
  inputs: Inputs,
  fed: Fed,
  epoch: jax.Array | int | None,
) -> Batch:
  """A batch of `fed` as an epoch sees it; None: not augmented."""
  picked, images = fed
  images, labels, aspects = inputs.examples.at(picked, images)
  if epoch is None:
    images = clean_view(view, images)
  else:
    images = train_view(view, images, inputs.seed, epoch, picked, aspects)
  seen = smoothing.Seen(labels, picked, images)
  y_hat = target.y_hat(inputs.target, state.target, seen)
  return Batch(images, labels, y_hat, picked)


def make_train_chunk(
  apply: Apply,
  make_optimizer: MakeOptimizer,
  view: View,
  loss: Loss,
  target: smoothing.Target,
  *,
  batch_size: int,
  axis_name: str | None = None,
) -> Callable[..., tuple[TrainState, TrainMetrics]]:
  """`chunk(state, inputs, slots, length)`: `length` updates in one scan.

  The batch of an update is a function of (seed, state.step), made on the
  device, whose places in the global batch are `slots`; or the host has made it,
  and it comes in their place as `Fed`. A chunk stays within one epoch; at the
  end it ends it for the target too, so that a probe or checkpoint there sees
  what the next update will use.
  """

  def chunk(
    state: TrainState, inputs: Inputs, slots: jax.Array | Fed, length: int
  ) -> tuple[TrainState, TrainMetrics]:
    num_examples = len(inputs.examples.labels)
    per_epoch = batches.steps_per_epoch(num_examples, batch_size)
    epoch, fed = state.step // per_epoch, slots
    if not isinstance(slots, Fed):
      order = batches.epoch_order(inputs.seed, epoch, num_examples)
      steps = state.step + jnp.arange(length, dtype=jnp.int32)[:, None]
      fed = Fed(batches.train_indices(order, steps, slots, batch_size))
    schedules = optimizer.from_tables(inputs.tables)
    tx, rate = make_optimizer(schedules), schedules.learning_rate
    options = {'loss': loss, 'target': target, 'axis_name': axis_name}

    def body(state: TrainState, fed: Fed) -> tuple[TrainState, TrainMetrics]:
      batch = make_batch(view, target, state, inputs, fed, epoch)
      return train_step(state, batch, apply, tx, rate, **options)

    end, rows = jax.lax.scan(body, state, fed)
    if target.end_epoch is not None:
      learnt = jax.lax.cond(
        end.step % per_epoch == 0, target.end_epoch, lambda s: s, end.target
      )
      end = end.replace(target=learnt)
    return end, rows._replace(bad_array=first_bad_array(end))

  return chunk


def make_evaluation(
  apply: Apply,
  view: View,
  own: metrics.Metrics | None = None,
  *,
  axis_name: str | None = None,
) -> Callable[..., metrics.EvalSums]:
  """`evaluate(state, examples, slots, batch_size)`: the sums of every batch.

  BatchNorm uses its running statistics. `slots` are this device's places in a
  batch; the last one is padded and masked. Or some batches come as `Fed`, and
  the sums are theirs. `own` are metrics of one's own.
  """

  def evaluate(
    state: TrainState,
    examples: Examples,
    slots: jax.Array | Fed,
    batch_size: int,
  ) -> metrics.EvalSums:
    count = len(examples.labels)

    def one_batch(batch: jax.Array | Fed) -> metrics.EvalSums:
      index, (places, images) = batch, (slots, None)
      if isinstance(batch, Fed):
        index, (places, images) = 0, batch
      picked, mask = batches.eval_indices(index, batch_size, places, count)
      images, labels, _ = examples.at(picked, images)
      images = clean_view(view, images)
      logits = apply(state.variables, images, train=False)
      return metrics.batch_sums(logits, labels, mask, own)

    each = slots
    if not isinstance(slots, Fed):
      each = jnp.arange(batches.num_eval_batches(count, batch_size))
    sums = jax.lax.map(one_batch, each)  # that `finalize` adds in float64
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)

  return evaluate
