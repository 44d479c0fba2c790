"""The gradient's variance, bias and best θ, measured while a run trains.

At fixed weights, on the same mini-batches of the training set each time, the
gradients of the method's loss at θ = 0 and θ = 1 are compared at the batch size
of the run: `tsla.smoothing.variance` says what comes of it. The subset, and how
it is augmented, are functions of the run's seed.

BatchNorm normalises by its running statistics, which stay as they are: the
gradient of a mini-batch is then the mean of its examples', as the theory has
it. (By the batch's own statistics the examples would see each other, and the
gradient of a mini-batch would estimate another function for every size.)

The training set, each image under one fixed augmentation, is the finite
population that the mini-batches are drawn from without replacement.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsla import smoothing
from tsla.data import batches
from tsla.data.pipeline import View, clean_view, train_view
from tsla.smoothing.auto import auto_state
from tsla.smoothing.estimates import Estimate, GradientStatistics
from tsla.smoothing.method import logit_gradients
from tsla.smoothing.rules import Rule
from tsla.training import optimizer, step

if TYPE_CHECKING:  # else jax, flax and optax suffice
  from tsla.config.schema import Section

# A pass over the data that no run comes to: epochs are fewer than updates.
_EPOCH = 2**31 - 1


class Decision(NamedTuple):
  """What is in force: arrays, so that all rules are one compiled program."""

  rule: np.ndarray  # i32[], its `smoothing.rule_number`
  min_step: np.ndarray  # i32[]
  patience: np.ndarray  # i32[]
  lowest: np.ndarray  # f32[]
  highest: np.ndarray  # f32[]


class Inputs(NamedTuple):
  """What a probe reads and does not change."""

  train: step.Inputs
  held_out: step.Examples | None
  decision: Decision


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
) -> Decision:
  """What a config puts in force; rule '': nothing is decided."""
  return Decision(
    np.int32(smoothing.rule_number(rule, rules)),
    np.int32(min_step),
    np.int32(patience),
    np.float32(method.lowest),
    np.float32(method.highest),
  )


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

  The state that comes back is the one that went in, but for what the
  observation left in its optimiser's part. `options` is the section `variance`
  of a config, `rules` are those of the optimiser; the other arguments are as of
  `step.make_train_chunk`.
  """
  evaluate = step.make_evaluation(apply, view, axis_name=axis_name)

  def measure(
    state: step.TrainState,
    inputs: step.Inputs,
    picked: jax.Array,
    theta: jax.Array,
  ) -> GradientStatistics:
    examples = inputs.examples
    num_examples = len(examples.labels)

    def make_batch(indices: jax.Array) -> step.Batch:
      images = examples.images[indices]
      if options.augment:
        images = train_view(view, images, inputs.seed, _EPOCH, indices)
      else:
        images = clean_view(view, images)
      labels = examples.labels[indices]
      seen = smoothing.Seen(labels, indices, images)
      y_hat = target.y_hat(inputs.target, state.target, seen)
      return step.Batch(images, labels, y_hat)

    def gradient_pair(indices: jax.Array) -> tuple[Any, Any]:
      """Of all parameters: one forward pass and two backward passes."""
      batch = make_batch(indices)
      logits, pull = jax.vjp(
        lambda params: apply(
          state.variables | {'params': params}, batch.images, train=False
        ),
        state.params,
      )
      pair = tuple(
        pull(r / len(indices))[0]
        for r in logit_gradients(method.loss, logits, batch.labels, batch.y_hat)
      )
      return pair if axis_name is None else jax.lax.pmean(pair, axis_name)

    def forward(indices: jax.Array) -> tuple[jax.Array, ...]:
      """What the gradients of the last layer follow from."""
      batch = make_batch(indices)
      logits, sown = apply(
        state.variables, batch.images, train=False, mutable=['intermediates']
      )
      (features,) = sown['intermediates']['features']
      return features, logits, batch.labels, batch.y_hat

    if options.mode == 'exact':
      return smoothing.gradient_statistics(
        *(gradient_pair, picked, theta),
        batch_size=batch_size,
        num_examples=num_examples,
      )
    return smoothing.last_layer_statistics(
      *(forward, picked, theta),
      loss=method.loss,
      at_batch_size=batch_size,
      num_examples=num_examples,
      axis_name=axis_name,
    )

  def probe(
    state: step.TrainState, inputs: Inputs, slots: jax.Array, num_batches: int
  ) -> tuple[step.TrainState, Probed]:
    num_examples = len(inputs.train.examples.labels)
    order = batches.epoch_order(inputs.train.seed, _EPOCH, num_examples)
    picked = order[jnp.arange(num_batches)[:, None] * batch_size + slots]
    theta = smoothing.current_theta(state.opt_state)
    statistics = measure(state, inputs.train, picked, theta)
    # They ask about θ = 1, which only mixtures of labels know.
    speaks = jnp.where(method.mixture & (theta >= 0), 0, jnp.nan)
    statistics = statistics._replace(
      delta=Estimate(*(speaks + x for x in statistics.delta)),
      theta_paper=Estimate(*(speaks + x for x in statistics.theta_paper)),
    )
    held_out_loss = jnp.float32(jnp.nan)
    if inputs.held_out is not None:
      sums = evaluate(state, inputs.held_out, slots, batch_size)
      held_out_loss = sums.nll / sums.count
    opt_state = smoothing.observe(
      state.opt_state,
      smoothing.Observation(statistics, held_out_loss),
      optimizer.from_tables(inputs.train.tables).theta,
      rules=rules,
      **inputs.decision._asdict(),
    )
    auto = auto_state(opt_state)
    found = Probed(
      statistics=statistics,
      theta=theta,
      dropped=auto.smoothing.count >= auto.memory.drop_step,
      firings=auto.memory.firings,
      held_out_loss=held_out_loss,
    )
    return state.replace(opt_state=opt_state), found

  return probe
