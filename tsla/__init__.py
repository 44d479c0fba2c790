"""TSLA: label smoothing that is dropped on time, for JAX and optax.

This page is what a training loop of your own needs: the loss, the schedules of
θ, the smoothing labels and the optax transformation that owns θ, all that
`tsla.smoothing` exports. The first name asked for loads JAX and optax, nothing
else; `import tsla` alone loads neither, so that `tsla --help` answers at once.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from tsla.smoothing import *  # noqa: F403

__version__ = '0.1.0'


def __getattr__(name: str) -> object:
  """A name of `tsla.smoothing`, which is imported on the way."""
  smoothing = importlib.import_module('tsla.smoothing')
  if name == 'smoothing':
    return smoothing
  if name == '__all__' or name in smoothing.__all__:
    return getattr(smoothing, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted({*globals(), *__getattr__('__all__')})
