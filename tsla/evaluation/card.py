"""All figures of a network's card in a report."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tsla.evaluation import calibration, selective


def figures(own: calibration.Scores) -> dict[str, Any]:
  """`accuracy`, `nll`, `brier`, `calibration`'s and `selective_risk`'s."""
  return {
    'accuracy': float(own.correct.mean()),
    'nll': float(own.nll.mean()),
    'brier': float(own.brier.mean()),
    **calibration.calibration(own),
    **selective.selective_risk(own.confidence, own.correct),
  }


def card(
  logits: ArrayLike,
  labels: ArrayLike,
  validation: tuple[ArrayLike, ArrayLike] | None,
) -> dict[str, Any]:
  """All figures of a network on its test images, as trained and calibrated.

  Temperature, and p of the normalised logits (1 .. 8, by AURC), are chosen on
  the validation images alone.

  Args:
    logits: `[N, K]`, of the test images.
    labels: integers `[N]`, in 0 .. K - 1.
    validation: logits `[V, K]` and labels `[V]`; None: no calibration, p = 2.

  Returns:
    `as_trained`, `calibrated` (None without validation): as of `figures`;
    `temperature` (None likewise); `norm`; `normalized`: as of `selective_risk`.

  Raises:
    ValueError: as `calibration.scores`.

  Example:
    >>> found = card([[0.0, 2.0]], [1], ([[0.0, 2.0]] * 4, [1, 1, 1, 0]))
    >>> [round(found[x]['nll'], 3) for x in ('as_trained', 'calibrated')]
    [0.127, 0.288]
  """
  own = calibration.scores(logits, labels)
  temperature, calibrated, norm = None, None, 2
  if validation is not None:
    temperature = calibration.fit_temperature(*validation)
    calibrated = figures(calibration.scores(logits, labels, temperature))
    right = calibration.scores(*validation).correct
    areas = [_by_norm(validation[0], right, p)['aurc'] for p in range(1, 9)]
    norm = 1 + int(np.argmin(areas))
  return {
    'as_trained': figures(own),
    'calibrated': calibrated,
    'temperature': temperature,
    'norm': norm,
    'normalized': _by_norm(logits, own.correct, norm),
  }


def _by_norm(logits: ArrayLike, right: np.ndarray, norm: int) -> dict[str, Any]:
  confidence = selective.normalized_confidence(logits, norm)
  return selective.selective_risk(confidence, right)
