"""TSLA: label smoothing that is dropped on time, for JAX and optax.

All that `tsla.smoothing` exports is here, for a training loop of your own: the
loss, the schedules of θ, the smoothing labels and the optax transformation that
owns θ; `tsla.metrics` sums what an evaluation counts. `import tsla` alone loads
no JAX, so that `tsla --help` answers at once.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from tsla.evaluation import metrics as metrics
  from tsla.smoothing import *  # noqa: F403

__version__ = '0.1.0'


def __getattr__(name: str) -> object:
  """`metrics`, or a name of `tsla.smoothing`, imported on the way."""
  if name == 'metrics':
    return importlib.import_module('tsla.evaluation.metrics')
  smoothing = importlib.import_module('tsla.smoothing')
  if name == 'smoothing':
    return smoothing
  if name == '__all__' or name in smoothing.__all__:
    return getattr(smoothing, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted({*globals(), *__getattr__('__all__')})
