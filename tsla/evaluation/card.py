"""The figures of a network's card in a report."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from tsla.evaluation import calibration, selective


def figures(own: calibration.Scores) -> dict[str, Any]:
  """`top1`, `nll`, `brier`, `calibration`'s and `selective_risk`'s.

  `NAME_by_image`, `[N]`, is what each image adds to a mean of that name.
  """
  return {
    'top1_by_image': own.correct,
    'nll_by_image': own.nll,
    'brier_by_image': own.brier,
    'squared_error_by_image': calibration.squared_error_shares(own),
    'top1': float(own.correct.mean()),
    'nll': float(own.nll.mean()),
    'brier': float(own.brier.mean()),
    **calibration.calibration(own),
    **selective.selective_risk(own.confidence, own.correct),
  }


def normalized(
  test: Mapping[str, ArrayLike], validation: Mapping[str, ArrayLike] | None
) -> dict[str, Any]:
  """Selective prediction with normalised logits.

  Args:
    test: `logits`, `[N, K]`, and `labels`, integers `[N]` in 0 .. K - 1.
    validation: the same of validation images; None: p = 2.

  Returns:
    `norm`, the p of 1 .. 8 with the least AURC on the validation images alone,
    and what `selective_risk` finds with it.

  Example:
    >>> data = {'logits': [[0.0, 2.0], [1.0, 0.0]], 'labels': [1, 1]}
    >>> normalized(data, None)['aurc']
    0.5
  """

  def by(norm: int, said: Mapping[str, ArrayLike]) -> dict[str, Any]:
    right = calibration.scores(said['logits'], said['labels']).correct
    confidence = selective.normalized_confidence(said['logits'], norm)
    return selective.selective_risk(confidence, right)

  norm = 2
  if validation is not None:
    norm = min(range(1, 9), key=lambda p: by(p, validation)['aurc'])
  return {'norm': norm, **by(norm, test)}
