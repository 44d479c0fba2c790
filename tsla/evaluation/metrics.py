"""Metrics of a classifier: sums over examples, and one division at the end.

`batch_sums` runs on the device, in any number of batches; `jax.lax.psum` adds
its sums over devices, and `finalize` adds those of all batches on the host in
float64 and divides once. So every example weighs the same, whatever the batch
size. (`jax.tree.map(jnp.add, a, b)` adds in float32, which drifts over 10⁵
batches.)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsla.smoothing.losses import hard_cross_entropy, leading, zero_masked

NUM_BINS = 15


class EvalSums(NamedTuple):
  """What has been seen so far; counts are integers.

  A float32 count would stand still at 2**24 examples. Of many batches every
  leaf has more axes in front, as `jax.lax.map` stacks them.
  """

  count: jax.Array  # i32[]
  top1: jax.Array  # i32[]
  top5: jax.Array  # i32[]
  nll: jax.Array  # f32[]
  brier: jax.Array  # f32[]
  bin_count: jax.Array  # i32[NUM_BINS]
  bin_correct: jax.Array  # i32[NUM_BINS]
  bin_confidence: jax.Array  # f32[NUM_BINS]
  own: Mapping[str, jax.Array] = {}  # f32[] each, of metrics of one's own


# (logits f32[B, K], labels i32[B]) -> {name: f32[B]}: the mean of each over the
# examples is a metric.
Metrics = Callable[[jax.Array, jax.Array], Mapping[str, jax.Array]]


def batch_sums(
  logits: jax.Array,
  labels: jax.Array,
  mask: jax.Array,
  own: Metrics | None = None,
) -> EvalSums:
  """Sums every metric over the examples of a batch that count.

  With `p = softmax(logits)` and the label `y` of an example:

  - top-k: `rank < k`, where the rank of `y` is the number of classes with a
    greater logit, or with an equal one and a smaller index. A constant model
    therefore gets the accuracy of class 0, not 100 %.
  - negative log-likelihood: `-log p_y`, in nats.
  - Brier score: `sum_k (p_k - [k = y])**2` over all classes, 0 .. 2.
  - calibration: `NUM_BINS` bins `(m / 15, (m + 1) / 15]` of the confidence
    `max_k p_k`, each with its count, hits (top-1) and summed confidence.

  A NaN logit, or a label outside 0 .. K - 1, is wrong in top-1 and top-5 and
  makes `nll` NaN; the logit does so to the Brier score and the calibration too.

  Args:
    logits: `f32[B, K]`, before the softmax; `f32[B, T, K]` of sequences, whose
      places count as examples.
    labels: `i32[B]`, in 0 .. K - 1.
    mask: `bool[B]`, false for padding, whose logits and labels may be anything;
      of sequences `[B, T]` or `[B]`. Numbers must be 0 and 1: others, which
      would be weights, make `nll` NaN where they are traced.
    own: metrics of one's own, summed beside these.

  Raises:
    ValueError: a mask of another shape, or that holds a weight; a metric of
      one's own that is called as one of these.

  Example:
    >>> logits = jnp.array([[2.0, 0.0], [2.0, 0.0]])
    >>> sums = batch_sums(logits, jnp.array([0, 1]), jnp.array([True, False]))
    >>> sums.count.item(), sums.top1.item()
    (1, 1)

  Reference:
    Brier, Verification of forecasts expressed in terms of probability,
    Monthly Weather Review 78 (1950). Guo et al., On calibration of modern
    neural networks, arXiv 1706.04599, section 2.
  """
  # Garbage in the padding is computed with; every sum below leaves it out.
  logits, lead = logits.astype(jnp.float32), tuple(range(logits.ndim - 1))
  classes = jnp.expand_dims(jnp.arange(logits.shape[-1]), lead)
  label = labels.astype(classes.dtype)[..., None]
  mask = counted = leading('mask', mask, logits.shape[:-1], logits.shape)
  if mask.dtype != jnp.bool_:
    weighs = (mask != 0) & (mask != 1)
    if not isinstance(weighs, jax.core.Tracer) and weighs.any():
      raise ValueError(
        f'mask holds {mask[weighs][0]}: batch_sums counts, so it must be bool.'
      )
    counted = jnp.where(weighs, jnp.nan, mask.astype(jnp.float32))
    mask = mask.astype(bool)
  is_label = classes == label
  label_logit = jnp.sum(logits, -1, keepdims=True, where=is_label)
  ahead = (logits > label_logit) | ((logits == label_logit) & (classes < label))
  rank = jnp.sum(ahead, -1)
  rankable = mask & is_label.any(-1) & ~jnp.isnan(logits).any(-1)
  top1 = rankable & (rank < 1)

  probabilities = jax.nn.softmax(logits)
  confidence = probabilities.max(-1, keepdims=True)
  edges = jnp.arange(1, NUM_BINS, dtype=jnp.float32) / NUM_BINS
  bins = jnp.sum(confidence > jnp.expand_dims(edges, lead), -1, keepdims=True)
  in_bin = bins == jnp.expand_dims(jnp.arange(NUM_BINS, dtype=bins.dtype), lead)
  in_bin &= mask[..., None]  # bool[B, NUM_BINS]
  brier = jnp.sum((probabilities - is_label.astype(jnp.float32)) ** 2, -1)

  found = _own(own(logits, labels) if own else {})

  def count(hits: jax.Array) -> jax.Array:
    return jnp.sum(hits, lead, dtype=jnp.int32)

  return EvalSums(
    count=count(mask),
    top1=count(top1),
    top5=count(rankable & (rank < 5)),
    nll=jnp.sum(hard_cross_entropy(logits, labels, where=counted)),
    brier=jnp.sum(brier, where=mask),
    bin_count=count(in_bin),
    bin_correct=count(in_bin & top1[..., None]),
    bin_confidence=jnp.sum(jnp.where(in_bin, confidence, 0.0), lead),
    own={n: jnp.sum(zero_masked(x, mask)) for n, x in found.items()},
  )


def finalize(sums: EvalSums) -> dict[str, float]:
  """Adds the sums and divides by their count, on the host in float64.

  The expected calibration error is
  `sum_m |bin_correct_m - bin_confidence_m| / count`.

  Args:
    sums: the sums over the whole evaluation set, or those of its batches in
      leaves with more axes in front: what `jax.lax.scan` stacks, or
      `jax.tree.map(lambda *leaves: jnp.stack(leaves), *list_of_sums)`.

  Returns:
    `top1`, `top5` (1 where K <= 5) and `ece` as fractions in 0 .. 1; `nll` in
    nats; `brier` in 0 .. 2; `count`, the number of examples; the metrics of
    one's own.

  Raises:
    ValueError: if no example was counted, or a metric of one's own is called
      as one of these.

  Example:
    >>> logits = jnp.array([[2.0, 0.0], [2.0, 0.0]])
    >>> sums = batch_sums(logits, jnp.array([0, 1]), jnp.array([True, True]))
    >>> finalize(sums)['top1']
    0.5

  Reference:
    Guo et al., arXiv 1706.04599, equation 3.
  """
  batches = tuple(range(np.ndim(sums.count)))
  host = jax.tree.map(lambda x: np.asarray(x, np.float64).sum(batches), sums)
  if host.count == 0:
    raise ValueError('EvalSums.count = 0: no example was evaluated')
  gaps = np.abs(host.bin_correct - host.bin_confidence)
  return {
    'top1': float(host.top1 / host.count),
    'top5': float(host.top5 / host.count),
    'nll': float(host.nll / host.count),
    'brier': float(host.brier / host.count),
    'ece': float(gaps.sum() / host.count),
    'count': float(host.count),
    **{n: float(value / host.count) for n, value in _own(host.own).items()},
  }


def _own(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
  if taken := sorted({'ece', *EvalSums._fields[:5]} & set(metrics)):
    raise ValueError(f"A metric of one's own may not be called {taken[0]!r}.")
  return metrics
