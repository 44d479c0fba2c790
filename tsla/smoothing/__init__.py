"""Label smoothing and its schedule: pure JAX and optax.

`schedules` say how strong (θ), `targets` say towards what (ŷ), `losses` apply
both, `transform` moves θ on with the optimiser, `variance` and `last_layer`
measure what it does to the gradient's error, and `auto` drops it by what the
`rules` say of that.

Reference:
  Xu, Xu, Qian, Li, Jin: Towards Understanding Label Smoothing,
  arXiv:2006.11653.
"""

from tsla.smoothing.auto import (
  AutoState,
  AutoTwoStage,
  adaptive_smoothing,
  auto_two_stage,
  observe,
  with_schedule,
)
from tsla.smoothing.estimates import Estimate, GradientStatistics
from tsla.smoothing.last_layer import last_layer_statistics
from tsla.smoothing.losses import (
  convert_theta,
  hard_cross_entropy,
  smoothed_cross_entropy,
  smoothed_kl,
  smoothed_sigmoid_cross_entropy,
)
from tsla.smoothing.method import Method, Seen, Target, Task, penalised
from tsla.smoothing.methods import METHODS
from tsla.smoothing.momentum import reset_momentum
from tsla.smoothing.rules import NAMES as RULE_NAMES
from tsla.smoothing.rules import RULES, Memory, Observation, Rule, rule_number
from tsla.smoothing.schedules import (
  constant,
  cosine_decay,
  linear_decay,
  linear_ramp,
  none,
  piecewise,
  two_stage,
)
from tsla.smoothing.targets import (
  class_prior,
  class_similarity,
  teacher,
  uniform,
)
from tsla.smoothing.transform import (
  LabelSmoothingState,
  current_theta,
  label_smoothing,
  smoothing_state,
)
from tsla.smoothing.variance import gradient_statistics

__all__ = [
  'METHODS',
  'RULES',
  'RULE_NAMES',
  'AutoState',
  'AutoTwoStage',
  'Estimate',
  'GradientStatistics',
  'LabelSmoothingState',
  'Memory',
  'Method',
  'Observation',
  'Rule',
  'Seen',
  'Target',
  'Task',
  'adaptive_smoothing',
  'auto_two_stage',
  'class_prior',
  'class_similarity',
  'constant',
  'convert_theta',
  'cosine_decay',
  'current_theta',
  'gradient_statistics',
  'hard_cross_entropy',
  'label_smoothing',
  'last_layer_statistics',
  'linear_decay',
  'linear_ramp',
  'none',
  'observe',
  'penalised',
  'piecewise',
  'reset_momentum',
  'rule_number',
  'smoothed_cross_entropy',
  'smoothed_kl',
  'smoothed_sigmoid_cross_entropy',
  'smoothing_state',
  'teacher',
  'two_stage',
  'uniform',
  'with_schedule',
]
