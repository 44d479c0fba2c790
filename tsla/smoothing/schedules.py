"""θ as a function of the update: how strong the smoothing is, and until when.

Every function here returns an optax schedule, `count -> f32[]`, and any other
optax schedule serves in its place; a `Method` says which θ make sense. `count`
is the number of updates done before this one, so the first gradient is taken at
count 0. Boundaries are in updates.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

_MAX_COUNT = 2**31 - 1  # optax counts in int32


def none() -> optax.Schedule:
  """No smoothing: θ = 0 at every update, the paper's baseline.

  Example:
    >>> float(none()(0))
    0.0
  """
  return constant(0.0)


def constant(theta: ArrayLike) -> optax.Schedule:
  """The same θ at every update: label smoothing regularisation (LSR).

  Args:
    theta: smoothing strength; may be traced.

  Raises:
    ValueError: theta is not a finite number.

  Example:
    >>> round(float(constant(0.1)(1000)), 6)
    0.1

  Reference:
    arXiv:2006.11653, LSR.
  """
  _check_theta('theta', theta)
  return _as_float32(optax.constant_schedule(theta))


def two_stage(theta: ArrayLike, drop_step: ArrayLike) -> optax.Schedule:
  """TSLA(s): θ while count < drop_step, then exactly 0.

  Args:
    theta: smoothing strength of stage one; may be traced.
    drop_step: first update without smoothing, an integer >= 0; may be traced.
      0 never smooths.

  Raises:
    ValueError: theta is not a finite number, or drop_step is negative or no
      integer.

  Example:
    >>> theta = two_stage(0.4, drop_step=100)
    >>> [round(float(theta(count)), 6) for count in (0, 99, 100, 101)]
    [0.4, 0.4, 0.0, 0.0]

  Reference:
    arXiv:2006.11653, the TSLA algorithm.
  """
  _check_theta('theta', theta)
  check_step('drop_step', drop_step, least=0)
  return _until(drop_step, optax.constant_schedule(theta))


def linear_decay(theta: ArrayLike, decay_steps: int) -> optax.Schedule:
  """θ·(1 − count/decay_steps), exactly 0 from decay_steps on.

  Args:
    theta: smoothing strength at count 0; may be traced.
    decay_steps: first update without smoothing, an integer >= 1.

  Raises:
    ValueError: theta is not a finite number, or decay_steps is no integer >= 1.

  Example:
    >>> theta = linear_decay(0.4, decay_steps=100)
    >>> [round(float(theta(count)), 6) for count in (0, 50, 100, 101)]
    [0.4, 0.2, 0.0, 0.0]
  """
  _check_theta('theta', theta)
  check_step('decay_steps', decay_steps, least=1)
  return _until(decay_steps, optax.linear_schedule(theta, 0.0, decay_steps))


def cosine_decay(theta: ArrayLike, decay_steps: int) -> optax.Schedule:
  """θ·(1 + cos(π·count/decay_steps))/2, exactly 0 from decay_steps on.

  Args:
    theta: smoothing strength at count 0; may be traced.
    decay_steps: first update without smoothing, an integer >= 1.

  Raises:
    ValueError: theta is not a finite number, or decay_steps is no integer >= 1.

  Example:
    >>> theta = cosine_decay(0.4, decay_steps=100)
    >>> [round(float(theta(count)), 6) for count in (0, 50, 100, 101)]
    [0.4, 0.2, 0.0, 0.0]
  """
  _check_theta('theta', theta)
  check_step('decay_steps', decay_steps, least=1)
  return _until(decay_steps, optax.cosine_decay_schedule(theta, decay_steps))


def linear_ramp(
  start: ArrayLike, end: ArrayLike, ramp_steps: int
) -> optax.Schedule:
  """θ from `start` to `end` in a straight line, exactly `end` from there on.

  It may rise, from 0 too, fall, or cross 0.

  Args:
    start: smoothing strength at count 0; may be traced.
    end: smoothing strength from count ramp_steps on; may be traced.
    ramp_steps: first update with `end`, an integer >= 1.

  Raises:
    ValueError: start or end is not a finite number, or ramp_steps is no integer
      >= 1.

  Example:
    >>> theta = linear_ramp(0.1, 0.2, ramp_steps=100)
    >>> [round(float(theta(count)), 6) for count in (0, 50, 100, 101)]
    [0.1, 0.15, 0.2, 0.2]
  """
  _check_theta('start', start)
  _check_theta('end', end)
  check_step('ramp_steps', ramp_steps, least=1)
  ramp = optax.linear_schedule(start, end, ramp_steps)
  return _until(ramp_steps, ramp, end)


def piecewise(
  thetas: Sequence[ArrayLike], boundaries: Sequence[ArrayLike]
) -> optax.Schedule:
  """Several stages: θ_i while boundaries[i−1] <= count < boundaries[i].

  θ may fall or rise from stage to stage.

  Args:
    thetas: smoothing strength of each stage; may be traced.
    boundaries: first update of each stage after the first, strictly increasing
      integers >= 0, one fewer than thetas; may be traced.

  Raises:
    ValueError: a theta is not a finite number, the lengths do not match, or the
      boundaries are not strictly increasing integers.

  Example:
    >>> theta = piecewise((0.0, 0.2, 0.1), boundaries=(10, 20))
    >>> [round(float(theta(count)), 6) for count in (9, 10, 19, 20)]
    [0.0, 0.2, 0.2, 0.1]
  """
  if len(thetas) != len(boundaries) + 1:
    raise ValueError(
      f'thetas = {thetas!r} has {len(thetas)} stages and boundaries = '
      f'{boundaries!r} has {len(boundaries)}: it must have one fewer.'
    )
  for i, theta in enumerate(thetas):
    _check_theta(f'thetas[{i}]', theta)
  least = 0
  for i, boundary in enumerate(boundaries):
    check_step(f'boundaries[{i}]', boundary, least=least)
    if not isinstance(boundary, jax.core.Tracer):
      least = int(np.asarray(boundary)) + 1
  stages = [optax.constant_schedule(theta) for theta in thetas]
  return _as_float32(optax.join_schedules(stages, boundaries))


def _until(
  step: ArrayLike, schedule: optax.Schedule, then: ArrayLike = 0.0
) -> optax.Schedule:
  # Joined with a constant, not left to end there: compiled, count/steps is
  # count·(1/steps), which misses 1 by a rounding for some step counts.
  stages = [schedule, optax.constant_schedule(then)]
  return _as_float32(optax.join_schedules(stages, [step]))


def _as_float32(schedule: optax.Schedule) -> optax.Schedule:
  return lambda count: jnp.asarray(schedule(count), jnp.float32)


def _check_theta(name: str, theta: ArrayLike) -> None:
  if isinstance(theta, jax.core.Tracer):
    return
  value = np.asarray(theta)  # NumPy: a comparison in JAX is traced under jit
  kinds = jnp.floating, jnp.integer
  is_real = any(jnp.issubdtype(value.dtype, kind) for kind in kinds)
  if not (value.ndim == 0 and is_real and np.isfinite(value)):
    raise ValueError(f'{name} = {theta!r} must be a finite number.')


def check_step(name: str, step: ArrayLike, *, least: int) -> None:
  """Raises ValueError unless `step` is traced, or an integer >= `least`."""
  if isinstance(step, jax.core.Tracer):
    return
  try:
    valid = least <= operator.index(step) <= _MAX_COUNT  # type: ignore[arg-type]
    valid &= np.asarray(step).dtype != bool
  except TypeError:
    valid = False
  if not valid:
    raise ValueError(
      f'{name} = {step!r} must be an integer in [{least}, {_MAX_COUNT}].'
    )
