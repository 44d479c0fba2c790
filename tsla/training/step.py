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
import ml_collections
import optax
from clu import metrics as clu_metrics

from tsla import smoothing
from tsla.data import augment, batches
from tsla.evaluation import metrics


class Examples(NamedTuple):
  """A data set, or a batch of one, on the device."""

  images: jax.Array  # u8[N, H, W, C], a batch for the step: float
  labels: jax.Array  # i32[N]
  # In a batch ŷ: f32[K], f32[B, K], None for uniform; in a set what makes it.
  y_hat: Any = None


class TrainState(flax.struct.PyTreeNode):
  """All that a run carries from one update to the next."""

  step: jax.Array  # i32[], updates done
  params: Any
  batch_stats: Any
  opt_state: optax.OptState  # holds θ: smoothing.current_theta
  apply_fn: Callable = flax.struct.field(pytree_node=False)
  tx: optax.GradientTransformationExtraArgs = flax.struct.field(
    pytree_node=False
  )
  learning_rate: optax.Schedule = flax.struct.field(pytree_node=False)

  @classmethod
  def create(
    cls,
    model: nn.Module,
    tx: optax.GradientTransformationExtraArgs,
    learning_rate: optax.Schedule,
    *,
    seed: int,
    image_shape: tuple[int, int, int],
  ) -> 'TrainState':
    """The state before the first update, a function of `seed`."""
    # Named, so that `jax_default_prng_impl` cannot change a run.
    key = jax.random.key(seed, impl='threefry2x32')
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = jax.jit(model.init, static_argnames='train')(
      key, images, train=False
    )
    return cls(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      batch_stats=variables.get('batch_stats', {}),
      opt_state=tx.init(variables['params']),
      apply_fn=model.apply,
      tx=tx,
      learning_rate=learning_rate,
    )


# What `Smallest` holds where there is nothing to hold.
NONE = 2**31 - 1


@flax.struct.dataclass
class Smallest(clu_metrics.Metric):
  """The smallest of whole numbers; NONE of none."""

  value: jax.Array  # i32[]

  @classmethod
  def empty(cls) -> 'Smallest':
    """Of none."""
    return cls(jnp.full((), NONE, jnp.int32))

  @classmethod
  def from_model_output(cls, value: jax.Array, **_: Any) -> 'Smallest':
    """Of one."""
    return cls(value)

  def merge(self, other: 'Smallest') -> 'Smallest':
    """Of both."""
    return type(self)(jnp.minimum(self.value, other.value))

  def compute(self) -> jax.Array:
    """The number, `i32[]`."""
    return self.value


@flax.struct.dataclass
class TrainMetrics(clu_metrics.Collection):
  """What a log row says of its updates: means, and the values last used.

  `smoothed` is the part of the updates with θ > 0, `next_theta` the θ of the
  update to come: together they say where in a row smoothing ended.
  `bad_update` is the first whose loss is not finite, counted from 1;
  `bad_array` the place in `jax.tree.leaves(state)` of the first array with a
  NaN or an infinity, after the last update. NONE where there is none.
  """

  loss: clu_metrics.Average.from_output('loss')
  hard_loss: clu_metrics.Average.from_output('hard_loss')
  accuracy: clu_metrics.Average.from_output('accuracy')
  theta: clu_metrics.LastValue.from_output('theta')
  next_theta: clu_metrics.LastValue.from_output('next_theta')
  smoothed: clu_metrics.Average.from_output('smoothed')
  learning_rate: clu_metrics.LastValue.from_output('learning_rate')
  bad_update: Smallest.from_output('bad_update')
  bad_array: Smallest.from_output('bad_array')


def train_step(
  state: TrainState, batch: Examples, *, axis_name: str | None = None
) -> tuple[TrainState, TrainMetrics]:
  """One update: θ is read from the optimiser, used in the loss, moved on.

  Args:
    state: the state before.
    batch: float images `[B, H, W, C]`, `i32[B]` labels and ŷ.
    axis_name: mapped axis whose devices each hold a part of the batch; every
      result is the mean over all of it.

  Returns:
    The state after, and the metrics of the update.

  Reference:
    Xu et al., arXiv:2006.11653, the TSLA algorithm: one step of either stage.
  """
  theta = smoothing.current_theta(state.opt_state)

  def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
    logits, updated = state.apply_fn(
      {'params': params, 'batch_stats': state.batch_stats},
      batch.images,
      train=True,
      mutable=['batch_stats'],
    )
    loss = smoothing.smoothed_cross_entropy(
      logits, batch.labels, theta, batch.y_hat
    )
    return loss.mean(), (logits, updated.get('batch_stats', {}))

  (loss, (logits, batch_stats)), grads = jax.value_and_grad(
    loss_fn, has_aux=True
  )(state.params)
  hard_loss = smoothing.hard_cross_entropy(logits, batch.labels).mean()
  accuracy = jnp.mean(logits.argmax(-1) == batch.labels)
  if axis_name is not None:
    grads, loss, hard_loss, accuracy = jax.lax.pmean(
      (grads, loss, hard_loss, accuracy), axis_name
    )
  updates, opt_state = state.tx.update(grads, state.opt_state, state.params)
  row = TrainMetrics.single_from_model_output(
    loss=loss,
    hard_loss=hard_loss,
    accuracy=accuracy,
    theta=theta,
    next_theta=smoothing.current_theta(opt_state),
    smoothed=theta > 0,
    learning_rate=jnp.asarray(state.learning_rate(state.step), jnp.float32),
    bad_update=jnp.where(jnp.isfinite(loss), NONE, state.step + 1),
    bad_array=jnp.full((), NONE, jnp.int32),  # looked for once a chunk
  )
  state = state.replace(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=batch_stats,
    opt_state=opt_state,
  )
  return state, row


def first_bad_array(state: TrainState) -> jax.Array:
  """i32[]: the first leaf that holds a NaN or an infinity, or NONE."""
  finite = jnp.array(
    [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]
  )
  return jnp.where(finite.all(), NONE, finite.argmin().astype(jnp.int32))


def eval_step(
  state: TrainState, batch: Examples, mask: jax.Array
) -> metrics.EvalSums:
  """Sums of every metric over the examples of `batch` where `mask`.

  No smoothing and no update: BatchNorm uses its running statistics.
  """
  logits = state.apply_fn(
    {'params': state.params, 'batch_stats': state.batch_stats},
    batch.images,
    train=False,
  )
  return metrics.batch_sums(logits, batch.labels, mask)


def make_train_chunk(
  config: ml_collections.ConfigDict,
  make_y_hat: Callable[[Any, jax.Array, jax.Array], jax.Array | None],
  *,
  axis_name: str | None = None,
) -> Callable[..., tuple[TrainState, TrainMetrics]]:
  """`chunk(state, examples, slots, length)`: `length` updates in one scan.

  The batch of an update is a function of (seed, state.step): shuffle, gather
  and augmentation happen here, on the device. `slots` are this device's places
  in the global batch. A chunk stays within one epoch. `make_y_hat` makes the ŷ
  of a batch of `examples.y_hat`, the augmented images and their indices.
  """
  dtype = jnp.dtype(config.model.dtype)

  def chunk(
    state: TrainState, examples: Examples, slots: jax.Array, length: int
  ) -> tuple[TrainState, TrainMetrics]:
    num_examples = len(examples.labels)
    epoch = state.step // batches.steps_per_epoch(
      num_examples, config.batch_size
    )
    order = batches.epoch_order(config.seed, epoch, num_examples)

    def body(
      carry: tuple[TrainState, TrainMetrics], _: None
    ) -> tuple[tuple[TrainState, TrainMetrics], None]:
      state, row = carry
      picked = batches.train_indices(
        order, state.step, slots, config.batch_size
      )
      images = augment.augment_train(
        examples.images[picked],
        augment.example_keys(config.seed, epoch, picked),
        pad=config.augment.pad,
        crop=config.augment.crop,
        flip=config.augment.flip,
      )
      images = augment.normalize(
        images, config.data.mean, config.data.std, dtype
      )
      batch = Examples(
        images,
        examples.labels[picked],
        make_y_hat(examples.y_hat, images, picked),
      )
      state, update = train_step(state, batch, axis_name=axis_name)
      return (state, row.merge(update)), None

    start = state, TrainMetrics.empty()
    (state, row), _ = jax.lax.scan(body, start, length=length)
    bad = Smallest(first_bad_array(state))
    return state, row.replace(bad_array=row.bad_array.merge(bad))

  return chunk


def make_evaluation(
  config: ml_collections.ConfigDict, *, axis_name: str | None = None
) -> Callable[..., metrics.EvalSums]:
  """`evaluate(state, examples, slots, batch_size)`: the sums over a whole set.

  `slots` are this device's places in a batch of evaluation; the last batch is
  padded and masked, so each example counts once.
  """
  dtype = jnp.dtype(config.model.dtype)

  def evaluate(
    state: TrainState, examples: Examples, slots: jax.Array, batch_size: int
  ) -> metrics.EvalSums:
    num_examples = len(examples.labels)

    def one_batch(index: jax.Array) -> metrics.EvalSums:
      picked, mask = batches.eval_indices(
        index, batch_size, slots, num_examples
      )
      images = augment.augment_eval(
        examples.images[picked], crop=config.augment.crop
      )
      batch = Examples(
        augment.normalize(images, config.data.mean, config.data.std, dtype),
        examples.labels[picked],
      )
      return eval_step(state, batch, mask)

    indices = jnp.arange(batches.num_eval_batches(num_examples, batch_size))
    per_batch = jax.lax.map(one_batch, indices)
    sums = jax.tree.map(lambda leaf: leaf.sum(0), per_batch)
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)

  return evaluate
