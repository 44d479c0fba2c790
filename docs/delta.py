"""δ of mini-batches drawn without replacement, simulated.

  python -m docs.delta

Prints the table of `variance.md`. A case is a set of N = 1437 examples with the
gradients `g` and `h` in a few dimensions, all drawn once: few of them carry σ²,
or none stands out; the bias makes δ what it is to be. Of thousands of draws of
32 mini-batches of 32, three estimates: the plain quotient, its jackknife over
mini-batches (as if N were infinite; its error goes with both), and what
`tsla.gradient_statistics` finds. The truth is that of the set.
"""

import sys
from typing import NamedTuple

import jax
import numpy as np

import tsla

N, B = 1437, 32


class Case(NamedTuple):
  """A set of examples, and how many mini-batches are drawn from it."""

  name: str
  heavy: float  # the part of the examples that carries σ²; 0: all alike
  dims: int
  delta: float
  count: int = 32


CASES = (
  Case('0.4 % heavy', 0.004, 20, 1.335),
  Case('1 % heavy', 0.01, 20, 1.335),
  Case('1 % heavy', 0.01, 20, 0.8),
  Case('all alike, 20 dimensions', 0, 20, 1.3),
  Case('all alike, 3 dimensions', 0, 3, 1.3),
  Case('all alike, 3 dimensions, all used', 0, 3, 1.3, 44),
  Case('1 % heavy, all used', 0.01, 20, 1.3, 44),
  Case('0.4 % heavy, 12 mini-batches', 0.004, 20, 1.335, 12),
)


def population(case: Case) -> tuple[np.ndarray, np.ndarray]:
  """Gradients g and h, f64[N, dims]."""
  rng = np.random.default_rng(0)
  shape = (N, case.dims)
  g, h = rng.normal(size=shape), rng.normal(size=shape)
  if case.heavy:
    g *= 0.02
    few = slice(round(case.heavy * N))  # draws are random: any of them
    g[few] += 5 / case.dims**0.5 * rng.normal(size=g[few].shape)
    h *= 0.3 / case.dims**0.5
  else:
    h = 0.5 * h - 0.3 * g
  g, h = g - g.mean(0), h - h.mean(0)
  factor = (1 - B / N) / B / (N - 1)
  bias2 = factor * (case.delta * (g**2).sum() - (h**2).sum())
  assert bias2 > 0, 'δ is larger without any bias'
  g[:, 0] += 1
  h[:, 0] += 1
  h[:, 1] += bias2**0.5
  return g, h


def of_one_draw(g: np.ndarray, h: np.ndarray) -> tuple[float, ...]:
  """The plain quotient, its jackknife and that one's error; g, h f64[m, P]."""
  m = len(g)
  free, scale = 1 - m * B / N, 1 - B / N
  c = h - g
  mean = c.mean(0)
  g, h, c = g - g.mean(0), h - h.mean(0), c - mean

  def variance(x: np.ndarray) -> np.ndarray:
    """Of all mini-batches, then without each: f64[1 + m]."""
    squares = (x**2).sum(1)
    moment = squares.sum() / (m - 1)
    without = (squares.sum() - m / (m - 1) * squares) / (m - 2)
    return np.append(moment, without)

  # A finite set moves the mean by less than leaving one out does.
  moved = np.vstack([mean, mean - free**0.5 * c / (m - 1)])
  count = np.append(m, np.full(m, m - 1))
  bias2 = (moved**2).sum(1) - free * variance(c) / count
  ratio = (scale * variance(h) + bias2) / (scale * variance(g))
  shifts = ratio[1:] - ratio[0]
  error = (m - 1) / m**0.5 * shifts.std(ddof=1)
  return ratio[0], ratio[0] - (m - 1) * shifts.mean(), error


def simulate(case: Case, draws: int) -> dict[str, tuple[np.ndarray, ...]]:
  """Values and errors f64[draws] of each estimate."""
  g, h = population(case)
  rng = np.random.default_rng(1)
  picked = np.array(
    [rng.permutation(N)[: case.count * B].reshape(-1, B) for _ in range(draws)],
    np.int32,
  )
  before = np.array([of_one_draw(g[p].mean(1), h[p].mean(1)) for p in picked])
  g, h = np.float32(g), np.float32(h)

  @jax.jit
  def measured(picked: jax.Array) -> tsla.Estimate:
    return jax.lax.map(
      lambda draw: (
        tsla.gradient_statistics(
          lambda batch: (
            jax.numpy.asarray(g)[batch].mean(0),
            jax.numpy.asarray(h)[batch].mean(0),
          ),
          *(draw, 0.1),
          batch_size=B,
          num_examples=N,
        ).delta
      ),
      picked,
      batch_size=100,
    )

  plain, jackknife, error = before.T
  return {
    'plain': (plain, error),
    'jackknife': (jackknife, error),
    'now': tuple(np.asarray(x, np.float64) for x in measured(picked)),
  }


def main() -> None:
  """Prints a row a case and estimate."""
  draws = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
  print(
    '| examples | δ | estimate | mean | rmse | wrong side of 1 | within two '
    'errors | error ÷ spread | error infinite |\n|---|---|---|---|---|---|---|'
    '---|---|'
  )
  for case in CASES:
    for name, (value, error) in simulate(case, draws).items():
      told = np.isfinite(error)
      spread = np.median(error) / value.std()
      print(
        f'| {case.name} | {case.delta} | {name} | {value.mean():.3f} '
        f'| {((value - case.delta) ** 2).mean() ** 0.5:.3f} '
        f'| {((value > 1) != (case.delta > 1)).mean():.1%} '
        f'| {(abs(value - case.delta) <= 2 * error).mean():.1%} '
        f'| {spread:.2f} | {(~told).mean():.1%} |',
        flush=True,
      )


if __name__ == '__main__':
  main()
