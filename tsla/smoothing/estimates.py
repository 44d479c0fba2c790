"""From the scalar products of m mini-batches to estimates with errors.

`tsla.smoothing.variance` says what the quantities mean. Here `ġ_i = g_i − ḡ`
and `ċ_i = c_i − c̄`, with `c = h − g` in place of h, so that

  ρ = σ² + E⟨ġ, ċ⟩,   m(θ) = σ² + 2θ·E⟨ġ, ċ⟩ + θ²·E‖c‖²,   b = E c

and nothing is lost where h is close to g.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Estimate(NamedTuple):
  """An estimate and its standard error; the interval is ± twice that."""

  value: jax.Array  # f32[]
  error: jax.Array  # f32[]


class GradientStatistics(NamedTuple):
  """The gradient's error and what smoothing does to it, an `Estimate` each.

  σ², V, ‖b‖², ρ and the two squared norms are unbiased; a square comes out
  negative where m mini-batches cannot tell it from 0. Its root, and what is
  divided by it, is then NaN, and so is the error where a square is negative
  without one of the mini-batches. The cosine of such short gradients may lie
  outside [−1, 1]. Where σ² is within two standard errors of 0, the error of δ
  and of m(θ)/σ² is infinite: any value fits what was seen.
  """

  sigma2: Estimate  # σ² = E‖g−∇F‖²
  smoothing_variance: Estimate  # V = E‖h−E h‖²
  bias2: Estimate  # ‖b‖², may be negative
  rho: Estimate  # ρ = E⟨g−∇F, h−∇F⟩
  delta: Estimate  # δ = (V + ‖b‖²)/σ²
  mse_ratio: Estimate  # m(θ)/σ²; above 1 smoothing adds to the error
  theta_star: Estimate  # argmin of m, which may lie outside [0, 1]
  theta_paper: Estimate  # 1/(1+δ), equal to θ* where ρ = 0
  grad_norm2: Estimate  # ‖∇F‖², may be negative
  smoothed_grad_norm2: Estimate  # ‖(1−θ)·∇F + θ·E h‖², may be negative
  grad_norm: Estimate
  smoothed_grad_norm: Estimate
  cosine: Estimate  # between ∇F and (1−θ)·∇F + θ·E h


class Products(NamedTuple):
  """Scalar products of one mini-batch's gradients; f32[m] of m of them."""

  gg: jax.Array  # ⟨ġ, ġ⟩
  gc: jax.Array  # ⟨ġ, ċ⟩
  cc: jax.Array  # ⟨ċ, ċ⟩
  mean_g_g: jax.Array  # ⟨ḡ, ġ⟩
  mean_g_c: jax.Array  # ⟨ḡ, ċ⟩
  mean_c_g: jax.Array  # ⟨c̄, ġ⟩
  mean_c_c: jax.Array  # ⟨c̄, ċ⟩
  # gg, gc and cc with the mini-batch before; needed of a finite population
  pairs: tuple[jax.Array, jax.Array, jax.Array] | None = None


class _Moments(NamedTuple):
  """Unbiased: second moments about the mean, squares of the true means."""

  gg: jax.Array  # E⟨ġ, ġ⟩
  gc: jax.Array
  cc: jax.Array
  mean_gg: jax.Array  # ‖∇F‖²
  mean_gc: jax.Array  # ⟨∇F, b⟩
  mean_cc: jax.Array  # ‖b‖²


def estimate(
  means: tuple[jax.Array, jax.Array, jax.Array],
  rows: Products,
  theta: ArrayLike,
  batch_size: int,
  sampled: float,
  scale: float,
) -> GradientStatistics:
  """Every quantity with its error: the jackknife's, or `_ratio`'s.

  The bias of order 1/m is taken off δ and m(θ)/σ² alone: it would make roots of
  squares that are close to 0 worse. `means` are ⟨ḡ, ḡ⟩, ⟨ḡ, c̄⟩ and ⟨c̄, c̄⟩, the
  `rows` f32[m] each with m >= 3, else ValueError; `sampled` is the part of a
  finite population that the mini-batches are, 0 if independent; `scale` a
  factor on every variance, for another batch size.

  Reference:
    Efron, Stein: The jackknife estimate of variance, Ann. Stat. 9 (1981).
  """
  m = rows.gg.shape[0]
  if m < 3:
    raise ValueError(f'{m} mini-batches: the jackknife needs at least 3.')
  if sampled and batch_size > 1 and rows.pairs is None:
    raise ValueError(
      'num_examples needs `before` in each call of products: the (g, h) of the '
      'mini-batch before it.'
    )
  moments = _moments(means, rows, 1 - sampled)
  theta = jnp.asarray(theta, moments.gg.dtype)
  found = _quantities(moments, theta, scale)
  # One row a quantity: far fewer operations.
  table = jnp.stack(list(found.values()))
  # Differences first: the replicates agree in most of their digits.
  shifts = table[:, 1:] - table[:, :1]
  errors = (m - 1) / m**0.5 * _spread(shifts)
  estimates = map(Estimate, table[:, 0], errors)
  statistics = GradientStatistics(**dict(zip(found, estimates, strict=True)))
  return statistics._replace(
    delta=_ratio(moments, rows, 1.0, batch_size, sampled, scale),
    mse_ratio=_ratio(moments, rows, theta, batch_size, sampled, scale),
  )


def _ratio(
  moments: _Moments,
  rows: Products,
  theta: jax.Array | float,
  batch_size: int,
  sampled: float,
  scale: float,
) -> Estimate:
  """m(θ)/σ², which is δ at θ = 1.

  A quotient of estimates Â/D̂ is high by `Var D̂/D² − Cov(Â, D̂)/(AD)` of itself.
  Beale's `(ÂD̂ + Cov)/(D̂² + Var)` is not, and small D̂ do not upset it.

  By Hoeffding's decomposition each (co)variance is a sum of what every example
  adds, of which sampling a part f without replacement leaves 1 − f, and of what
  every pair in a mini-batch adds, which stays: chance forms the mini-batches.
  The jackknife has the sum. Two mini-batches tell the second, for D = σ²
  `2·(1 − 1/B)/m · E⟨ġ_i, ġ_k⟩²`; neighbours stand for all. The error is that of
  Â − R·D̂ over D̂, widened as Fieller's interval is, by 1/(1 − 4·Var D̂/D²).

  Reference:
    Beale, Ind. Org. 31 (1962); Fieller, J. R. Stat. Soc. B 16 (1954).
  """
  m = rows.gg.shape[0]
  first = jax.tree.map(lambda moment: moment[0], moments)
  # Shifts of means know of the finite population already.
  shifts = jax.tree.map(lambda moment: moment[1:] - moment[0], moments)

  def parts(gg: jax.Array, gc: jax.Array, cc: jax.Array) -> jax.Array:
    """Of A, but for its bias, and of D: over D, so that no square overflows."""
    both = jnp.stack([gg + 2 * theta * gc + theta**2 * cc, gg])
    return _over(both, first.gg)

  def of_bias(mean_cc: jax.Array) -> jax.Array:
    return _over(theta**2 * mean_cc, scale * first.gg)

  value = parts(*first[:3])[0] + of_bias(first.mean_cc)
  terms = (1 - sampled) ** 0.5 * parts(*shifts[:3])
  terms = ((m - 1) / m) ** 0.5 * terms.at[0].add(of_bias(shifts.mean_cc))
  if sampled and batch_size > 1 and rows.pairs is not None:
    weight = 2 * (1 - 1 / batch_size) * sampled * m / (m - 1) ** 3
    pairs = weight**0.5 * parts(*rows.pairs)
    terms = jnp.concatenate([terms, pairs], axis=1)
  top, bottom = terms
  noise = jnp.sum(bottom**2)
  value += jnp.sum((top - value * bottom) * bottom) / (1 + noise)
  # m(0) is σ² whatever the rounding.
  error = jnp.sqrt(jnp.sum((top - value * bottom) ** 2))
  error = jnp.where(theta == 0, 0, error)
  room = 1 - 4 * noise
  known = (room > 0) | (error == 0)
  return Estimate(value, jnp.where(known, error / room, jnp.inf))


def _moments(
  means: tuple[jax.Array, ...], rows: Products, free: float
) -> _Moments:
  """f32[1 + m]: from all mini-batches, then without each of them.

  Without mini-batch i the mean moves by −ġ_i/(m−1), of which a finite
  population leaves the part √free to chance. Taking `free·S/(m−1)` off the
  square of a mean that moved so makes the average replicate equal the estimate.
  """
  m = rows.gg.shape[0]

  def second(products: jax.Array) -> jax.Array:
    moment = products.sum() / (m - 1)
    change = (moment - products * (m / (m - 1))) / (m - 2)
    return moment + jnp.concatenate([jnp.zeros_like(change[:1]), change])

  def mean_product(
    product: jax.Array, along: jax.Array, across: jax.Array, moment: jax.Array
  ) -> jax.Array:
    moved = (free * across / (m - 1) - free**0.5 * along) / (m - 1)
    change = moved - free / (m - 1) * moment[1:]
    first = jnp.full_like(change[:1], -free / m * moment[0])
    return product + jnp.concatenate([first, change])

  crossed = rows.mean_g_c + rows.mean_c_g
  along = 2 * rows.mean_g_g, crossed, 2 * rows.mean_c_c
  across = rows.gg, rows.gc, rows.cc
  moments = [second(products) for products in across]
  return _Moments(*moments, *map(mean_product, means, along, across, moments))


def _quantities(
  moments: _Moments, theta: jax.Array, scale: float
) -> dict[str, jax.Array]:
  """The values of `GradientStatistics`, of the shape of the moments."""
  gg, gc, cc = (scale * moment for moment in moments[:3])
  mean_gg, mean_gc, mean_cc = moments[3:]
  square_c = cc + mean_cc  # E‖c‖²
  delta_sigma2 = gg + 2 * gc + square_c
  delta = _over(delta_sigma2, gg)
  along = mean_gg + theta * mean_gc
  smoothed = mean_gg + 2 * theta * mean_gc + theta**2 * mean_cc
  return dict(
    sigma2=gg,
    smoothing_variance=gg + 2 * gc + cc,
    bias2=mean_cc,
    rho=gg + gc,
    delta=delta,
    mse_ratio=1 + _over(2 * theta * gc + theta**2 * square_c, gg),
    theta_star=_over(-gc, square_c),
    theta_paper=1 / (1 + delta),
    grad_norm2=mean_gg,
    smoothed_grad_norm2=smoothed,
    grad_norm=_root(mean_gg),
    smoothed_grad_norm=_root(smoothed),
    cosine=_over(along, _root(mean_gg) * _root(smoothed)),
  )


def _spread(values: jax.Array) -> jax.Array:
  """Standard deviation (by m − 1) of each row, whatever its magnitude."""
  values = values - values.mean(-1, keepdims=True)
  largest = jnp.abs(values).max(-1, keepdims=True)
  unit = values / jnp.where(largest == 0, 1, largest)
  variance = jnp.sum(unit**2, -1) / (values.shape[-1] - 1)
  return largest[..., 0] * jnp.sqrt(variance)


def _over(numerator: jax.Array, square: jax.Array) -> jax.Array:
  return numerator / jnp.where(square > 0, square, jnp.nan)


def _root(square: jax.Array) -> jax.Array:
  return jnp.sqrt(jnp.where(square > 0, square, jnp.nan))
