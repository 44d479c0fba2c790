"""Selective prediction: how wrong a network is that may abstain."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def selective_risk(confidence: ArrayLike, correct: ArrayLike) -> dict[str, Any]:
  """The risk-coverage curve, the area under it, and that of Traub et al.

  `E_k` is the number of errors among the k surest of N images, averaged over
  the orders of equally sure ones. `AURC = mean_k E_k / k`. AUGRC is the area
  under `E_k / N` by trapezoids from 0: `(1 - AUROC) a (1 - a) + (1 - a)**2 / 2`
  with the accuracy a. Only the order of the confidences counts.

  Returns:
    `coverage`, `k / N`, and `risk`, `E_k / k`, `f64[N]`; `aurc`, 0 .. 1, and
    `augrc`, 0 .. 1/2; `aurc_error`, `augrc_error`: one standard error by the
    jackknife over images, which speaks of other test images, not of other
    seeds; NaN for one image.

  Example:
    >>> selective_risk([0.8, 0.7, 0.6], [True, False, True])['risk'].tolist()
    [0.0, 0.5, 0.3333333333333333]

  Reference:
    Geifman, El-Yaniv, arXiv 1705.08500. Traub et al., arXiv 2407.01032. Efron,
    Stein, The jackknife estimate of variance, Ann. Stat. 9 (1981).
  """
  wrong = ~np.asarray(correct, bool)
  n, k = len(wrong), np.arange(1, len(wrong) + 1)
  doubt = np.negative(confidence)
  _, tie, sizes = np.unique(doubt, return_inverse=True, return_counts=True)
  ends, errors = np.cumsum(sizes), np.bincount(tie, wrong)
  upto = np.append(0, np.cumsum(errors))
  found = np.interp(k, np.append(0, ends), upto)
  total = found.sum() - found[-1] / 2
  # Without an image: the surer ones stay, those tied with it have one place
  # less, the others move up by one.
  before, others, end = upto[tie], errors[tie] - wrong, ends[tie]
  size, start = sizes[tie], end - sizes[tie]
  parts = 1 / k, found / k, found[1:] / k[:-1]
  harmonic, area, moved = (np.append(0, np.cumsum(x)) for x in parts)
  rest = harmonic[end - 1] - harmonic[start]
  areas = area[start] + before * rest + moved[-1] - moved[end - 1]
  areas += others * (1 - start * rest / np.maximum(size - 1, 1)) * (size > 1)
  areas -= wrong * (harmonic[n - 1] - harmonic[end - 1])
  totals = total - wrong * (n - start - size / 2) - before - others / 2
  m = n - 1 or np.nan
  return {
    'coverage': k / n,
    'risk': found / k,
    'aurc': float(area[-1] / n),
    'aurc_error': float(np.sqrt((n - 1) * (areas / m).var())),
    'augrc': float(total / n**2),
    'augrc_error': float(np.sqrt((n - 1) * (totals / m**2).var())),
  }


def normalized_confidence(logits: ArrayLike, norm: int) -> np.ndarray:
  """The greatest logit over the norm of all: it mends what smoothing broke.

  `max_k c_k / |c|_p` of each image, with p = `norm` and `c = z - mean z` over
  the possible classes (those not -inf): `[N, K]` to `f64[N]`, 0 .. 1. It knows
  no temperature; with K = 2 it is the same for all images, and with p = 1 for
  all with one logit above the mean.

  Example:
    >>> normalized_confidence([[3.0, 0.0, 0.0]], 1).tolist()
    [0.5]

  Reference:
    Xia et al., arXiv 2403.14715, section 5. Cattelan, Silva, arXiv 2305.15508.
  """
  rows = np.asarray(logits, np.float64)
  finite = np.isfinite(rows)
  rows = rows - rows.mean(1, keepdims=True, where=finite)
  rows = np.where(finite, rows, 0.0)
  rows /= np.abs(rows).max(1, keepdims=True, initial=1e-300)
  powers = np.maximum((np.abs(rows) ** norm).sum(1), 1)
  # Equal ones stay equal: rounding would put them in an order.
  return np.round(rows.max(1) / powers ** (1 / norm), 12)
