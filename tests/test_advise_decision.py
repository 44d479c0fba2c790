"""What the adviser decides, from tables of which the tests are known by hand.

Most tables have columns that are alike, so that the two-way test is a paired t,
and rows g ± s in turn: after n of them, n even, t is g √(n - 1) / s.
"""

import importlib
import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from support import ROOT

from tsla.advise.decision import (
  BASELINE,
  METRICS,
  Arm,
  Question,
  choose,
  follow,
  judge,
  per_image,
)
from tsla.evaluation.calibration import Scores

LSR, TSLA = (Arm('label_smoothing', 0.1, drop) for drop in (0, 7))
LOOKS = 6, 10, 16


def level(look, alpha=0.05):
  """What O'Brien and Fleming's spending leaves to a look."""
  z = NormalDist().inv_cdf(1 - alpha / 2)
  spent = [2 * NormalDist().cdf(-z / math.sqrt(n / 16)) for n in LOOKS]
  return spent[look] - (spent[look - 1] if look else 0)


def needed(p, n):
  """The g / s of which the p-value of n seeds is p."""
  return stats.t.isf(p / 2, n - 1) / math.sqrt(n - 1)


def rows(*gains, n=16, images=4):
  """Rows g + 1, g - 1, ..., the same on each image; a g, or one a seed."""
  g = np.array(gains) if len(gains) > 1 else np.full(n, gains[0])
  return np.repeat((g + (-1.0) ** np.arange(n))[:, None], images, 1)


def table(baseline, **arms):
  """Runs of one metric: by arm its forms, each seeds × images."""
  names = {'lsr': LSR.name, 'tsla': TSLA.name}
  own = {BASELINE: baseline} | {names[k]: v for k, v in arms.items()}
  return {name: np.array(forms) for name, forms in own.items()}


def together(**tables):
  """Runs of several metrics."""
  names = {name for own in tables.values() for name in own}
  return {
    name: {m: own[name] for m, own in tables.items() if name in own}
    for name in names
  }


ZEROS = np.zeros((16, 4))
UNCLEAR = 0.55  # not told: p is 0.05 at 16 seeds; never futile


def one(gain, **arms):
  """LSR against a baseline of one form, by so much."""
  gains = gain if isinstance(gain, tuple) else (gain,)
  return table([ZEROS], lsr=[rows(*gains)], **arms)


def ask(*metrics, companion=None, control=0):
  return [Question(m, ((LSR, 0),), control, companion) for m in metrics]


def told(decision):
  return {f.question.metric: f.told for f in decision.findings}


# Choosing ------------------------------------------------------------------


def test_the_candidate_is_the_best_of_arms_and_forms():
  arms = [Arm('label_smoothing', t, d) for t in (0.1, 0.2) for d in (0, 5, 7)]
  means = {BASELINE: (3, 9)}
  values = [(1, 4), (2, 3), (0, 6), (7, 2), (5, 6), (6, 8)]
  means |= {a.name: v for a, v in zip(arms, values, strict=True)}
  noise = np.random.default_rng(0).standard_normal((4, 5))
  noise -= noise.mean()
  screen = {
    name: {'nll': np.array([v + noise for v in pair])}
    for name, pair in means.items()
  }
  (found,) = choose(screen, arms, ['nll'])
  # 8 is the best of all, at θ 0.2, dropped at 7, in the second form.
  assert found == Question('nll', ((arms[5], 1),), 1, arms[3])
  for order in itertools.islice(itertools.permutations(arms), 0, 720, 97):
    assert choose(screen, order, ['nll']) == [found]
  # Without it 7: kept, so its companion is the better of those dropped.
  del screen[arms[5].name]
  (found,) = choose(screen, arms[:5], ['nll'])
  assert found == Question('nll', ((arms[3], 0),), 1, arms[4])
  (found,) = choose(screen, [arms[0], arms[3]], ['nll'])
  assert found.companion is None
  screen[arms[4].name]['nll'][0] = 9.0  # now dropped at 5 is the best
  assert choose(screen, arms[3:5], ['nll'])[0].companion == arms[3]
  assert choose(screen, [*arms[:4], arms[4]], ['nll'])[0].companion == arms[3]


def test_of_those_dropped_the_companion_is_the_best_in_the_same_form():
  arms = [Arm('label_smoothing', 0.1, d) for d in (0, 5, 7)]
  means = {BASELINE: (0, 0), arms[0].name: (1, 9)}
  means |= {arms[1].name: (8, 2), arms[2].name: (1, 3)}
  screen = {
    name: {'nll': np.array([np.full((4, 3), v) for v in pair])}
    for name, pair in means.items()
  }
  assert choose(screen, arms, ['nll'])[0].companion == arms[2]


def test_an_arm_without_a_known_mean_is_not_chosen():
  screen = {
    BASELINE: {'nll': np.zeros((2, 4, 3))},
    LSR.name: {'nll': np.full((2, 4, 3), np.nan)},
    TSLA.name: {'nll': np.full((2, 4, 3), -1.0)},
  }
  (found,) = choose(screen, [LSR, TSLA], ['nll'])
  assert found.candidates == ((TSLA, 0),)
  assert found.companion == LSR


# Holm, looks, futility -------------------------------------------------------


@pytest.mark.parametrize(
  ('p_values', 'expected'),
  [
    ((0.016, 0.024, 0.049), (1, 1, 1)),
    ((0.049, 0.016, 0.024), (1, 1, 1)),
    ((0.016, 0.026, 0.049), (1, 0, 0)),
    ((0.016, 0.024, 0.051), (1, 1, 0)),
    ((0.017, 0.017, 0.017), (0, 0, 0)),
    ((0.001, 0.001, 0.001), (1, 1, 1)),
  ],
)
@pytest.mark.parametrize('sign', [1, -1])
def test_metrics_are_told_by_holm_s_method(p_values, expected, sign):
  own = {
    metric: one(sign * needed(p, 16))
    for metric, p in zip(METRICS, p_values, strict=True)
  }
  found = follow(together(**own), ask(*METRICS), (16,))
  assert tuple(told(found).values()) == tuple(sign * e for e in expected)
  for finding, p in zip(found.findings, p_values, strict=True):
    assert finding.comparison.p_value == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize('look', [0, 1, 2])
@pytest.mark.parametrize('factor', [0.97, 1.03])
def test_a_look_tells_at_what_the_spending_leaves_it(look, factor):
  """Of so many seeds the p-value is just below it, or just above."""
  n = LOOKS[look]
  gain = needed(factor * level(look), n)
  own = table([ZEROS[:n]], lsr=[rows(gain, n=n)])
  found = follow(together(nll=own), ask('nll'), LOOKS)
  (finding,) = found.findings
  assert found.seeds == n
  assert (finding.told, finding.look) == (int(factor < 1), look)
  assert finding.level == pytest.approx(level(look), rel=1e-9)
  if factor < 1:
    assert found.ended == 'told_all'
  else:
    assert found.ended == ('' if n < 16 else 'all_seeds')


def test_what_is_told_stays_told_whatever_comes():
  early = (9.0,) * 6 + (-40.0,) * 10
  own = together(top1=one(early), nll=one(UNCLEAR))
  found = follow(own, ask('top1', 'nll'), LOOKS)
  first = found.findings[0]
  assert found.seeds == 16
  assert (first.told, first.look) == (1, 0)
  assert first.level == pytest.approx(level(0, 0.025), rel=1e-9)
  assert first.comparison.lead.mean == pytest.approx(9)
  assert len(first.comparisons) == len(found.findings[1].comparisons)
  assert first.comparisons[-1].lead.mean < 0
  assert judge(found, LOOKS, {})[0].kind == 'smooth'


def test_it_ends_where_all_is_told_or_the_rest_is_futile():
  clear, nothing, unclear = one(9.0), one(0.0), one(UNCLEAR)
  for own, ended, seeds in (
    ({'nll': clear}, 'told_all', 6),
    ({'nll': nothing}, 'futile', 6),
    ({'top1': clear, 'nll': nothing}, 'futile', 6),
    ({'nll': unclear}, 'all_seeds', 16),
    ({'top1': nothing, 'nll': unclear}, 'all_seeds', 16),
  ):
    found = follow(together(**own), ask(*own), LOOKS)
    assert (found.ended, found.seeds) == (ended, seeds), own
  assert told(follow(together(nll=unclear), ask('nll'), LOOKS)) == {'nll': 0}


def test_it_goes_as_far_as_every_arm_has_seeds():
  runs = together(nll=one(9.0))
  assert follow(runs, ask('nll'), (17, 20)) == ((), 0, '')
  for few in (1, 5):
    runs[LSR.name]['nll'] = one(9.0)[LSR.name][:, :few]
    assert follow(runs, ask('nll'), LOOKS) == ((), 0, '')
  runs[LSR.name]['nll'] = one(UNCLEAR)[LSR.name][:, :9]
  found = follow(runs, ask('nll'), LOOKS)
  assert (found.seeds, found.ended) == (6, '')


# Forms, companions, verdicts -------------------------------------------------


def two_forms(trained, by_temperature, arm=0.0):
  """A candidate less each form of the baseline: so much."""
  return table(
    [ZEROS - trained, ZEROS - by_temperature], lsr=[rows(arm), rows(arm)]
  )


def verdict_of(own, worth=0.0, metric='nll', looks=(16,), **asked):
  found = follow(together(**{metric: own}), ask(metric, **asked), looks)
  return judge(found, looks, {metric: worth})[0]


def test_better_is_better_than_both_forms_at_the_larger_p_value():
  strong, weak = needed(0.001, 16), needed(0.03, 16)
  for trained, by, p in ((strong, weak, 0.03), (weak, strong, 0.03)):
    found = verdict_of(two_forms(trained, by), control=1)
    assert found.comparison.p_value == pytest.approx(p, rel=1e-9)
    assert found.kind == 'smooth'
  unclear = needed(0.06, 16)
  for trained, by in ((strong, unclear), (unclear, strong)):
    found = verdict_of(two_forms(trained, by), control=1)
    assert (found.kind != 'smooth') and not found.told


def test_worse_is_worse_than_the_better_form():
  found = verdict_of(two_forms(-needed(0.5, 16), -needed(0.04, 16)), control=1)
  assert found.told == -1
  assert found.kind == 'dont'
  found = verdict_of(two_forms(-needed(0.01, 16), -needed(0.06, 16)), control=1)
  assert found.told == 0
  # In between it is neither.
  found = verdict_of(two_forms(3.0, -3.0), control=0)
  assert found.comparison.p_value == 1


def test_where_a_temperature_does_as_well_it_says_calibrate():
  clear = needed(0.001, 16)
  # Worse than the calibrated baseline, better than it as trained.
  assert verdict_of(two_forms(clear, -clear), control=1).kind == 'calibrate'
  # A gain over the calibrated one is excluded.
  same = two_forms(clear, 0.0)
  end = stats.t.isf(0.025, 15) / math.sqrt(15)  # of 0 ± 1 / √15
  found = verdict_of(same, worth=1.01 * end, control=1)
  assert found.told == 0
  assert found.kind == 'calibrate'
  assert found.gain_below == pytest.approx(end, rel=1e-9)
  # It is not: nobody knows.
  found = verdict_of(same, worth=0.99 * end, control=1)
  assert found.kind == 'beyond_temperature'
  # As trained there is no gain either, or none that matters.
  assert verdict_of(two_forms(0.0, -clear), control=1).kind == 'dont'
  found = verdict_of(two_forms(clear, -clear), worth=9.0, control=1)
  assert found.kind == 'dont'
  assert verdict_of(two_forms(0.0, 0.0), worth=0.0).kind == 'no_evidence'


def test_a_gain_is_excluded_at_the_share_of_a_metric():
  """With three metrics, the end of an interval of 1 - 5 %/3."""
  g = 0.1
  own = {metric: one(g) for metric in METRICS}
  found = follow(together(**own), ask(*METRICS), (16,))
  end = g + stats.t.isf(0.05 / 6, 15) / math.sqrt(15)
  for worth, kind in ((0.99 * end, 'no_evidence'), (1.01 * end, 'dont')):
    verdicts = judge(found, (16,), dict.fromkeys(METRICS, worth))
    assert {v.kind for v in verdicts} == {kind}
    assert verdicts[0].gain_below == pytest.approx(end, rel=1e-9)
  # Holm would test the first at 5 %/3, and its interval is at that.
  low = g - stats.t.isf(0.05 / 6, 15) / math.sqrt(15)
  assert verdicts[0].interval == pytest.approx((low, end), rel=1e-9)


def test_the_levels_of_a_verdict_are_those_of_its_look():
  own = {'top1': one(0.0), 'nll': one(9.0)}
  found = follow(together(**own), ask(*own), LOOKS)
  assert found.seeds == 6
  first, second = judge(found, LOOKS, {})
  spent = 2 * stats.norm.sf(stats.norm.isf(0.05 / 4) / math.sqrt(6 / 16))
  half = stats.t.isf(spent / 2, 5) / math.sqrt(5)
  assert second.interval == pytest.approx((9 - half, 9 + half), rel=1e-9)
  assert first.gain_below == pytest.approx(half, rel=1e-9)
  # What is left when the other is told has 5 % of its look.
  half = stats.t.isf(first.level / 2, 5) / math.sqrt(5)
  assert first.level == pytest.approx(level(0), rel=1e-9)
  assert first.interval == pytest.approx((-half, half), rel=1e-9)


@pytest.mark.parametrize(
  ('p', 'sign', 'expected'), [(0.049, 1, 1), (0.049, -1, -1), (0.051, 1, 0)]
)
def test_the_companion_is_a_question_of_its_own_at_5_percent(p, sign, expected):
  more = rows(9.0)
  less = more - rows(sign * needed(p, 16))
  own = table([ZEROS], lsr=[more], tsla=[less])
  questions = ask(*METRICS, companion=TSLA)
  found = follow(together(**dict.fromkeys(METRICS, own)), questions, (16,))
  for finding in found.findings:
    assert finding.told == 1
    assert finding.companion_told == expected
    assert finding.companion.p_value == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize('factor', [0.97, 1.03])
def test_the_companion_is_asked_at_each_look_from_the_one_that_told(factor):
  """At 6 it is not clear, at 10 just or just not; another metric goes on."""
  gain = needed(factor * level(1), 10)
  more = rows(9.0)
  own = table([ZEROS], lsr=[more], tsla=[more - rows(gain)])
  runs = together(top1=own, nll=one(UNCLEAR))
  questions = [*ask('top1', companion=TSLA), *ask('nll')]
  for seeds, expected in ((6, 0), (10, int(factor < 1)), (16, 1)):
    cut = {
      a: {m: x[:, :seeds] for m, x in values.items()}
      for a, values in runs.items()
    }
    found = follow(cut, questions, LOOKS)
    first = found.findings[0]
    assert found.seeds == seeds
    assert (first.told, first.look) == (1, 0)
    assert first.companion_told == expected
  # What is told of it stays as it was told.
  assert first.companion.seeds == (10 if factor < 1 else 16)


def test_no_companion_is_asked_where_nothing_is_told_or_none_has_run():
  own = table([ZEROS], lsr=[rows(0.1)], tsla=[rows(9.0)])
  (finding,) = follow(
    together(nll=own), ask('nll', companion=TSLA), (16,)
  ).findings
  assert finding.told == 0
  assert finding.companion is None
  (finding,) = follow(
    together(nll=one(9.0)), ask('nll', companion=TSLA), (16,)
  ).findings
  assert finding.told == 1
  assert (finding.companion, finding.companion_told) == (None, 0)


# Two arms without a screen ---------------------------------------------------


def either(lsr, tsla, forms=1):
  own = table(
    [ZEROS] * forms, lsr=[rows(g) for g in lsr], tsla=[rows(g) for g in tsla]
  )
  pairs = tuple(itertools.product((LSR, TSLA), range(forms)))
  question = Question('nll', pairs)
  found = follow(together(nll=own), [question], (16,))
  return found.findings[0], judge(found, (16,), {'nll': 0.0})[0]


def test_of_several_candidates_one_is_better_at_its_share():
  finding, verdict = either([needed(0.024, 16)], [needed(0.3, 16)])
  assert (finding.told, finding.comparison.arm) == (1, LSR)
  assert finding.comparison.p_value == pytest.approx(0.048, rel=1e-9)
  g, half = needed(0.024, 16), stats.t.isf(0.0125, 15) / math.sqrt(15)
  assert verdict.interval == pytest.approx((g - half, g + half), rel=1e-9)
  assert either([needed(0.026, 16)], [needed(0.3, 16)])[0].told == 0
  # Two arms in two forms are four.
  weak = needed(0.9, 16)
  clear, unclear = needed(0.012, 16), needed(0.013, 16)
  finding, _ = either([weak, weak], [weak, clear], forms=2)
  assert (finding.told, finding.comparison.arm) == (1, TSLA)
  assert finding.comparison.form == 1
  assert either([weak, weak], [weak, unclear], forms=2)[0].told == 0


def test_several_candidates_are_worse_where_all_are():
  finding, verdict = either([-needed(0.001, 16)], [-needed(0.04, 16)])
  assert finding.told == -1
  assert finding.comparison.arm == TSLA  # the more promising one
  assert finding.comparison.p_value == pytest.approx(0.04, rel=1e-9)
  assert verdict.kind == 'dont'
  assert either([-needed(1e-6, 16)], [-needed(0.06, 16)])[0].told == 0
  # However clearly one of them is worse, the other is better.
  finding, _ = either([-9.0], [needed(0.02, 16)])
  assert (finding.told, finding.comparison.arm) == (1, TSLA)
  assert either([-9.0], [needed(0.2, 16)])[0].told == 0


def test_without_a_control_every_form_has_to_be_beaten_either_way():
  lsr = [rows(0.0), rows(0.0)]
  pairs = tuple((LSR, form) for form in (0, 1))
  for low, high, expected in (
    (0.9, 0.9, 1),
    (0.9, -0.9, 0),
    (-0.9, -0.9, -1),
    (-0.9, 0.9, 0),
  ):
    own = table([ZEROS - low, ZEROS - high], lsr=lsr)
    found = follow(together(nll=own), [Question('nll', pairs)], (16,))
    (finding,) = found.findings
    assert finding.told == expected
    # The form that has to be beaten is the better one.
    assert finding.comparison.lead.mean == pytest.approx(min(low, high))


# Symmetries ------------------------------------------------------------------


def noisy(seed, gain=0.0, forms=2, n=16, m=12):
  """Runs of baseline and four arms with both noises, of all metrics."""
  rng = np.random.default_rng(seed)
  arms = [Arm('label_smoothing', t, d) for t in (0.1, 0.2) for d in (0, 7)]
  runs = {}
  for name in (BASELINE, *(arm.name for arm in arms)):
    runs[name] = {
      metric: (name != BASELINE) * gain * rng.uniform(0.5, 1)
      + 0.3 * rng.standard_normal((1, n, 1))
      + 0.3 * rng.standard_normal((1, 1, m))
      + rng.standard_normal((1 if metric == 'top1' else forms, n, m))
      for metric in METRICS
    }
  return runs, arms


@pytest.mark.parametrize('gain', [-0.8, -0.4, 0.0, 0.4, 0.8])
def test_the_order_of_the_arms_is_of_no_account(gain):
  verdicts = []
  for seed in range(6):
    screen, arms = noisy(seed)
    runs, _ = noisy(100 + seed, gain)
    found = []
    for order in (1, -1):
      names = [*runs][::order]
      questions = choose(
        {name: screen[name] for name in names}, arms[::order], METRICS
      )
      decision = follow({n: runs[n] for n in names}, questions, LOOKS)
      found.append(judge(decision, LOOKS, dict.fromkeys(METRICS, 0.1)))
    assert found[0] == found[1]
    verdicts += [verdict.kind for verdict in found[0]]
  assert len(set(verdicts)) > 1 or gain == 0


@pytest.mark.parametrize('gain', [0.0, 0.3, 0.6])
def test_the_sign_of_every_metric_swaps_better_and_worse(gain):
  """Asked the same, of one form: better has to beat both, worse only one.

  An excluded gain has no mirror: no loss is ever excluded.
  """
  seen = set()
  for seed in range(8):
    runs, arms = noisy(seed, gain, forms=1)
    mirror = {n: {m: -x for m, x in own.items()} for n, own in runs.items()}
    questions = [Question(m, ((arms[0], 0),), 0, arms[1]) for m in METRICS]
    one, other = (follow(own, questions, LOOKS) for own in (runs, mirror))
    assert (one.seeds, one.ended) == (other.seeds, other.ended)
    for a, b in zip(one.findings, other.findings, strict=True):
      assert (a.told, a.look, a.level) == (-b.told, b.look, b.level)
      assert a.comparison.p_value == b.comparison.p_value
      ends = [judge(x, LOOKS, {})[0].interval for x in (one, other)]
      assert ends[0] == pytest.approx((-ends[1][1], -ends[1][0]), rel=1e-12)
      seen.add(a.told)
  assert seen == ({0} if not gain else {0, 1} if gain < 0.5 else seen)


# Numbers that say nothing ----------------------------------------------------


def hostile(kind):
  rng = np.random.default_rng(0)
  base, arm = np.repeat(rng.standard_normal((2, 1, 16, 9)), 2, 1)
  if kind == 'one image':
    return base[..., :1], 5 + arm[..., :1]
  if kind == 'NaN':
    return base, arm * np.nan
  if kind == 'NaN in the baseline':
    return base * np.nan, arm
  if kind == 'a label of probability 0':
    arm = arm + 9
    arm[:, 3, 2] = -np.inf
    return base, arm
  if kind == 'for both':
    base[:, 3, 2] = arm[:, 3, 2] = -np.inf
    return base, arm + 9
  if kind == 'alike':
    return base, base.copy()
  return base, base + 0.1  # everywhere the same


@pytest.mark.parametrize(
  'kind',
  [
    'one image',
    'NaN',
    'NaN in the baseline',
    'a label of probability 0',
    'for both',
    'alike',
    'shifted',
  ],
)
@pytest.mark.parametrize('screened', [True, False])
def test_numbers_that_say_nothing_tell_nothing(kind, screened):
  base, arm = hostile(kind)
  runs = together(nll={BASELINE: base, LSR.name: arm, TSLA.name: arm})
  with np.errstate(invalid='ignore'):  # inf - inf
    if screened:
      questions = choose(runs, [LSR, TSLA], ['nll'])
    else:
      pairs = tuple(itertools.product((LSR, TSLA), (0, 1)))
      questions = [Question('nll', pairs)]
    found = follow(runs, questions, LOOKS)
  assert (found.seeds, found.ended) == (6, 'futile')
  (verdict,) = judge(found, LOOKS, {'nll': 1e6})
  assert verdict.told == 0
  assert verdict.kind == 'no_evidence'
  assert not verdict.gain_below < math.inf


def test_a_form_that_is_not_known_leaves_the_other_s_bound():
  """A gain over all forms is below that over one of them."""
  for known in (0, 1):
    own = two_forms(0.0, 0.0)
    own[BASELINE][1 - known, 3, 2] = -np.inf
    found = verdict_of(own, worth=9.0, control=known)
    assert found.told == 0
    end = stats.t.isf(0.025, 15) / math.sqrt(15)
    assert found.gain_below == pytest.approx(end, rel=1e-9)


def test_values_of_an_image_are_the_larger_the_better():
  rng = np.random.default_rng(0)
  correct = rng.random(40) < 0.8
  forms = [
    Scores(rng.exponential(size=40), None, correct, rng.uniform(0.4, 1, 40))
    for _ in range(2)
  ]
  found = per_image(forms)
  assert found['top1'].tolist() == [correct.astype(float).tolist()]
  assert (found['nll'] == [-forms[0].nll, -forms[1].nll]).all()
  for form, shares in zip(forms, found['calibration'], strict=True):
    total = 0.0
    for places in np.array_split(np.argsort(form.confidence), 15):
      d = (correct - form.confidence)[places]
      pairs = itertools.permutations(d, 2)
      total += len(d) * np.mean([a * b for a, b in pairs])
    assert shares.mean() == pytest.approx(-total / 40, rel=1e-12)


# Simulated advisers ----------------------------------------------------------


@pytest.fixture
def benchmark(monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
  return importlib.import_module('adviser')


@pytest.fixture
def simulated(benchmark):
  """Advisers in the world of 360 images, as the benchmark draws them."""

  def draw(number, **changes):
    case = benchmark.Case('test', '360', 'test', number, **changes)
    world, truth = benchmark.world_of(case), np.zeros((13, 3, 2))
    return [
      row
      for chunk in range(number // benchmark.CHUNK)
      for row in benchmark.chunk(case, world, truth, chunk)
    ]

  return draw


def test_the_benchmark_simulates_the_plan(benchmark):
  ways = [
    (f'{theta:g}', '' if drop == 10 else f', {drop}')
    for theta in (0.05, 0.1, 0.2)
    for drop in (10, 9, 7, 5)
  ]
  names = [f'{"TSLA" if drop else "LSR"}({x}{drop})' for x, drop in ways]
  assert list(benchmark.NAMES) == ['baseline', *names]
  assert (benchmark.LOOKS, benchmark.SCREENED) == ((6, 10, 16), 4)
  looks = {case.looks for case in benchmark.cases('budget', 1)}
  assert looks == {(4, 6, 9), (5, 8, 12), (6, 9, 14)}


def test_a_drawn_run_is_scored_as_a_softmax_is(benchmark):
  world = benchmark.WORLDS['360']
  rng = np.random.default_rng(0)
  images = benchmark.draw_images(rng, world, 400)
  seeds = benchmark.draw_seeds(rng, world, (0, 5), 2)
  logits = benchmark.draw_logits(rng, world, (0, 5), seeds, images)
  assert logits.shape == (2, 2, 400)
  by, run = benchmark.temperatures(logits)[0, 1].item(), logits[0, 1]
  pairs = np.stack([run, np.zeros_like(run)], 1).astype(np.float64)
  fitted = minimize_scalar(
    lambda t: -log_softmax(pairs / t, 1)[:, 0].mean(),
    bounds=(0.4, 4),
    options={'xatol': 1e-8},
  )
  assert by == pytest.approx(fitted.x, rel=1e-4)
  found = benchmark.scores(run)
  np.testing.assert_allclose(
    found.nll, -log_softmax(pairs, 1)[:, 0], atol=1e-12
  )
  np.testing.assert_array_equal(found.correct, pairs.argmax(1) == 0)
  np.testing.assert_allclose(found.confidence, softmax(pairs, 1).max(1))


@pytest.mark.parametrize('part', ['test', 'fixed'])
def test_an_adviser_says_what_no_noise_can_hide(benchmark, part):
  """The baseline is right on 2 of 3 images, each arm on all or none."""
  plain = benchmark.WORLDS['360']._replace(images=200, selection=200, mean=0.5)
  case = benchmark.Case(part, '360', part, 1)
  for side, told in ((1, 'better'), (-1, 'worse')):
    world = plain._replace(shift=(0.0, *12 * [6.0 * side]))
    truth = np.zeros((13, 3, 2))
    truth[1:] = side
    for seed in range(2):
      rng = np.random.default_rng(seed)
      row = benchmark.adviser(rng, case, world, truth)
      assert row[f'top1_{told}'] and row[f'nll_{told}']
      assert row['any_claim'] and not row['false_claim']
      rng = np.random.default_rng(seed)
      assert benchmark.adviser(rng, case, world, -truth)['false_claim']
      if part == 'fixed':  # LSR whole, and TSLA from epoch 7 of 10 on
        assert row['runs_a_seed'] == pytest.approx(1 + 1 + 0.3)


def test_what_a_temperature_repairs_is_not_claimed(simulated):
  """Arms that differ in sharpness only: a claim in less than 5 %."""
  rows = simulated(25, sharpness=0.7)
  claims = sum(row['any_claim'] for row in rows)
  assert claims <= stats.binom.ppf(0.999, 25, 0.05)


@pytest.mark.slow
def test_where_no_arm_differs_hardly_anything_is_claimed(simulated):
  rows = simulated(200)
  rate = np.mean([row['any_claim'] for row in rows])
  assert rate <= 0.06 + 2 * math.sqrt(0.05 * 0.95 / 200)
