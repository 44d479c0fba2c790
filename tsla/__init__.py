"""TSLA: label smoothing that is dropped on time, for JAX and optax.

This page is what a training loop of your own needs; `import tsla` loads JAX and
optax, nothing else. The loss, the schedules of θ, the smoothing labels and the
optax transformation that owns θ come from `tsla.smoothing`.
"""

from tsla.smoothing import *  # noqa: F403
from tsla.smoothing import __all__ as __all__

__version__ = '0.1.0'
