"""`tsla check-method`: each promise that a method breaks is named."""

import jax
import jax.numpy as jnp
import pytest
from test_commands import assert_helps

import tsla
from tsla.__main__ import main
from tsla.smoothing import method_checks
from tsla.smoothing.methods import METHODS

SLOPE = 'The gradient is the slope of the value'
AFFINE = 'Affine in θ'
CLASS = 'A masked class is as if removed'
TIES = 'Equal logits share the gradient'
ZERO = 'At θ = 0 it is cross-entropy'
EXAMPLE = 'A masked example weighs nothing'
HUGE = 'Logits may be ±3e4'
APART = 'No example sees another'
HALF = 'Half precision is rounded once'
Y_HAT = 'The target is probabilities'
STATE = 'The state is finite arrays'
OF_LOSS = [SLOPE, AFFINE, CLASS, TIES, ZERO, EXAMPLE, HUGE, APART, HALF]


@pytest.fixture
def one_size(monkeypatch):
  """One is enough to notice what is wrong, and compiles in a third of time."""
  monkeypatch.setattr(method_checks, '_SIZES', ((5, True),))


def assert_broken(method, promises):
  """Those are broken and no other; the words begin with what is wrong."""
  found = {
    name: wrong for name, wrong in method_checks.examine(method) if wrong
  }
  assert found.keys() == promises.keys(), found
  for name, wrong in found.items():
    assert wrong.startswith(promises[name]), (name, wrong)
    assert wrong.startswith('it raises') or '; ' in wrong


@pytest.mark.ci
@pytest.mark.parametrize('name', METHODS)
def test_each_method_of_the_table_keeps_every_promise(name, capsys):
  assert main(['check-method', name]) == 0
  lines = capsys.readouterr().out.splitlines()
  expected = OF_LOSS + [Y_HAT, STATE] * (name == 'online')
  assert lines == [f'ok    {promise}' for promise in expected]


def last_of(z):
  return z.shape[-1] - 1 - z[..., ::-1].argmax(-1)


PENALTIES = {
  'overflows': (
    lambda z, kept: jnp.exp(z).mean(-1, where=kept),
    {HUGE: 'value is inf at ['},
  ),
  'a mean over masked classes': (
    lambda z, kept: z.max(-1) - z.mean(-1),
    {CLASS: 'with 4 of 5 classes left the value is off by 6e+02 at ['},
  ),
  'looks at the batch': (
    lambda z, kept: z.max(-1) - z.max(-1).mean(),
    {EXAMPLE: 'value is off by ', APART: 'value is off by '},
  ),
  'a stopped gradient': (
    lambda z, kept: jax.lax.stop_gradient(z.max(-1)) * z.max(-1),
    {SLOPE: 'gradient is off by '},
  ),
  'the last of the highest': (
    lambda z, kept: jnp.take_along_axis(z, last_of(z)[..., None], -1)[..., 0],
    {TIES: 'with the classes in another order the gradient is off by 0.3 at ['},
  ),
  'tells classes apart': (lambda z, kept: z.max(-1) - z[..., 0], {}),
  'raises': (
    lambda z, kept: z.max(-1) if z.max() > 0 else 0 * z.max(-1),
    dict.fromkeys(OF_LOSS, 'it raises TracerBoolConversionError: Attempted '),
  ),
}


@pytest.mark.parametrize('name', PENALTIES)
def test_what_a_penalty_does_wrong_is_found(name, one_size):
  penalty, promises = PENALTIES[name]
  loss = tsla.penalised(lambda z, labels, y_hat, kept: penalty(z, kept))
  assert_broken(tsla.Method(loss), promises)


def of_theta(penalty):
  """Its R depends on θ."""

  def loss(z, labels, theta, y_hat=None, where=None):
    of = tsla.penalised(lambda z, labels, y_hat, kept: penalty(z, theta))
    return of(z, labels, theta, y_hat, where)

  return loss


def scaled(z, labels, theta, y_hat=None, where=None):
  return 2 * tsla.smoothed_cross_entropy(z, labels, theta, y_hat, where)


def in_half(z, labels, theta, y_hat=None, where=None):
  """It adds two gradients that are rounded."""
  hard = tsla.hard_cross_entropy(z, labels, where)
  if where is not None:
    z = jnp.where(where[:, None], z, 0)
    theta = jnp.where(where, theta, 0)
  return hard + theta * z.max(-1).astype(hard.dtype)


def unmasked(z, labels, theta, y_hat=None, where=None):
  loss = tsla.smoothed_cross_entropy(z, labels, theta, y_hat)
  return loss if where is None else jnp.where(where, loss, 0)


def one_value(z, labels, theta, y_hat=None, where=None):
  return tsla.smoothed_cross_entropy(z, labels, theta, y_hat, where).mean()


LOSSES = {
  'θ squared': (
    of_theta(lambda z, theta: jnp.mean(theta) * z.max(-1)),
    {AFFINE: 'at θ = 0.3 the value is off by ', EXAMPLE: 'value is nan at [0]'},
  ),
  'twice': (
    scaled,
    {ZERO: 'value is off by ', HUGE: 'at θ = 0 the value is off by '},
  ),
  'rounded twice': (in_half, {HALF: 'gradient is off by 0.00'}),
  'masked too late': (unmasked, {EXAMPLE: 'gradient is nan at [1, 0] of '}),
  'a mean': (
    one_value,
    dict.fromkeys(OF_LOSS, 'it raises TypeError: the loss'),
  ),
}


@pytest.mark.parametrize('name', LOSSES)
def test_what_a_loss_does_wrong_is_found(name, one_size):
  loss, promises = LOSSES[name]
  assert_broken(tsla.Method(loss, highest=1.0), promises)


def uniform(arrays, state, seen):
  return None


def average(state, seen):
  return {'mean': 0.9 * state['mean'] + 0.1 * jnp.log(seen.logits).mean()}


TARGETS = {
  'a sum of 2': (
    {'y_hat': lambda arrays, state, seen: jnp.full((4, 1), 0.4)},
    {Y_HAT: 'the sum of ŷ is off by 1 at [0] of [4]'},
  ),
  'less than 0': (
    {'y_hat': lambda arrays, state, seen: jnp.array([2.0, -1, 0, 0, 0])},
    {Y_HAT: 'ŷ below 0 is off by 1 at [0, 1] of [4, 5]'},
  ),
  'logits for ŷ': (
    {'y_hat': lambda arrays, state, seen: jax.nn.softmax(seen.logits)},
    dict.fromkeys((Y_HAT, STATE), 'it raises TypeError: '),
  ),
  'NaN': (
    {'state': {'mean': jnp.zeros(())}, 'update': average},
    {STATE: 'for a batch in another order the state.mean is nan at [] of []'},
  ),
  'NaN in the end': (
    {'state': jnp.zeros(3), 'end_epoch': lambda state: state / state.sum()},
    {STATE: 'state is nan at [0] of [3]'},
  ),
  'another dtype': (
    {'state': jnp.zeros(3), 'end_epoch': lambda s: s.astype(jnp.bfloat16)},
    {STATE: "it raises TypeError: ['float32[3]'] becomes ['bfloat16[3]']"},
  ),
  'the first example': (
    {'state': jnp.zeros(()), 'update': lambda s, seen: s + seen.logits[0, 0]},
    {STATE: 'for a batch in another order the state is off by '},
  ),
}


@pytest.mark.parametrize('name', TARGETS)
def test_what_a_target_does_wrong_is_found(name, one_size):
  fields, promises = TARGETS[name]

  def target(task):
    return tsla.Target(**{'y_hat': uniform} | fields)

  assert_broken(tsla.Method(tsla.smoothed_cross_entropy, target), promises)


OWN = """
import jax.numpy as jnp
from tsla import Method, penalised

def scaled(by: float = 1.0) -> Method:
  return Method(penalised(lambda z, y, q, kept: jnp.exp(z / by).max(-1)))
"""


def test_a_method_of_ones_own_and_its_options(one_size, tmp_path, capsys):
  file = tmp_path / 'own.py'
  file.write_text(OWN)
  assert main(['check-method', f'{file}:scaled', '--options=by=1e4']) == 0
  assert 'WRONG' not in capsys.readouterr().out
  assert main(['check-method', f'{file}:scaled']) == 1
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == f'ok    {SLOPE}'
  (line,) = (line for line in lines if line.startswith('WRONG'))
  assert line.startswith(f'WRONG {HUGE}: value is inf at [')
  assert line.endswith('; subtract the highest before an exp')


@pytest.mark.parametrize(
  ('argv', 'words'),
  [
    ([], ['method', 'check-method --help']),
    (['maxsup'], ["'maxsup': no method", 'max_suppression', 'FILE.py:name']),
    (['online', '--options=m=5'], ["online has no option 'm'"]),
    (['none.py:own'], ['none.py:', 'No such file']),
  ],
)
def test_what_is_no_method_is_three_lines(argv, words, capsys):
  code = main(['check-method', *argv])
  out, error = capsys.readouterr()
  assert not out
  assert_helps(code, error, *words)
