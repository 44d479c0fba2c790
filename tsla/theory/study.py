"""Simulations of `toy_problem` beside the bounds: steps, levels, the best θ."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from tsla.theory import bounds, toy_problem
from tsla.theory.toy_problem import Noise


class Grid(NamedTuple):
  """What is simulated, with σ² = 1 throughout."""

  trajectories: int = 2048
  seed: int = 0
  # TSLA goes to smaller ε, where the baseline would take 50 million steps.
  sgd_epsilons2: Sequence[float] = tuple(0.2 * 2 ** (-k / 2) for k in range(7))
  tsla_epsilons2: Sequence[float] = tuple(0.2 / 2**k for k in range(8))
  deltas: Sequence[float] = (1 / 32, 1 / 16, 1 / 8, 1 / 4)
  level_deltas: Sequence[float] = tuple(0.01 * 10 ** (k / 3) for k in range(7))
  level_steps: int = 1024  # before the measurement, and during it
  rhos: Sequence[float] = (-0.9, 0.0, 0.9)
  thetas: Sequence[float] = tuple(k / 10 for k in range(11))
  example_steps: int = 100_000


class Iterations(NamedTuple):
  """Steps that a method takes until E‖∇F‖² ≤ ε²."""

  method: str
  delta: float
  epsilon2: float
  mse: float  # m(θ) of stage one
  steps_one: int
  average: float  # stage two's, by the average of its iterates
  last: float  # stage two's, by its last iterate
  bound: int  # proved of `average`


class Level(NamedTuple):
  """Where E‖∇F‖² stays with smoothing kept on."""

  delta: float
  rho: float
  theta: float
  step_size: float
  level: float
  error: float  # standard error of `level`
  mse: float  # m(θ), proved of `level`


class Curve(NamedTuple):
  """E‖∇F‖² on the way of one method."""

  method: str
  steps_one: int
  iterate: np.ndarray  # f64[T], at w_t
  average: np.ndarray  # of the last stage's iterates up to w_t, NaN before it
  bound: np.ndarray  # proved of `average`


class Fit(NamedTuple):
  """Least squares on logarithms: exponents with 95 % intervals."""

  exponents: np.ndarray
  half_widths: np.ndarray  # Student's t, from the residuals
  points: int


def iterations(grid: Grid) -> list[Iterations]:
  """Steps to each ε: 'SGD', 'TSLA' at each δ, and a control.

  The control, 'long steps', is TSLA at the largest δ with θ = 0: the same two
  step sizes after the same T₁, without smoothing.
  """
  jobs = []
  noise = Noise(sigma2=1, delta=grid.deltas[-1])
  for epsilon2 in grid.sgd_epsilons2:
    plan = bounds.sgd(toy_problem.problem(noise), math.sqrt(epsilon2))
    jobs.append(('SGD', plan, noise, epsilon2))
  for delta in grid.deltas:
    noise = Noise(sigma2=1, delta=delta)
    problem = toy_problem.problem(noise)
    for epsilon2 in grid.tsla_epsilons2:
      plan = bounds.tsla(problem, math.sqrt(epsilon2))
      jobs.append(('TSLA', plan, noise, epsilon2))
      if delta == grid.deltas[-1] and epsilon2 >= min(grid.sgd_epsilons2):
        stage_one = plan.step_one, plan.steps_one
        gap = bounds.gap_after(problem, *stage_one, noise.sigma2)
        steps = math.ceil(4 * gap / (plan.step_two * epsilon2))
        plan = plan._replace(theta=0.0, steps_two=steps)
        jobs.append(('long steps', plan, noise, epsilon2))
  # A seed each, so that the residuals of a fit are independent.
  return [
    _count(*job, grid._replace(seed=seed))
    for seed, job in enumerate(jobs, grid.seed)
  ]


def levels(grid: Grid) -> list[Level]:
  """LSR's level at each δ with ρ = 0, at a step of 1/L and at 1/16 of it."""
  rows = []
  for delta in grid.level_deltas:
    noise = Noise(sigma2=1, delta=delta)
    theta = bounds.theta_paper(toy_problem.problem(noise))
    for divisor in (1, 16):
      rows.append(_level(noise, theta, 1 / (divisor * toy_problem.L), grid))
  return rows


def thetas(grid: Grid) -> list[Level]:
  """LSR's level at δ = 2, each ρ and θ; the paper's θ and θ* come last."""
  rows = []
  for rho in grid.rhos:
    noise = Noise(sigma2=1, delta=2, bias_share=0.25)
    noise = noise._replace(correlation=rho / math.sqrt(noise.variance))
    problem = toy_problem.problem(noise)
    special = bounds.theta_paper(problem), bounds.theta_star(problem)
    for theta in (*grid.thetas, *special):
      rows.append(_level(noise, theta, 1 / toy_problem.L, grid))
  return rows


def example(grid: Grid, epsilon2: float) -> list[Curve]:
  """The three methods side by side at the largest δ, by fewer trajectories."""
  grid = grid._replace(trajectories=max(1, grid.trajectories // 4))
  noise = Noise(sigma2=1, delta=grid.deltas[-1])
  problem, epsilon = toy_problem.problem(noise), math.sqrt(epsilon2)
  methods = {'SGD': bounds.sgd, 'LSR': bounds.lsr, 'TSLA': bounds.tsla}
  plans = {name: method(problem, epsilon) for name, method in methods.items()}
  return [_curve(name, plan, noise, grid) for name, plan in plans.items()]


def fit(*factors: Sequence[float], steps: Sequence[float]) -> Fit:
  """Exponents of `steps = c · factor_1^a · factor_2^b …`."""
  y = np.log(np.asarray(steps, float))
  x = np.stack([np.ones(len(y)), *(np.log(factor) for factor in factors)], 1)
  solution, *_ = np.linalg.lstsq(x, y)
  free = len(y) - x.shape[1]
  residual = ((y - x @ solution) ** 2).sum() / free
  errors = np.sqrt(residual * np.linalg.inv(x.T @ x).diagonal())
  widths = stats.t.ppf(0.975, free) * errors
  return Fit(solution[1:], widths[1:], len(y))


def counted(rows: Sequence[Iterations], method: str) -> list[Iterations]:
  """The method's rows that exponents rest on: stage two has work, ε² ≤ m/4."""
  rows = [row for row in rows if row.method == method]
  return [row for row in rows if row.epsilon2 <= row.mse / 4]


def exponents(rows: Sequence[Iterations], method: str, count: str) -> Fit:
  """Of ε, and of δ where there are several, in 'average' or in 'last'."""
  rows = counted(rows, method)
  factors = [[row.epsilon2**0.5 for row in rows]]
  if len({row.delta for row in rows}) > 1:
    factors.append([row.delta for row in rows])
  return fit(*factors, steps=[getattr(row, count) for row in rows])


def _running_mean(values: np.ndarray) -> np.ndarray:
  return np.cumsum(values) / np.arange(1, len(values) + 1)


def _count(
  method: str, plan: bounds.Plan, noise: Noise, epsilon2: float, grid: Grid
) -> Iterations:
  start = int(plan.steps_one)

  def reached(gradient2: np.ndarray) -> bool:
    return bool((_running_mean(gradient2[start:]) <= epsilon2).any())

  record = _run(plan, noise, grid, int(plan.steps), until=reached)
  gradient2 = record.gradient2[start:]
  average = _first(_running_mean(gradient2) <= epsilon2) + 1
  found = start, average, _first(gradient2 <= epsilon2), int(plan.steps_two)
  mse = bounds.mean_square_error(toy_problem.problem(noise), plan.theta)
  return Iterations(method, noise.delta, epsilon2, mse, *found)


def _run(
  plan: bounds.Plan, noise: Noise, grid: Grid, steps: int, **until: Any
) -> toy_problem.Record:
  options = {'trajectories': grid.trajectories, 'seed': grid.seed, **until}
  return toy_problem.run(plan, noise, steps=steps, **options)


def _first(reached: np.ndarray) -> float:
  return int(reached.argmax()) if reached.any() else math.inf


def _level(noise: Noise, theta: float, step_size: float, grid: Grid) -> Level:
  plan = bounds.Plan(theta, step_size, 0.0, math.inf, 0)
  record = _run(plan, noise, grid, 2 * grid.level_steps)
  settled = record.chunks[len(record.chunks) // 2 :].mean(0)
  level = float(settled.mean())
  error = float(settled.std(ddof=1) / math.sqrt(len(settled)))
  mse = bounds.mean_square_error(toy_problem.problem(noise), theta)
  return Level(noise.delta, noise.rho, theta, step_size, level, error, mse)


def _curve(method: str, plan: bounds.Plan, noise: Noise, grid: Grid) -> Curve:
  record = _run(plan, noise, grid, grid.example_steps)
  problem = toy_problem.problem(noise)
  mse = bounds.mean_square_error(problem, plan.theta)
  start, gap, step_size, error = 0, problem.F0, plan.step_one, mse
  if plan.steps_two:
    start, step_size = int(plan.steps_one), plan.step_two
    gap = bounds.gap_after(problem, plan.step_one, start, mse)
    error = step_size * problem.L * problem.sigma2
  count = np.arange(1, len(record.gradient2) - start + 1)
  stage = _running_mean(record.gradient2[start:])
  proved = bounds.average_level(gap, step_size, count, error)
  before = np.full(start, np.nan)
  curves = [np.concatenate([before, part]) for part in (stage, proved)]
  return Curve(method, start, record.gradient2, *curves)
