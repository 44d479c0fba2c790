"""TSLA: label smoothing that is dropped on time, for JAX and optax.

This page is what a training loop of your own needs; `import tsla` loads JAX and
optax, nothing else. The loss, the schedules of θ, the smoothing labels and the
optax transformation that owns θ come from `tsla.smoothing`.
"""

from tsla.smoothing import (
  LabelSmoothingState,
  class_prior,
  constant,
  convert_theta,
  cosine_decay,
  current_theta,
  hard_cross_entropy,
  label_smoothing,
  linear_decay,
  none,
  piecewise,
  smoothed_cross_entropy,
  smoothed_kl,
  smoothing_state,
  teacher,
  two_stage,
  uniform,
)

__version__ = '0.1.0'

__all__ = [
  'LabelSmoothingState',
  '__version__',
  'class_prior',
  'constant',
  'convert_theta',
  'cosine_decay',
  'current_theta',
  'hard_cross_entropy',
  'label_smoothing',
  'linear_decay',
  'none',
  'piecewise',
  'smoothed_cross_entropy',
  'smoothed_kl',
  'smoothing_state',
  'teacher',
  'two_stage',
  'uniform',
]
