"""What `tsla.smoothing.method` asks of a method, tried on small batches.

The docstring of a check is its name and what to do where it fails. A check
yields what it looked at, what it found there, and what that should be.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsla.smoothing.losses import hard_cross_entropy
from tsla.smoothing.method import Method, Seen, Task

_SIZES = ((2, False), (5, True), (10, False))  # K, and whether ŷ is given
_B = 4  # examples
_STEP = 1e-5  # of central differences in float64, which are 1e-9 off or less
Compared = Iterator[tuple[str, Any, Any]]


class Finding(NamedTuple):
  """Whether a method keeps one promise."""

  name: str
  wrong: str  # what is wrong, by how much, what to do; '' where it is kept


class _Measured(NamedTuple):
  value: Any  # f[B]
  gradient: Any  # f[B, K]


class _Case(NamedTuple):
  method: Method
  loss: Callable[..., _Measured]
  theta: float
  z: Any  # f[B, K]
  labels: Any  # i32[B]
  y_hat: Any  # f64[B, K] or None

  def at(self, z: Any, theta: Any = None, where: Any = None) -> _Measured:
    theta = self.theta if theta is None else theta
    return self.loss(z, self.labels, theta, self.y_hat, where)


def examine(method: Method) -> Iterator[Finding]:
  """Tries each promise; what the method raises is a finding too."""
  loss = _measured(method.loss)
  for dtype, at_most, checks in _LOSS + _TARGET * bool(method.target):
    for check in checks:
      name, _, cure = str(check.__doc__).rstrip('.').partition(': ')
      try:
        with jax.enable_x64(dtype == 'float64'):
          seen = [s for c in _cases(method, loss, dtype) for s in check(c)]
        off = next(filter(None, (_off(*s, at_most) for s in seen)), '')
        wrong = off and f'{off}; {cure}'
      except Exception as error:  # of any kind: the code is the user's
        said = str(error).strip().partition('\n')[0]
        wrong = f'it raises {type(error).__name__}: {said}'
      yield Finding(name, wrong)


def check_value(method: Method) -> None:
  """Raises ValueError unless ℓ_0 is cross-entropy, and ℓ affine in θ.

  What no run can do without, tried on one small batch; `examine` tries more.
  """
  for case in _cases(method, method.loss, 'float32'):
    plain = hard_cross_entropy(case.z, case.labels)
    zero, half, full = (
      method.loss(case.z, case.labels, part * case.theta, case.y_hat)
      for part in (0.0, 0.5, 1.0)
    )
    if zero.shape != plain.shape:
      raise ValueError(f'the loss is of shape {zero.shape} for {_B} examples')
    if not np.allclose(zero, plain, 1e-5, 1e-5):
      raise ValueError('at θ = 0 not cross-entropy, as tsla.penalised(R) is')
    if not np.allclose(2 * half, zero + full, 1e-3, 1e-3):
      raise ValueError('θ must be a factor of R, and nothing else')


def _measured(loss: Callable[..., jax.Array]) -> Callable[..., _Measured]:
  def total(z: Any, *args: Any) -> Any:
    value, dtype = loss(z, *args), np.promote_types(z.dtype, 'float32')
    if (value.shape, value.dtype) != (z.shape[:-1], dtype):
      found = f'{value.dtype}{list(value.shape)}'
      raise TypeError(f'the loss is {found} and not {dtype}[{len(z)}]')
    return value.sum(), value

  compiled = jax.jit(jax.grad(total, has_aux=True))
  return lambda *args: _Measured(*map(np.asarray, compiled(*args)[::-1]))


_cross_entropy = _measured(hard_cross_entropy)


def _cases(method: Method, loss: Any, dtype: str) -> Iterator[_Case]:
  theta = 0.3 * (min(method.highest, 1) or max(method.lowest, -1))
  for k, given in _SIZES:
    rng = np.random.default_rng(k)
    z = (3 * rng.normal(size=(_B, k))).astype(dtype)
    labels, y_hat = rng.integers(k, size=_B), rng.dirichlet(np.ones(k), _B)
    yield _Case(method, loss, theta, z, labels, y_hat if given else None)


def _off(what: str, found: Any, expected: Any, at_most: float) -> str:
  leaves = jax.tree_util.tree_leaves_with_path(found)
  for (path, f), e in zip(leaves, jax.tree.leaves(expected), strict=True):
    f, e = np.asarray(f, np.float64), np.asarray(e, np.float64)
    with np.errstate(invalid='ignore'):
      off = np.abs(f - e)  # NaN where both are infinite
      allowed = at_most * max(1, np.abs(e).max())
    if not off.max() <= allowed:
      at = np.unravel_index(off.argmax(), off.shape)
      by = f'off by {off[at]:.1g}' if np.isfinite(f[at]) else f[at]
      what += jax.tree_util.keystr(path, simple=True, separator='.')
      return f'{what} is {by} at {[*map(int, at)]} of {[*off.shape]}'
  return ''


def _gradient(c: _Case) -> Compared:
  """The gradient is the slope of the value: nothing may stop or round it."""
  steps = _STEP * np.eye(c.z.size).reshape(-1, *c.z.shape)
  rises = [(c.at(c.z + s).value - c.at(c.z - s).value).sum() for s in steps]
  slope = np.reshape(rises, c.z.shape) / (2 * _STEP)
  yield 'gradient', c.at(c.z).gradient, slope


def _affine(c: _Case) -> Compared:
  """Affine in θ: θ may be a factor of R, and nothing else."""
  zero, one = c.at(c.z, 0.0), c.at(c.z, 1.0)
  for t in (c.theta, max(c.method.lowest, -1.0), min(c.method.highest, 2.0)):
    line = jax.tree.map(lambda a, b, t=t: a + t * (b - a), zero, one)
    yield f'at θ = {t:g} the ', c.at(c.z, t), line


def _masked_class(c: _Case) -> Compared:
  """A masked class is as if removed: z.mean(-1, where=kept) leaves it out."""
  k = c.z.shape[-1]
  for left in (k - 1, 1):
    full = c._replace(labels=np.minimum(c.labels, left - 1))
    found = full.at(np.where(np.arange(k) < left, c.z, -np.inf))
    y_hat = jax.tree.map(lambda a, left=left: a[:, :left], c.y_hat)
    y_hat = jax.tree.map(lambda a: a / a.sum(-1, keepdims=True), y_hat)
    value, gradient = full._replace(y_hat=y_hat).at(c.z[:, :left])
    expected = _Measured(value, np.pad(gradient, ((0, 0), (0, k - left))))
    yield f'with {left} of {k} classes left the ', found, expected
    yield 'the sign of its gradient', np.sign(found.gradient[:, left:]), 0


def _ties(c: _Case) -> Compared:
  """Equal logits share the gradient: as z.max(-1) does, unlike an argmax."""
  y_hat = jax.tree.map(lambda a: a[:, ::-1], c.y_hat)
  turned = c._replace(labels=c.z.shape[-1] - 1 - c.labels, y_hat=y_hat)

  def both(z: np.ndarray) -> tuple[str, _Measured, _Measured]:
    value, gradient = turned.at(z[:, ::-1])
    found = _Measured(value, gradient[:, ::-1])
    return 'with the classes in another order the ', found, c.at(z)

  if not _off(*both(c.z), 1e-6):  # else R tells the classes apart anyway
    for z in (np.minimum(c.z, np.sort(c.z)[:, -2:-1]), 0 * c.z):
      yield both(z)


def _zero(c: _Case) -> Compared:
  """At θ = 0 it is cross-entropy: R is multiplied by θ."""
  yield '', c.at(c.z, 0.0), _cross_entropy(c.z, c.labels)


def _masked_example(c: _Case) -> Compared:
  """A masked example weighs nothing: whatever it holds, replace it first."""
  kept, theta = np.arange(_B) != 1, np.full(_B, c.theta)

  def held(arrays: Any, instead: float) -> Any:
    return jax.tree.map(lambda a: np.where(kept, a.T, instead).T, arrays)

  spoilt = c._replace(labels=held(c.labels, -1), y_hat=held(c.y_hat, np.nan))
  found = spoilt.at(held(c.z, np.nan), held(theta, np.nan), kept)
  yield '', found, held(c.at(c.z, theta, kept | True), 0)


def _huge(c: _Case) -> Compared:
  """Logits may be ±3e4: subtract the highest before an exp."""
  z = np.clip(1e4 * c.z, -3e4, 3e4)
  yield '', c.at(z), c.at(z)  # it is finite
  yield 'at θ = 0 the ', c.at(z, 0.0), _cross_entropy(z, c.labels)


def _apart(c: _Case) -> Compared:
  """No example sees another: R sums over classes only, axis −1."""
  others = np.where(np.arange(_B) < 2, c.z.T, 1 - c.z.T).T
  both = (jax.tree.map(lambda a: a[:2], c.at(z)) for z in (others, c.z))
  yield '', *both


def _half(c: _Case) -> Compared:
  """Half precision is rounded once: cast to float32 before all else."""
  value, gradient = c.at(c.z.astype(np.float32))
  yield '', c.at(c.z), _Measured(value, gradient.astype(c.z.dtype))


def _epochs(c: _Case) -> Iterator[Any]:
  """ŷ, the state, what a batch makes of it, and what that batch turned does."""
  k = c.z.shape[-1]
  assert c.method.target is not None  # as `examine` knows
  target = c.method.target(Task(k, 64, np.arange(64) % k))
  seen = Seen(c.labels, jnp.arange(_B), np.zeros((_B, 32, 32, 3), np.float32))
  y_hat, state = jax.jit(target.y_hat), target.state
  update = jax.jit(target.update or (lambda state, seen: state))
  end_epoch = jax.jit(target.end_epoch or (lambda state: state))
  for z in (c.z, np.clip(1e4 * c.z, -3e4, 3e4), c.z):
    batch = Seen(c.labels, seen.indices, logits=z)
    turned = update(state, jax.tree.map(lambda a: a[::-1], batch))
    after = update(state, batch)
    yield y_hat(target.arrays, state, seen), state, after, turned
    state = end_epoch(after)


def _y_hat(c: _Case) -> Compared:
  """The target is probabilities: f32[B, K] or f32[K], in [0, 1], of sum 1."""
  for y_hat, *_ in _epochs(c):
    if y_hat is not None:
      rows = np.broadcast_to(y_hat, c.z.shape)
      yield 'the sum of ŷ', rows.sum(-1), 1
      yield 'ŷ below 0', np.minimum(rows, 0), 0


def _state(c: _Case) -> Compared:
  """The state is finite arrays: of one shape, in any order of a batch."""
  first = None
  for _, state, after, turned in _epochs(c):
    shapes = [f'{a.dtype}{list(a.shape)}' for a in jax.tree.leaves(state)]
    if shapes != (first := first or shapes):
      raise TypeError(f'{first} becomes {shapes}')
    yield '', {'state': state}, state
    yield 'for a batch in another order the ', {'state': turned}, after


# Of the logits' dtype, how far off they may be where the greatest is ≤ 1, else
# in units of it.
_LOSS = (
  ('float64', 1e-6, (_gradient, _affine, _masked_class, _ties)),
  ('float32', 0, (_zero, _masked_example, _huge, _apart)),
  ('bfloat16', 1e-6, (_half,)),  # two programs: float32 may round otherwise
)
_TARGET = (('float32', 1e-5, (_y_hat, _state)),)
