"""The bounds against plain arithmetic and against simulated trajectories."""

import itertools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import tsla
from tsla import __main__ as door
from tsla.commands import theory as command
from tsla.errors import InputError
from tsla.theory import bounds, study, toy_problem
from tsla.theory.bounds import Plan, Problem
from tsla.theory.page import write_page
from tsla.theory.toy_problem import Noise

PROBLEM = Problem(L=8.0, mu=1 / 32, sigma2=1.0, delta=0.1, F0=9.0)
PROBLEMS = [
  PROBLEM,
  PROBLEM._replace(mu=8.0),
  PROBLEM._replace(rho=0.15, sigma2=0.5),
  PROBLEM._replace(delta=5.0, rho=-1.0),
  PROBLEM._replace(F0=0.01, L=100.0),
]
EPSILONS = (0.03, 0.3, 3.0)
EACH = list(itertools.product(PROBLEMS, EPSILONS))


def paper_mse(problem):
  if problem.rho is None:
    return 2 * problem.delta * problem.sigma2 / (1 + problem.delta)
  theta = 1 / (1 + problem.delta)
  weights = np.array([1 - theta, theta])
  moments = np.array(
    [
      [problem.sigma2, problem.rho],
      [problem.rho, problem.delta * problem.sigma2],
    ]
  )
  return weights @ moments @ weights


@pytest.mark.parametrize(('problem', 'epsilon'), EACH)
def test_sgd_takes_the_longer_of_two_times(problem, epsilon):
  L, _, sigma2, _, gap, _ = problem
  expected = max(4 * L * gap / epsilon**2, 8 * L * gap * sigma2 / epsilon**4)
  plan = bounds.sgd(problem, epsilon)
  assert plan.steps == plan.steps_two == math.ceil(expected - 1e-6)
  assert plan.theta == 0
  level = 2 * gap / (plan.step_two * plan.steps) + plan.step_two * L * sigma2
  assert level <= epsilon**2 * (1 + 1e-9)


@pytest.mark.parametrize(('problem', 'epsilon'), EACH)
def test_lsr_never_comes_below_its_level(problem, epsilon):
  mse = paper_mse(problem)
  plan = bounds.lsr(problem, epsilon)
  if epsilon**2 <= mse:
    assert plan.steps == math.inf
    return
  expected = 2 * problem.L * problem.F0 / (epsilon**2 - mse)
  assert plan.steps == math.ceil(expected - 1e-6)
  level = 2 * problem.F0 / (plan.step_one * plan.steps) + mse
  assert level <= epsilon**2 * (1 + 1e-9)


@pytest.mark.parametrize(('problem', 'epsilon'), EACH)
def test_tsla_follows_the_recursion_of_the_gap(problem, epsilon):
  L, mu, sigma2, _, start, _ = problem
  mse = paper_mse(problem)
  gap, share, steps = start, start, 0
  while share > max(mse, epsilon**2) / (2 * mu):
    share *= 1 - mu / L
    gap = (1 - mu / L) * gap + mse / (2 * L)
    steps += 1
  plan = bounds.tsla(problem, epsilon)
  assert plan.steps_one == steps
  step_two = min(1 / L, epsilon**2 / (2 * L * sigma2))
  assert plan.step_two == pytest.approx(step_two)
  assert plan.steps_two == pytest.approx(4 * gap / step_two / epsilon**2, abs=1)
  assert plan.steps == plan.steps_one + plan.steps_two
  level = 2 * gap / (step_two * plan.steps_two) + step_two * L * sigma2
  assert level <= epsilon**2 * (1 + 1e-9)


def test_the_orders_are_those_of_the_paper():
  problem = PROBLEM._replace(delta=1e-3, F0=100.0)
  sgd, tsla_ = bounds.sgd(problem, 0.01), bounds.tsla(problem, 0.01)
  assert bounds.sgd(problem, 0.005).steps == pytest.approx(16 * sgd.steps)
  half = bounds.tsla(problem, 0.005)
  assert half.steps_two == pytest.approx(16 * tsla_.steps_two, rel=1e-3)
  double = bounds.tsla(problem._replace(delta=2e-3), 0.01)
  assert double.steps_two == pytest.approx(2 * tsla_.steps_two, rel=0.02)
  assert tsla_.steps < 0.01 * sgd.steps
  lsr = bounds.lsr(problem, 0.1)
  half = bounds.lsr(problem, 0.05)
  assert 4 * lsr.steps < half.steps < math.inf
  assert bounds.lsr(problem, 0.044).steps == math.inf


def test_more_of_anything_bad_never_takes_fewer_steps():
  for method in (bounds.sgd, bounds.lsr, bounds.tsla):
    steps = method(PROBLEM, 0.5).steps
    for name, factor in {'sigma2': 2, 'delta': 2, 'F0': 2, 'mu': 0.5}.items():
      worse = PROBLEM._replace(**{name: factor * getattr(PROBLEM, name)})
      assert method(worse, 0.5).steps >= steps, (method, name)
    assert method(PROBLEM, 0.4).steps > steps


def test_no_smoothing_leaves_the_baselines_error():
  plan = bounds.tsla(PROBLEM._replace(mu=1.0), 0.1, theta=0.0)
  assert bounds.mean_square_error(PROBLEM, 0.0) == PROBLEM.sigma2
  assert plan.theta == 0
  assert plan.steps_one == math.ceil(math.log(1 / 18) / math.log(7 / 8))


@pytest.mark.parametrize('delta', [0.1, 1.0, 4.0])
@pytest.mark.parametrize('part', [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_theta_star_is_the_minimiser_and_convexity_bounds_it(delta, part):
  problem = PROBLEM._replace(delta=delta, rho=part * delta**0.5)
  grid = np.linspace(0, 1, 10_001)
  curve = np.array([bounds.mean_square_error(problem, t) for t in grid])
  bound = [
    bounds.mean_square_error(PROBLEM._replace(delta=delta), t) for t in grid
  ]
  assert (curve <= np.array(bound) + 1e-12).all()
  best = bounds.mean_square_error(problem, bounds.theta_star(problem))
  assert best <= curve.min() + 1e-12
  if part == 0:
    assert bounds.theta_star(problem) == pytest.approx(1 / (1 + delta))


@pytest.mark.parametrize(
  ('change', 'epsilon', 'message'),
  [
    ({'mu': 9.0}, 0.1, 'mu = 9.0: above L'),
    ({'sigma2': 0.0}, 0.1, 'sigma2 = 0.0'),
    ({'delta': -1.0}, 0.1, 'delta = -1.0'),
    ({'F0': math.inf}, 0.1, 'F0 = inf'),
    ({'rho': 0.5}, 0.1, 'rho = 0.5'),
    ({}, 0.0, 'epsilon = 0.0'),
    ({}, math.nan, 'epsilon = nan'),
  ],
)
def test_constants_that_cannot_be_are_named(change, epsilon, message):
  for method in (bounds.sgd, bounds.lsr, bounds.tsla):
    with pytest.raises(InputError) as error:
      method(PROBLEM._replace(**change), epsilon)
    assert message in str(error.value)
  with pytest.raises(InputError, match=r'theta = 1\.5'):
    bounds.tsla(PROBLEM, 0.1, theta=1.5)


def test_the_command_prints_the_plans(capsys):
  argv = '--mu=0.5 --delta=0.2 --F0=20 --epsilon=0.2 --sigma2=2 --L=4'
  assert command.main(argv.split()) == 0
  printed = capsys.readouterr().out
  problem = Problem(L=4, mu=0.5, sigma2=2, delta=0.2, F0=20)
  for line in ('SGD', 'LSR', 'TSLA'):
    row = next(r for r in printed.splitlines() if r.strip().startswith(line))
    plan = getattr(bounds, line.lower())(problem, 0.2)
    steps = '∞' if line == 'LSR' else f'{plan.steps:,}'
    assert row.split()[-2] == steps


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    ('--mu=9', 'mu = 9'),
    ('--epsilon=0', 'epsilon = 0'),
    ('--mu=x', "'x'"),
    ('--kappa=1', 'kappa'),
    ('--out=/dev/null/page', '--out=/dev/null/page'),
  ],
)
def test_bad_input_is_three_lines_and_exit_code_2(capsys, argv, message):
  assert command.main([argv]) == 2
  error = capsys.readouterr().err
  assert message in error
  assert 1 <= len(error.strip().splitlines()) <= 3


def test_the_page_needs_matplotlib_and_says_so(monkeypatch, capsys, tmp_path):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  for name in ('theory.page', 'theory.figures', 'pages.figures'):
    monkeypatch.delitem(sys.modules, f'tsla.{name}')
  assert door.main(['theory', f'--out={tmp_path}']) == 2
  error = capsys.readouterr().err
  assert 'needs matplotlib' in error and 'pip install' in error


def test_the_toy_problem_has_its_constants():
  w = np.linspace(-20, 20, 4_000_001)
  plain = w**2 + 3 * np.sin(w) ** 2
  few = w[::4000]
  np.testing.assert_allclose(toy_problem.value(few), plain[::4000], rtol=1e-5)
  slope = 2 * w + 3 * np.sin(2 * w)
  np.testing.assert_allclose(
    np.gradient(plain, w)[1:-1], slope[1:-1], atol=1e-4
  )
  found = jax.vmap(jax.grad(toy_problem.value))(jnp.asarray(few, jnp.float32))
  np.testing.assert_allclose(found, slope[::4000], atol=1e-4)

  curvature = np.gradient(slope, w)[1:-1]
  assert np.abs(curvature).max() == pytest.approx(toy_problem.L, rel=1e-6)
  assert curvature.min() == pytest.approx(-4, rel=1e-6)  # not convex
  away = plain > 0
  condition = slope[away] ** 2 / (2 * plain[away])
  assert toy_problem.MU == 1 / 32 <= condition.min()
  assert condition.min() == pytest.approx(0.1755, abs=1e-4)
  problem = toy_problem.problem(Noise(sigma2=1, delta=2))
  np.testing.assert_allclose(problem.F0, 9 + 3 * math.sin(3) ** 2, rtol=1e-6)


@pytest.mark.parametrize('correlation', [-0.8, 0.0, 0.6])
def test_the_noise_is_what_it_says_and_can_be_measured(correlation):
  noise = Noise(2.0, 0.5, bias_share=0.3, correlation=correlation)
  e, d = noise.draw(jax.random.key(0), (4000, 1))
  found = tsla.gradient_statistics(
    lambda pair: pair, (1 + e, 1 + d), 0.3, batch_size=1
  )
  expected = {
    'sigma2': 2.0,
    'delta': 0.5,
    'bias2': 0.3,
    'smoothing_variance': 0.7,
    'rho': correlation * 1.4**0.5,
    'grad_norm': 1.0,
  }
  assert noise.rho == pytest.approx(expected['rho'])
  for name, number in expected.items():
    value, error = getattr(found, name)
    assert abs(value - number) < 3 * error < 0.2, name


def test_a_run_without_noise_is_gradient_descent_in_two_stages():
  # e and the noise of d are 1e-4; the bias of d is 1.
  noise = Noise(sigma2=1e-8, delta=1e8, bias_share=1.0)
  record = toy_problem.run(
    Plan(0.25, 0.1, 0.02, 5, 0), noise, steps=9, trajectories=3
  )
  w, gradients, gaps = 3.0, [], []
  for t in range(9):
    gradient = 2 * w + 3 * np.sin(2 * w)
    gradients.append(gradient**2)
    gaps.append(w**2 + 3 * np.sin(w) ** 2)
    w -= 0.1 * (gradient + 0.25) if t < 5 else 0.02 * gradient
  np.testing.assert_allclose(record.gradient2, gradients, rtol=2e-2)
  np.testing.assert_allclose(record.gap, gaps, rtol=1e-2)
  assert record.chunks.shape == (1, 3)
  np.testing.assert_allclose(
    record.chunks.mean(), np.mean(gradients), rtol=1e-2
  )


def test_chunks_go_on_where_the_last_one_ended():
  """Against NumPy's steps: the border is at 1,024, the drop at 1,500."""
  plan, bias = Plan(0.5, 5e-4, 2e-3, 1500, 0), 0.25
  silent = Noise(sigma2=1e-12, delta=1e12 * bias**2, bias_share=1.0)
  options = {'steps': 2048, 'trajectories': 4}
  record = toy_problem.run(plan, silent, **options)
  w, gradients, gaps = 3.0, [], []
  for step in range(2048):
    gradients.append(2 * w + 3 * np.sin(2 * w))
    gaps.append(w**2 + 3 * np.sin(w) ** 2)
    if step < 1500:
      w -= 5e-4 * (gradients[-1] + 0.5 * bias)
    else:
      w -= 2e-3 * gradients[-1]
  gradient2 = np.square(gradients)
  np.testing.assert_allclose(record.gradient2, gradient2, 1e-3, 1e-6)
  np.testing.assert_allclose(record.gap, gaps, 1e-3, 1e-6)
  halves = gradient2.reshape(2, 1024).mean(1)
  np.testing.assert_allclose(record.chunks, np.stack([halves] * 4, 1), 1e-3)

  # Long after the start only the errors tell where w is: those of each chunk
  # and seed are its own.
  plan, noise = Plan(0.5, 0.02, 0.02, 2048, 0), Noise(1, 0.5)
  one, two = (toy_problem.run(plan, noise, **options, seed=s) for s in (0, 1))
  ends = [run.gradient2[1000:1024] for run in (one, two)]
  ends.append(one.gradient2[2024:])
  assert (np.abs(np.corrcoef(ends) - np.eye(3)) < 0.99).all()
  stopped = toy_problem.run(plan, noise, **options, until=lambda g: len(g) > 0)
  np.testing.assert_array_equal(stopped.gradient2, one.gradient2[:1024])


def test_simulated_levels_and_gaps_stay_below_the_bounds():
  noise = Noise(sigma2=1, delta=0.2)
  problem = toy_problem.problem(noise)
  plan = bounds.lsr(problem, 0.1)
  record = toy_problem.run(plan, noise, steps=1024, trajectories=1000)
  steps = np.arange(1, 1025)
  average = np.cumsum(record.gradient2) / steps
  mse = 0.2 / 1.2
  assert (average <= 2 * 8 * problem.F0 / steps + mse * 1.02).all()
  q = (1 - 1 / 256) ** (steps - 1)
  assert (record.gap <= (q * problem.F0 + (1 - q) * mse * 16) * 1.01).all()
  # Near the minimum F is a quadratic of curvature L: the bound is met.
  assert record.gradient2[200:].mean() == pytest.approx(mse, rel=0.03)


SMALL = study.Grid(
  trajectories=64,
  sgd_epsilons2=(0.2, 0.15, 0.1),
  tsla_epsilons2=(0.2, 0.14, 0.1, 0.04, 0.02, 0.01),
  deltas=(1 / 16, 1 / 4),
  level_deltas=(0.05, 0.2, 0.5),
  rhos=(-0.9, 0.9),
  thetas=(0.0, 0.5, 1.0),
  level_steps=1024,
  example_steps=2048,
)


def test_tsla_reaches_epsilon_within_its_bound_and_before_sgd():
  rows = study.iterations(SMALL)
  assert [row.method for row in rows].count('TSLA') == 12
  for row in rows:
    assert row.last <= row.average <= row.bound < math.inf
  for row in study.counted(rows, 'TSLA'):
    quadratic = (row.mse - row.epsilon2 / 4) / row.epsilon2**2 * 4 / 3
    assert row.average == pytest.approx(quadratic, rel=0.35)
  sgd = {row.epsilon2: row for row in rows if row.method == 'SGD'}
  at = [row for row in rows if row.epsilon2 == 0.1 and row.method != 'SGD']
  for row in at:
    assert row.steps_one + row.average < 0.1 * sgd[0.1].average


@pytest.mark.ci
def test_the_papers_theta_is_best_only_without_correlation():
  rows = study.thetas(SMALL._replace(trajectories=512, rhos=(-0.9, 0.0, 0.9)))
  for rho in (-0.9, 0.0, 0.9):
    some = [row for row in rows if row.rho == pytest.approx(rho)]
    paper, best = some[-2:]
    assert best.theta == pytest.approx((1 - rho) / (3 - 2 * rho))
    apart = paper.level - best.level
    if rho:
      assert apart > 4 * math.hypot(paper.error, best.error)
    else:
      assert apart == 0
    for row in some:
      assert row.level - 3 * row.error < row.mse


def test_a_fit_is_that_of_scipy():
  rng = np.random.default_rng(0)
  epsilon = np.geomspace(0.01, 1, 9)
  steps = 5 * epsilon**-4 * np.exp(0.1 * rng.normal(size=9))
  fit = study.fit(epsilon, steps=steps)
  expected = scipy.stats.linregress(np.log(epsilon), np.log(steps))
  assert fit.exponents[0] == pytest.approx(expected.slope)
  quantile = scipy.stats.t(7).ppf(0.975)
  assert fit.half_widths[0] == pytest.approx(quantile * expected.stderr)
  both = study.fit(epsilon, epsilon[::-1] ** 2 + 1, steps=epsilon**3)
  np.testing.assert_allclose(both.exponents, [3, 0], atol=1e-9)


@pytest.mark.ci
def test_the_page_stands_alone(tmp_path):
  path = write_page(tmp_path / 'new' / 'folder', SMALL)
  text = path.read_text()
  assert text.count('<svg') == text.count('class="plot"') == 4
  assert len(list(path.parent.glob('*.svg'))) == 4
  assert 'above the bound' not in text and '<td>no' not in text
  assert text.count('<td>yes</td>') == 7
  for outside in (' src=', '<link', '<script', '@import', 'nan', 'inf '):
    assert outside not in text, outside
