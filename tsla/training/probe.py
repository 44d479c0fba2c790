"""The gradient's variance, bias and best θ, measured while a run trains.

At fixed weights, on the same mini-batches of the training set each time, the
gradients of the method's loss at θ = 0 and θ = 1 are compared at the batch size
of the run: `tsla.smoothing.variance` says what comes of it. The training set,
each image under one augmentation, is the finite population that they are drawn
from without replacement. The seed decides what is drawn and how augmented.

BatchNorm normalises by its running statistics, which stay as they are: the
gradient of a mini-batch is then the mean of its examples', as the theory has
it. (By the batch's own statistics the examples would see each other, and the
gradient of a mini-batch would estimate another function for every size.)
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsla import smoothing
from tsla.data import batches
from tsla.data.pipeline import View
from tsla.evaluation.metrics import EvalSums
from tsla.smoothing.auto import auto_state
from tsla.smoothing.estimates import GradientStatistics
from tsla.smoothing.method import Loss, logit_gradients
from tsla.smoothing.rules import Rule
from tsla.training import optimizer, step

if TYPE_CHECKING:  # else jax, flax and optax suffice
  from tsla.config.schema import Section

# A pass over the data that no run comes to: epochs are fewer than updates.
EPOCH = 2**31 - 1


class Inputs(NamedTuple):
  """What a probe reads and does not change."""

  train: step.Inputs
  # Of examples that are fed what an evaluation has found of them.
  held_out: step.Examples | EvalSums | None
  decision: dict[str, np.ndarray]


class Probed(NamedTuple):
  """What a probe found."""

  statistics: GradientStatistics
  theta: jax.Array  # f32[], the θ in use
  dropped: jax.Array  # bool[], whether a rule has ended smoothing
  firings: dict[str, jax.Array]  # i32[] each, how often in a row a rule fired
  held_out_loss: jax.Array  # f32[], NaN without held-out examples

  def compute(self) -> dict[str, np.ndarray]:
    """One number a name, as a log row has them; on the host."""
    values = {'theta': self.theta, 'dropped': self.dropped}
    for name, estimate in self.statistics._asdict().items():
      values |= {name: estimate.value, f'{name}_error': estimate.error}
    values |= {f'rule_{name}': times for name, times in self.firings.items()}
    values['held_out_loss'] = self.held_out_loss
    return {name: np.float32(value) for name, value in values.items()}


def decision(
  rule: str,
  rules: Mapping[str, Rule],
  method: smoothing.Method,
  *,
  min_step: int,
  patience: int,
) -> dict[str, np.ndarray]:
  """What a config puts in force, for `smoothing.observe`; rule '': nothing.

  Arrays, so that all rules are one compiled program.
  """
  return {
    'rule': np.int32(smoothing.rule_number(rule, rules)),
    'min_step': np.int32(min_step),
    'patience': np.int32(patience),
    'lowest': np.float32(method.lowest),
    'highest': np.float32(method.highest),
  }


def make_probe(
  apply: step.Apply,
  view: View,
  method: smoothing.Method,
  target: smoothing.Target,
  rules: Mapping[str, Rule],
  options: 'Section',
  *,
  batch_size: int,
  axis_name: str | None = None,
) -> Callable[..., tuple[step.TrainState, Probed]]:
  """`probe(state, inputs, slots, num_batches)`: measures, and decides.

  The state comes back with what the observation left in its optimiser's part.
  `options` is the section `variance`, `rules` are those of the optimiser.
  """
  evaluate = step.make_evaluation(apply, view, axis_name=axis_name)
  epoch = EPOCH if options.augment else None
  if options.mode == 'exact':
    look = partial(_gradient_pair, apply, method.loss, axis_name)
    measure = partial(smoothing.gradient_statistics, batch_size=batch_size)
  else:
    look = partial(_last_layer, apply)
    measure = partial(
      smoothing.last_layer_statistics,
      loss=method.loss,
      at_batch_size=batch_size,
      axis_name=axis_name,
    )

  def probe(
    state: step.TrainState,
    inputs: Inputs,
    slots: jax.Array | step.Fed,
    num_batches: int,
  ) -> tuple[step.TrainState, Probed]:
    train, theta = inputs.train, smoothing.current_theta(state.opt_state)
    count = len(train.examples.labels)
    fed = slots
    if not isinstance(slots, step.Fed):
      order = batches.epoch_order(train.seed, EPOCH, count)
      places = jnp.arange(num_batches)[:, None] * batch_size + slots
      fed = step.Fed(order[places])

    def look_at(fed: step.Fed) -> tuple[Any, ...]:
      batch = step.make_batch(view, target, state, train, fed, epoch)
      return look(state, batch)

    statistics = measure(look_at, fed, theta, num_examples=count)
    # They ask about θ = 1, which only mixtures of labels know.
    speaks = jnp.where(method.mixture & (theta >= 0), 0, jnp.nan)
    delta, theta_paper = jax.tree.map(
      lambda x: speaks + x, (statistics.delta, statistics.theta_paper)
    )
    statistics = statistics._replace(delta=delta, theta_paper=theta_paper)
    loss = jnp.float32(jnp.nan)
    if (sums := inputs.held_out) is not None:
      if isinstance(sums, step.Examples):
        sums = evaluate(state, sums, slots, batch_size)
      loss = sums.nll.sum() / sums.count.sum()
    seen = smoothing.Observation(statistics, loss)
    schedule = optimizer.from_tables(train.tables).theta
    opt_state = smoothing.observe(
      state.opt_state, seen, schedule, rules=rules, **inputs.decision
    )
    auto = auto_state(opt_state)
    dropped = auto.smoothing.count >= auto.memory.drop_step
    found = Probed(statistics, theta, dropped, auto.memory.firings, loss)
    return state.replace(opt_state=opt_state), found

  return probe


def _gradient_pair(
  apply: step.Apply,
  loss: Loss,
  axis_name: str | None,
  state: step.TrainState,
  batch: step.Batch,
) -> tuple[Any, Any]:
  """At θ = 0 and 1, of all parameters: one forward pass, two backward."""

  def forward(params: Any) -> jax.Array:
    variables = state.variables | {'params': params}
    return apply(variables, batch.images, train=False)

  logits, pull = jax.vjp(forward, state.params)
  rows = logit_gradients(loss, logits, batch.labels, batch.y_hat)
  pair = tuple(pull(r / len(batch.labels))[0] for r in rows)
  return pair if axis_name is None else jax.lax.pmean(pair, axis_name)


def _last_layer(
  apply: step.Apply, state: step.TrainState, batch: step.Batch
) -> tuple[jax.Array, ...]:
  """What the gradients of the last layer follow from."""
  logits, sown = apply(
    state.variables, batch.images, train=False, mutable=['intermediates']
  )
  (features,) = sown['intermediates']['features']
  return features, logits, batch.labels, batch.y_hat
