"""The automatic switch: rules, hysteresis, bounds; momentum at the switch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tsla
from tsla.smoothing import auto
from tsla.smoothing.estimates import Estimate, GradientStatistics

PARAMS = {'w': jnp.ones(2)}


def seen(held_out_loss=float('nan'), **values):
  """An observation in which every other number is 0.5, its error 0.01."""
  found = {name: 0.5 for name in GradientStatistics._fields} | values
  return tsla.Observation(
    GradientStatistics(
      **{
        n: Estimate(jnp.float32(v), jnp.float32(0.01)) for n, v in found.items()
      }
    ),
    jnp.float32(held_out_loss),
  )


def thetas(switch, observations, tx=None):
  """θ of each update, with an observation before it where there is one."""
  tx = tx or optax.chain(switch.transformation, optax.sgd(0.1))
  state, found = tx.init(PARAMS), []
  observe, update = jax.jit(switch.observe), jax.jit(tx.update)
  for each in observations:
    if each is not None:
      state = observe(state, each)
    found.append(float(tsla.current_theta(state)))
    _, state = update(PARAMS, state, PARAMS)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
  return np.round(found, 6).tolist()


FIRES, QUIET = seen(delta=1.1), seen(delta=0.9)


@pytest.mark.parametrize(
  ('observations', 'expected'),
  [
    ([FIRES, FIRES, QUIET, QUIET], [0.4, 0, 0, 0]),  # once
    ([FIRES, QUIET, FIRES, FIRES], [0.4, 0.4, 0.4, 0]),  # in a row
    ([FIRES, None, None, FIRES, None], [0.4, 0.4, 0.4, 0, 0]),
    ([QUIET, seen(delta=float('nan'))] * 2, [0.4] * 4),
  ],
)
def test_a_rule_that_fires_twice_in_a_row_drops_theta_once(
  observations, expected
):
  switch = tsla.auto_two_stage(0.4, 'delta', patience=2)
  assert thetas(switch, observations) == expected


def test_nothing_is_decided_before_min_step_and_all_by_max_step():
  switch = tsla.auto_two_stage(0.4, 'delta', min_step=2, max_step=4)
  assert thetas(switch, [FIRES] * 5) == [0.4, 0.4, 0, 0, 0]
  assert thetas(switch, [QUIET] * 6) == [0.4, 0.4, 0.4, 0.4, 0, 0]
  switch = tsla.auto_two_stage(0.4, 'optimal', min_step=1, max_step=3)
  best = [seen(theta_star=v) for v in (0.9, 0.3, float('nan'), 0.8)]
  assert thetas(switch, best) == [0.4, 0.3, 0.3, 0]


def test_optimal_follows_up_and_down_and_between_observations():
  switch = tsla.auto_two_stage(0.4, 'optimal')
  best = [seen(theta_star=v) for v in (-0.2, 0.7, 1.3)]
  best.insert(2, None)
  assert thetas(switch, best) == [0, 0.7, 0.7, 1]
  # Within the bounds of the method, which may be below 0; −1 is a θ too.
  switch = tsla.auto_two_stage(0.4, 'optimal', lowest=-2.0, highest=1.1)
  best = [seen(theta_star=v) for v in (-1.0, -3.0, 1.3)]
  assert thetas(switch, best) == [-1, -2, 1.1]


def test_a_rule_of_ones_own_is_asked_by_name():
  rules = tsla.smoothing.rules.RULES | {
    'short': lambda seen, memory: seen.statistics.grad_norm.value < 0.4
  }
  switch = tsla.auto_two_stage(0.4, 'short', patience=1, rules=rules)
  assert thetas(switch, [QUIET, seen(grad_norm=0.3)]) == [0.4, 0]


def test_momentum_and_theta_know_smoothing_below_zero():
  switch = tsla.auto_two_stage(-0.4, 'optimal', lowest=-1.0)
  assert thetas(switch, [seen(theta_star=-0.2)]) == [-0.2]
  tx = tsla.reset_momentum(
    optax.chain(
      tsla.label_smoothing(tsla.two_stage(-0.1, drop_step=1)),
      optax.sgd(1.0, momentum=0.5),
    )
  )
  state, updates = tx.init(jnp.zeros(())), []
  for _ in range(3):
    update, state = tx.update(jnp.ones(()), state)
    updates.append(float(update))
  assert updates == [-1, -1, -1.5]


@pytest.mark.parametrize(
  ('rule', 'first', 'second', 'fires'),
  [
    ('mse', {}, {'mse_ratio': 1.01}, True),
    ('mse', {}, {'mse_ratio': 0.99}, False),
    ('floor', {}, {'smoothed_grad_norm': 0.495, 'cosine': 0.4}, True),
    ('floor', {}, {'smoothed_grad_norm': 0.485, 'cosine': 0.4}, False),
    ('floor', {}, {'smoothed_grad_norm': 0.6, 'cosine': 0.6}, False),
    ('floor', {'smoothed_grad_norm': float('nan')}, {'cosine': 0.4}, False),
    ('plateau', {'held_out_loss': 1.0}, {'held_out_loss': 1.0}, True),
    ('plateau', {'held_out_loss': 1.0}, {'held_out_loss': 0.99}, False),
    ('plateau', {}, {}, False),
  ],
)
def test_each_rule_says_what_its_name_does(rule, first, second, fires):
  switch = tsla.auto_two_stage(0.4, rule, patience=1)
  expected = [0.4, 0 if fires else 0.4]
  assert thetas(switch, [seen(**first), seen(**second)]) == expected
  # Whichever is in force, all are asked.
  tx = auto.adaptive_smoothing(tsla.constant(0.4))
  state = tx.init(PARAMS)
  for each in (first, second):
    state = tsla.observe(state, seen(**each), tsla.constant(0.4), rule='')
    _, state = tx.update(PARAMS, state)
  assert (int(auto.auto_state(state).memory.firings[rule]) == 1) == fires
  assert float(tsla.current_theta(state)) == pytest.approx(0.4)


def test_an_observation_at_the_same_count_replaces_the_last():
  switch = tsla.auto_two_stage(0.4, 'delta', patience=2)
  tx = switch.transformation
  once = switch.observe(tx.init(PARAMS), FIRES)
  twice = switch.observe(once, FIRES)
  for a, b in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True):
    np.testing.assert_array_equal(a, b)
  assert (
    int(auto.auto_state(switch.observe(twice, QUIET)).memory.firings['delta'])
    == 0
  )
  # A decision too: it was made on what is no longer so.
  _, state = tx.update(PARAMS, once)
  assert float(tsla.current_theta(switch.observe(state, FIRES))) == 0
  state = switch.observe(switch.observe(state, FIRES), QUIET)
  assert float(tsla.current_theta(state)) == pytest.approx(0.4)


def test_it_mixes_gradients_as_label_smoothing_does():
  switch = tsla.auto_two_stage(0.25, 'delta', patience=1)
  state = switch.transformation.init(PARAMS)
  other = {'w': jnp.zeros(2)}
  mixed, _ = switch.transformation.update(
    PARAMS, state, smoothing_updates=other, unknown=1
  )
  np.testing.assert_allclose(mixed['w'], 0.75)
  state = switch.observe(state, FIRES)
  mixed, _ = switch.transformation.update(
    PARAMS, state, smoothing_updates=other
  )
  np.testing.assert_allclose(mixed['w'], 1)


def test_another_schedule_takes_no_decision_back():
  switch = tsla.auto_two_stage(0.4, 'delta', patience=1)
  state = switch.transformation.init(PARAMS)
  other = tsla.constant(0.2)
  theta = tsla.current_theta(tsla.with_schedule(state, other))
  assert float(theta) == pytest.approx(0.2)
  state = switch.observe(state, FIRES)
  assert float(tsla.current_theta(tsla.with_schedule(state, other))) == 0
  switch = tsla.auto_two_stage(0.4, 'optimal')
  state = switch.observe(state, seen(theta_star=0.7))
  assert float(tsla.current_theta(tsla.with_schedule(state, other))) == (
    pytest.approx(0.7)
  )


@pytest.mark.parametrize(
  ('kwargs', 'message'),
  [
    ({'rule': 'dleta'}, "rule = 'dleta' must be one of delta, mse"),
    ({'rule': ''}, 'must be one of delta, mse'),
    (
      {'min_step': 5, 'max_step': 5},
      r'max_step = 5 .* in \[6, ',
    ),
    ({'patience': 0}, 'patience = 0'),
    ({'patience': 1.5}, 'patience = 1.5 must be an integer'),
    ({'min_step': 1.5}, 'min_step = 1.5 must be an integer'),
    ({'min_step': -1}, 'min_step = -1'),
    ({'max_step': True}, 'max_step = True must be an integer'),
    ({'theta': float('inf')}, 'theta = inf'),
  ],
)
def test_what_cannot_be_is_refused(kwargs, message):
  with pytest.raises(ValueError, match=message):
    tsla.auto_two_stage(**{'theta': 0.1, 'rule': 'delta'} | kwargs)


def test_a_state_without_the_switch_is_explained():
  state = tsla.label_smoothing(tsla.none()).init(PARAMS)
  with pytest.raises(ValueError, match='0 AutoStates'):
    tsla.observe(state, FIRES, tsla.none(), rule='delta')


@pytest.mark.parametrize('rule', ['dleta', 0, None])
def test_observe_takes_rules_by_name(rule):
  schedule = tsla.constant(0.4)
  state = tsla.adaptive_smoothing(schedule).init(PARAMS)
  with pytest.raises(ValueError, match=f'rule = {rule!r} must be one of delta'):
    tsla.observe(state, FIRES, schedule, rule=rule)
  named = [tsla.observe(state, FIRES, schedule, rule=r) for r in ('delta', '')]
  assert [float(tsla.current_theta(s)) > 0 for s in named] == [False, True]
  numbered = tsla.observe(
    state, FIRES, schedule, rule=jnp.int32(tsla.rule_number('delta'))
  )
  assert float(tsla.current_theta(numbered)) == 0


def test_momentum_is_numpys_begun_anew_at_the_switch_and_the_rate_goes_on():
  rate = [1.0, 0.9, 0.8, 0.7, 0.6]
  grads, drop = [1.0, 2.0, -1.0, 3.0, 0.5], 3
  tx = tsla.reset_momentum(
    optax.chain(
      tsla.label_smoothing(tsla.two_stage(0.1, drop)),
      optax.sgd(lambda count: jnp.array(rate)[count], momentum=0.9),
    )
  )
  state, buffer = tx.init(jnp.zeros(())), 0.0
  update = jax.jit(tx.update)
  for step, grad in enumerate(grads):
    buffer = (0.0 if step == drop else 0.9 * buffer) + grad
    got, state = update(jnp.float32(grad), state)
    assert float(got) == pytest.approx(-rate[step] * buffer, rel=1e-6), step


def test_adams_moments_begin_anew_with_their_count():
  grads, drop = np.array([[1.0, -2.0], [0.5, 3.0], [2.0, 1.0], [1.0, 0.1]]), 2
  tx = tsla.reset_momentum(
    optax.chain(
      tsla.label_smoothing(tsla.two_stage(0.1, drop)),
      optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-8),
    )
  )
  state = tx.init(jnp.zeros(2))
  for step, grad in enumerate(grads):
    if step in (0, drop):
      mean, square, count = np.zeros(2), np.zeros(2), 0
    count += 1
    mean = 0.9 * mean + 0.1 * grad
    square = 0.99 * square + 0.01 * grad**2
    expected = (mean / (1 - 0.9**count)) / (
      np.sqrt(square / (1 - 0.99**count)) + 1e-8
    )
    got, state = tx.update(jnp.asarray(grad, jnp.float32), state)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


OPTIMISERS = {
  'adabelief': optax.adabelief,
  'yogi': optax.yogi,
  'amsgrad': optax.amsgrad,
  'rmsprop': optax.rmsprop,
  'rmsprop, centred': lambda rate: optax.rmsprop(rate, centered=True),
  'novograd': optax.novograd,
  'adan': optax.adan,
  'adafactor': lambda rate: optax.adafactor(rate, momentum=0.9),
  'adafactor, factored': lambda rate: optax.adafactor(
    rate, min_dim_size_to_factor=2
  ),
  'lion': optax.lion,
  'lamb': optax.lamb,
  'adagrad': optax.adagrad,
  'adadelta': optax.adadelta,
  'sm3': optax.sm3,
  'rprop': optax.rprop,
  'muon': optax.contrib.muon,
  'rmsprop, corrected': lambda rate: optax.rmsprop(rate, bias_correction=True),
  'rmsprop, both': lambda rate: optax.rmsprop(
    rate, centered=True, bias_correction=True
  ),
  'optimistic': optax.optimistic_adam_v2,
  'ademamix': optax.contrib.ademamix,
  'simplified ademamix': optax.contrib.simplified_ademamix,
  'madgrad': optax.contrib.madgrad,
  'prodigy': optax.contrib.prodigy,
  'dadapt': optax.contrib.dadapt_adamw,
  'cocob': optax.contrib.cocob,
}


@pytest.mark.ci
@pytest.mark.parametrize('name', OPTIMISERS)
def test_every_momentum_begins_anew_as_a_new_optimiser_does(name):
  optimiser = OPTIMISERS[name](0.1)
  rng = np.random.default_rng(0)
  params = {'w': jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)}
  grads = rng.normal(size=(5, 3, 4)).astype(np.float32)
  grads[:2] *= 10  # Lion, which looks at signs, shall remember them
  grads = [{'w': jnp.array(each)} for each in grads]
  chain = optax.chain(tsla.label_smoothing(tsla.two_stage(0.1, 2)), optimiser)

  def updates(tx, grads):
    state, update = tx.init(params), jax.jit(tx.update)
    for each in grads:
      found, state = update(each, state, params)
      yield np.asarray(found['w'])

  kept = [*updates(chain, grads)]
  reset = [*updates(tsla.reset_momentum(chain), grads)]
  new = [*updates(optimiser, grads[2:])]
  np.testing.assert_allclose(reset, kept[:2] + new, rtol=1e-5, atol=1e-7)
  assert not np.allclose(kept[3:], new[1:], rtol=1e-3)


@pytest.mark.parametrize(
  ('wrap', 'params', 'updated'),
  [
    (lambda tx: optax.MultiSteps(tx, 1), PARAMS, lambda u: u),
    (
      lambda tx: optax.lookahead(tx, 2, 0.5),
      optax.LookaheadParams(PARAMS, PARAMS),
      lambda u: u.fast,
    ),
  ],
)
def test_gradients_that_would_not_be_mixed_are_refused(wrap, params, updated):
  smooth, sgd = tsla.label_smoothing(tsla.constant(0.25)), optax.sgd(1.0, 0.9)
  tx = tsla.reset_momentum(wrap(optax.chain(smooth, sgd)))
  state, other = tx.init(params), {'w': jnp.zeros(2)}
  tx.update(PARAMS, state, params)
  with pytest.raises(TypeError, match=r'smoothing_updates .*chain\(label_smo'):
    tx.update(PARAMS, state, params, smoothing_updates=other)
  tx = tsla.reset_momentum(optax.chain(smooth, wrap(sgd)))  # the cure
  updates, _ = tx.update(
    PARAMS, tx.init(params), params, smoothing_updates=other
  )
  np.testing.assert_allclose(updated(updates)['w'], -0.75)


@pytest.mark.parametrize(
  ('rules', 'shown', 'message'),
  [
    (['delta'], FIRES, r"rules = \['delta'\] must be functions by name"),
    ({'delta': 1}, FIRES, 'must be functions by name'),
    ({'own': tsla.RULES['delta']}, FIRES, r"\['own'\].*\['delta', 'floor'"),
    (tsla.RULES, FIRES.statistics, r'A GradientStatistics .*tsla\.Observation'),
  ],
)
def test_wrong_rules_and_bare_statistics_are_refused(rules, shown, message):
  schedule = tsla.constant(0.4)
  state = tsla.adaptive_smoothing(schedule).init(PARAMS)
  rule = next(iter(rules))
  with pytest.raises(ValueError, match=message):
    tsla.observe(state, shown, schedule, rule=rule, rules=rules)
  if 'functions' in message:
    with pytest.raises(ValueError, match=message):
      tsla.auto_two_stage(0.4, rule, rules=rules)


def test_no_momentum_is_refused():
  tx = tsla.reset_momentum(
    optax.chain(tsla.label_smoothing(tsla.none()), optax.sgd(0.1))
  )
  with pytest.raises(ValueError, match='No momentum in the optimiser state'):
    tx.init(PARAMS)
