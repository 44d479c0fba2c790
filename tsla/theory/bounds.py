"""Iterations that SGD, LSR and TSLA need for an ε-stationary point, as proved.

F is L-smooth with minimum F*; ∇F is seen through an error: `g = ∇F + e` against
the true label, `h = ∇F + d` against the smoothing label, `σ² = E‖e‖²`,
`δσ² = E‖d‖²`, `ρ = E⟨e, d⟩`. The smoothed gradient `(1−θ)g + θh` has the error

  m(θ) = (1−θ)²σ² + 2θ(1−θ)ρ + θ²δσ² ≤ (1−θ)σ² + θδσ²,

at the paper's `θ = 1/(1+δ)` at most `2δσ²/(1+δ)`. From `T` steps of size
`η ≤ 1/L`, averaged over the iterates w_0 … w_{T−1} (one drawn at random):

  any error of mean square m:  E‖∇F‖² ≤ 2(F(w_0) − F*)/(ηT) + m
  unbiased error:              E‖∇F‖² ≤ 2(F(w_0) − F*)/(ηT) + ηLσ²

The first follows from `F(w⁺) ≤ F(w) − η/2·‖∇F‖² + η/2·‖error‖²`, the second
from `E F(w⁺) ≤ F(w) − η/2·‖∇F‖² + η²Lσ²/2`. As d has a bias, smaller steps do
not lower m: label smoothing kept on stops at a level of its own. Where
`2μ(F − F*) ≤ ‖∇F‖²` (Polyak–Łojasiewicz), the first also gives

  E F(w_T) − F* ≤ qᵀ(F(w_0) − F*) + (1 − qᵀ)·m/(2μ),  q = 1 − ημ.

"ε-stationary" is E‖∇F‖² ≤ ε².

Reference:
  arXiv:2006.11653. The bounds here are derived anew, with other constants.
"""

import math
from typing import NamedTuple

from tsla.errors import InputError


class Problem(NamedTuple):
  """What the bounds depend on."""

  L: float  # smoothness: ‖∇F(v) − ∇F(w)‖ ≤ L·‖v − w‖
  mu: float  # Polyak–Łojasiewicz: 2μ(F − F*) ≤ ‖∇F‖², 0 < μ ≤ L
  sigma2: float  # σ² = E‖g − ∇F‖²
  delta: float  # δ = E‖h − ∇F‖²/σ²
  F0: float  # F(w_0) − F*
  rho: float | None = None  # ρ; None if unknown


class Plan(NamedTuple):
  """How a method runs for an ε-stationary point, and for how long.

  Counts of steps are whole numbers, or math.inf where the bound gives none.
  """

  theta: float  # θ in stage one; stage two has none
  step_one: float  # η of stage one
  step_two: float
  steps_one: float
  steps_two: float

  @property
  def steps(self) -> float:
    """Of both stages."""
    return self.steps_one + self.steps_two


def mean_square_error(problem: Problem, theta: float) -> float:
  """m(θ), the mean square error of the smoothed gradient.

  Without ρ the result is the bound by convexity, which holds whatever ρ is.
  """
  hard, smooth = problem.sigma2, problem.delta * problem.sigma2
  if problem.rho is None:
    return (1 - theta) * hard + theta * smooth
  both = 2 * theta * (1 - theta) * problem.rho
  return (1 - theta) ** 2 * hard + both + theta**2 * smooth


def theta_paper(problem: Problem) -> float:
  """The paper's θ, 1/(1+δ): the minimiser of m if ρ = 0."""
  return 1 / (1 + problem.delta)


def theta_star(problem: Problem) -> float:
  """The minimiser of m(θ) in [0, 1], for a known ρ."""
  distance = (1 + problem.delta) * problem.sigma2 - 2 * problem.rho
  if distance <= 0:  # E‖d − e‖² = 0: every θ is the same
    return 0.0
  return min(max((problem.sigma2 - problem.rho) / distance, 0.0), 1.0)


def average_level(
  gap: float, step_size: float, steps: float, error: float
) -> float:
  """Bound on the average E‖∇F‖²; `error` is m(θ), or ηLσ² without bias."""
  return 2 * gap / (step_size * steps) + error


def gap_after(
  problem: Problem, step_size: float, steps: float, mse: float
) -> float:
  """Bound on E F(w_T) − F* under the Polyak–Łojasiewicz condition, η ≤ 1/L."""
  left = (1 - step_size * problem.mu) ** steps
  return left * problem.F0 + (1 - left) * mse / (2 * problem.mu)


def sgd(problem: Problem, epsilon: float) -> Plan:
  """The baseline: `η = min(1/L, ε²/(2Lσ²))`, `T = 4·F₀/(ηε²)`.

  So both terms of the bound are ε²/2 at the most, and T is of order 1/ε⁴.
  """
  _checked(problem, epsilon, 0.0)
  step_size, steps = _unsmoothed(problem, problem.F0, epsilon)
  return Plan(0.0, step_size, step_size, 0, steps)


def lsr(problem: Problem, epsilon: float, theta: float | None = None) -> Plan:
  """Label smoothing to the end: `η = 1/L`, `T = 2·L·F₀/(ε² − m(θ))`.

  Above its own level m(θ) it needs O(1/ε²) steps; below, no T is enough.
  Without θ the paper's is used.
  """
  theta = _checked(problem, epsilon, theta)
  mse = mean_square_error(problem, theta)
  steps = math.inf
  if epsilon**2 > mse:
    steps = _ceil(2 * problem.L * problem.F0 / (epsilon**2 - mse))
  return Plan(theta, 1 / problem.L, 0.0, steps, 0)


def tsla(problem: Problem, epsilon: float, theta: float | None = None) -> Plan:
  """Smoothing with long steps until it stops helping, then the baseline's.

  Stage one, `η₁ = 1/L`: until the start's share of the gap is down to the
  error's, `qᵀ¹F₀ ≤ m/(2μ)`, which takes `T₁ = O((L/μ)·log(2μF₀/m))` steps (or
  to ε²/(2μ), should m be smaller). Stage two starts from a gap of m/μ at the
  most instead of F₀: `T₂ = 4·gap/(η₂ε²)` of order `δσ⁴L/(με⁴)`.
  Without θ the paper's is used; with 0 the stages differ in step size alone.
  """
  theta = _checked(problem, epsilon, theta)
  mse = mean_square_error(problem, theta)
  steps_one = _steps_to_gap(problem, max(mse, epsilon**2) / (2 * problem.mu))
  gap = gap_after(problem, 1 / problem.L, steps_one, mse)
  step_two, steps_two = _unsmoothed(problem, gap, epsilon)
  return Plan(theta, 1 / problem.L, step_two, steps_one, steps_two)


def _checked(problem: Problem, epsilon: float, theta: float | None) -> float:
  """θ, or else the paper's; an InputError names a constant that cannot be."""
  given = {**problem._asdict(), 'epsilon': epsilon, 'theta': theta}
  for name, value in given.items():
    if value is not None and not math.isfinite(value):
      raise InputError(f'{name} = {value}: not a finite number')
    if name not in ('rho', 'theta') and value <= 0:
      raise InputError(f'{name} = {value}', allowed=f'{name} > 0')
  if problem.mu > problem.L:
    text = f'mu = {problem.mu}: above L = {problem.L}'
    raise InputError(text, allowed='0 < mu <= L')
  limit = problem.sigma2 * math.sqrt(problem.delta)
  if problem.rho is not None and abs(problem.rho) > limit * (1 + 1e-12):
    text = f'rho = {problem.rho}: no two errors are so correlated'
    allowed = f'|rho| <= sigma2·sqrt(delta) = {limit:.4g}'
    raise InputError(text, allowed=allowed)
  if theta is not None and not 0 <= theta <= 1:
    raise InputError(f'theta = {theta}', allowed='0 <= theta <= 1')
  return theta_paper(problem) if theta is None else theta


def _unsmoothed(
  problem: Problem, gap: float, epsilon: float
) -> tuple[float, int]:
  """Step size and steps by which SGD takes a gap to ε."""
  step_size = min(1, epsilon**2 / (2 * problem.sigma2)) / problem.L
  return step_size, max(1, _ceil(4 * gap / (step_size * epsilon**2)))


def _steps_to_gap(problem: Problem, gap: float) -> int:
  """Steps of 1/L after which qᵀF₀ ≤ gap."""
  if gap >= problem.F0:
    return 0
  if problem.mu == problem.L:
    return 1
  return _ceil(math.log(gap / problem.F0) / math.log1p(-problem.mu / problem.L))


def _ceil(steps: float) -> int:
  """The next whole number, where rounding has not made one more of it."""
  return math.ceil(steps * (1 - 1e-12))
