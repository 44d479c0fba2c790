"""The adviser: its plan, how it follows it, its words, its command."""

import collections
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from support import ROOT, changed

from configs import digits_baseline
from tsla import files
from tsla.advise import page, plan, study
from tsla.advise.decision import (
  BASELINE,
  METRICS,
  Arm,
  Comparison,
  Decision,
  Finding,
  Question,
)
from tsla.advise.study import Advice
from tsla.commands import advise
from tsla.config import cli
from tsla.config.from_data import settle
from tsla.data import datasets
from tsla.data.datasets import Split
from tsla.errors import InputError
from tsla.evaluation.two_way import Estimate
from tsla.report.results import Results
from tsla.runs.lifecycle import Interrupted
from tsla.sweep import outline
from tsla.sweep.plan import plan as plan_runs
from tsla.sweep.table import Row, Table

pytestmark = pytest.mark.filterwarnings('ignore:the load_module')  # absl's

LSR, TSLA = Arm('label_smoothing', 0.1, 0), Arm('label_smoothing', 0.1, 21)
OTHER = Arm('label_smoothing', 0.2, 0)
BASE = '--config=configs/digits_baseline.py'
BEGAN = 'python main.py ' + BASE
TEST, OTHERS = (
  Split(np.full((2001, 2, 2, 1), level, np.uint8), np.arange(2001) % 3)
  for level in (0, 1)
)


def dataset(held=143, test=360, fingerprint='732680fe4706e693d8923562f002'):
  return SimpleNamespace(
    test=SimpleNamespace(labels=np.zeros(test)),
    validation=SimpleNamespace(labels=np.zeros(held)),
    num_classes=10,
    fingerprint=fingerprint,
  )


def planned(
  budget=math.inf, epochs=30, metrics=METRICS, methods=None, data=None, **worth
):
  config = changed(digits_baseline.get_config(), epochs=epochs)
  methods = methods or ['label_smoothing']
  worth = plan.WORTH | worth
  return plan.make(config, data or dataset(), methods, metrics, worth, budget)


# The plan.


@pytest.mark.parametrize('epochs', [3, 30])
def test_the_cost_is_that_of_the_runs_which_the_planner_plans(epochs, tmp_path):
  config = changed(digits_baseline.get_config(), epochs=epochs)
  methods = ['label_smoothing', 'max_suppression']
  arms, rng = (
    planned(epochs=epochs, methods=methods).arms,
    np.random.default_rng(0),
  )
  choices = [arms, arms[::-1]]
  for count in (2, 5):
    picked = rng.choice(len(arms), count, replace=False)
    choices.append([arms[place] for place in picked])
  for some in choices:
    rows = [Row(arm.name, plan.smoothed(config, arm)) for arm in some]
    table = Table('t', 'T', (Row(BASELINE, config), *rows))
    epochs_trained = outline.trained_epochs(plan_runs(table, [0], tmp_path))
    assert plan.cost(some, epochs) == pytest.approx(epochs_trained / epochs)


def test_the_default_costs_what_the_readers_were_told():
  asked = planned()
  assert len(asked.arms) == 12
  assert asked.screen_cost == pytest.approx(26.8)
  assert asked.budget == pytest.approx(26.8 + 16 * 5.5)
  assert asked.most_runs == 4 * 13 + 16 * 7
  assert planned(budget=24).most_runs == 10 * 3


def test_the_hash_of_the_default_plan_stays_what_it_was():
  """Else what was begun before could not go on."""
  config = settle(cli.parse(['advise', BASE]).config)
  digits = datasets.load_dataset(config.data)
  names = ['label_smoothing']
  asked = plan.make(config, digits, names, METRICS, plan.WORTH, math.inf)
  assert asked.hash[:16] == '811ae1c9baf48e7a'


@pytest.mark.parametrize(
  ('epochs', 'drops'),
  [(2, [1]), (3, [2]), (5, [2, 4]), (10, [5, 7, 9]), (30, [15, 21, 27])],
)
def test_drops_of_short_runs_collapse(epochs, drops):
  arms = planned(epochs=epochs).arms
  assert len(arms) == len(set(arms)) == 3 * (1 + len(drops))
  assert {arm.theta for arm in arms} == {0.05, 0.1, 0.2}
  for theta in (0.05, 0.1, 0.2):
    found = [arm.drop for arm in arms if arm.theta == theta]
    assert found == [0, *drops]
  fixed = planned(budget=30, epochs=epochs).arms
  assert [arm.drop for arm in fixed] == [0, round(0.7 * epochs)]
  assert 0 < fixed[1].drop < epochs


@pytest.mark.parametrize(
  ('budget', 'screens', 'seeds'),
  [
    *((22.9, None, 0), (23, False, 10), (59, False, 25)),
    # Two arms of two θ: 3 runs a seed, (60 - 26.8) / 3 = 11.07.
    *((60, True, 11), (75, True, 16), (83, True, 16), (math.inf, True, 16)),
  ],
)
def test_a_budget_buys_seeds_and_is_not_exceeded(budget, screens, seeds):
  asked = planned(budget=budget)
  if screens is None:
    assert asked is None
    return
  assert bool(asked.screen) is screens
  questions = [question('top1', LSR), question('nll', OTHER)]
  arms, looks = asked.confirmed(questions)
  assert looks[-1] == seeds
  spent = asked.screen_cost + looks[-1] * plan.cost(arms, 30)
  assert spent <= asked.budget + 1e-6 <= budget + 1e-6
  shares = [0.375, 0.625, 1] if screens else [1]
  assert list(looks) == [math.ceil(share * seeds) for share in shares]


def question(metric, arm, companion=None):
  return Question(metric, ((arm, 0),), 0, companion)


@pytest.mark.parametrize('epochs', [2, 3, 7, 13, 30, 90, 200, 300])
@pytest.mark.parametrize('metrics', [METRICS, METRICS[:1]])
def test_without_a_budget_all_seeds_and_companions_are_trained(epochs, metrics):
  """Also where each metric has a θ of its own, rounded as it may be."""
  asked = planned(epochs=epochs, metrics=metrics)
  first = asked.arms[1].drop
  questions = [
    question(metric, Arm('label_smoothing', theta, 0), other)
    for metric, theta in zip(metrics, (0.05, 0.1, 0.2), strict=False)
    for other in [Arm('label_smoothing', theta, first)]
  ]
  arms, looks = asked.confirmed(questions)
  assert len(arms) == 2 * len(metrics) and looks == (6, 10, 16)
  most = 4 * (1 + len(asked.arms)) + 16 * (1 + len(arms))
  assert asked.most_runs == most


def test_companions_are_left_out_where_the_budget_is_short_of_them():
  questions = [question('top1', LSR, TSLA), question('nll', OTHER)]
  # With the companion a seed costs 3.3, without 3; 26.8 go to the screen.
  arms, looks = planned(budget=26.8 + 16 * 3.3).confirmed(questions)
  assert TSLA in arms and looks == (6, 10, 16)
  arms, looks = planned(budget=26.8 + 16 * 3.3 - 0.1).confirmed(questions)
  assert arms == [LSR, OTHER] and looks == (6, 10, 16)


def test_several_methods_are_further_arms_once_each():
  methods = ['label_smoothing', 'max_suppression', 'label_smoothing']
  asked = planned(methods=methods)
  assert len(asked.arms) == 24
  assert asked.screen_cost == pytest.approx(4 * (1 + 2 * 5.7))
  with pytest.raises(InputError, match=r'smoothing\.method'):
    planned(methods=['label_smoothing', 'foo'])


def test_another_plan_in_a_folder_is_refused_by_what_differs(tmp_path):
  asked = planned(budget=23)
  assert asked.save(tmp_path, TEST) == []
  content = (tmp_path / 'plan.json').read_bytes()
  asked.save(tmp_path, TEST)
  with pytest.raises(InputError) as error:
    planned(budget=24, metrics=('nll',), nll=0.5).save(tmp_path, TEST)
  assert 'other now: metrics, worth, budget' in str(error.value)
  assert len(str(error.value).splitlines()) == 3
  other = planned(budget=23, data=dataset(fingerprint='aa' * 20))
  with pytest.raises(InputError, match='other now: data'):
    other.save(tmp_path, OTHERS)
  assert (tmp_path / 'plan.json').read_bytes() == content
  begun = json.loads(content)
  assert begun['hash'] == asked.hash and begun['budget'] == 23


def test_a_sweep_s_folder_is_refused(tmp_path):
  (tmp_path / 'table.json').write_text('{}')
  with pytest.raises(InputError, match='a sweep is there'):
    planned().save(tmp_path, TEST)
  assert not (tmp_path / 'plan.json').exists()


def test_finished_advices_on_the_same_data_are_counted_once_and_for_all(
  tmp_path,
):
  folders = {name: tmp_path / name for name in 'abcdefg'}
  for folder in folders.values():
    folder.mkdir()
  planned(budget=23).save(folders['a'], TEST)
  (folders['a'] / 'advice.json').write_text('{}')
  planned(budget=24).save(folders['b'], TEST)  # which is not finished
  other = planned(budget=23, data=dataset(fingerprint='aa' * 20))
  other.save(folders['c'], OTHERS)
  (folders['c'] / 'advice.json').write_text('{}')
  (folders['d'] / 'plan.json').write_text('{')
  # The same images, with other validation images or wrong labels.
  held = planned(budget=25, data=dataset(fingerprint='bb' * 20))
  held.save(folders['e'], TEST)
  (folders['e'] / 'advice.json').write_text('{}')
  (folders['g'] / 'advice.json').write_text('{}')
  planned(budget=25).save(folders['g'], TEST)  # the plan that is asked for
  assert planned(budget=25).save(folders['f'], TEST) == ['a', 'e']
  (folders['b'] / 'advice.json').write_text('{}')  # too late
  assert planned(budget=25).save(folders['f'], TEST) == ['a', 'e']


@pytest.mark.parametrize(
  ('held', 'test', 'select', 'images'),
  [
    *((72, 360, 'validation', (72, 360)), (71, 360, 'test', (72, 288))),
    *((1, 5, 'validation', (1, 5)), (1, 6, 'test', (1, 5))),
    (9000, 10_000, 'validation', (9000, 10_000)),
  ],
)
def test_images_that_choose_are_a_fifth_of_those_that_confirm(
  held, test, select, images
):
  asked = planned(data=dataset(held, test))
  assert (asked.select, asked.images) == (select, images)
  choose, confirm = asked.parts.values()
  assert (len(choose), len(confirm)) == images
  if select == 'test':
    assert sorted([*choose, *confirm]) == list(range(test))
    assert list(choose) == sorted(choose) and list(confirm) == sorted(confirm)
  else:
    assert list(confirm) == list(range(test))
  # Without a screen they fit the temperatures.
  assert planned(budget=30, data=dataset(held, test)).images == images


def test_the_images_that_choose_are_those_of_the_data():
  def chosen(**fields):
    return planned(data=dataset(5, 400, **fields)).parts['screen']

  first, again, other = chosen(), chosen(), chosen(fingerprint='ab' * 20)
  assert np.array_equal(first, again)
  assert not np.array_equal(first, other)
  order = np.random.default_rng(0x732680FE4706E693).permutation(np.arange(400))
  assert list(first) == sorted(order[:80])


def test_seeds_that_choose_never_confirm():
  assert planned().screen == (0, 1, 2, 3)
  assert list(plan.seeds_of(3)) == [1000, 1001, 1002]


def test_a_budget_that_is_too_small_says_what_one_buys():
  # (t_{1-.0125, n-1} + t_{.8, n-1}) / √n, by a table of Student's t:
  # (2.685 + 0.883) / √10 and (2.490 + 0.866) / √16.
  assert page.too_small(22.9, 30) == (
    '22.9 baseline runs are too few to train. A difference of 1.1 times the '
    'spread of a difference from seed to seed takes 23 runs to be told, one of '
    '0.8 times 36.8: --budget=23 or more.'
  )
  assert 'takes 25 runs' in page.too_small(20, epochs=2)


def test_the_plan_is_said_before_it_is_followed(tmp_path):
  lines = page.describe(planned(data=dataset(9)), tmp_path).splitlines()
  assert lines[0] == f'plan {planned(data=dataset(9)).hash[:12]} in {tmp_path}'
  assert lines[1].startswith('  ways to smooth: LSR(0.05), TSLA(0.05, 15), ')
  assert lines[2:] == [
    '  4 seeds choose on 72 test images, up to 16 others confirm on 288 test '
    'images',
    '  at most 114.8 baseline runs (3,444 epochs); what would matter: 0.50 '
    'points, 0.0100 nats',
  ]
  lines = page.describe(planned(top1=0.001), tmp_path)
  assert 'would matter: 0.10 points, 0.0100 nats' in lines
  assert lines.endswith(
    '  beware: the 360 images that confirm cannot show 0.10 points, as one of '
    'them is 0.28 points; see --worth'
  )
  lines = page.describe(planned(24), tmp_path).splitlines()
  assert lines[2] == '  10 seeds of all confirm on 360 test images'


# Following it.


class Fake:
  """Trains nothing: noise, and what each arm gains."""

  def __init__(self, gains=(), gone=(), noise=0.01, images=300):
    self.gains, self.gone = dict(gains), gone
    self.noise, self.images, self.calls = noise, images, []

  def __call__(self, stage, arms, seeds, after):
    if BASELINE in self.gone:
      raise study.Failed('a run of the baseline diverged')
    names = [arm.name for arm in arms]
    self.calls.append((stage, names, [*seeds], after))
    return {
      name: {metric: self.values(name, metric, seeds) for metric in METRICS}
      for name in (BASELINE, *names)
      if name not in self.gone
    }

  def values(self, name, metric, seeds):
    forms, gain = 1 if metric == 'top1' else 2, self.gains.get(name, 0.0)
    draws = []
    for seed in seeds:
      rng = np.random.default_rng([seed, *f'{name} {metric}'.encode()])
      mean = gain + rng.normal(0, self.noise)
      spread = 0.1 if self.noise else 0
      draws.append(rng.normal(mean, spread, (forms, self.images)))
    return np.stack(draws, 1)


def test_looks_follow_a_screen_and_repeat_no_seed_and_no_question():
  train = Fake(noise=0.05)
  advice = study.follow_plan(planned(), train)
  (stage, names, seeds, after), *looks = train.calls
  assert (stage, seeds) == ('screen', [0, 1, 2, 3])
  assert names == [arm.name for arm in advice.plan.arms]
  assert after == pytest.approx(88)
  assert looks and len(looks) <= 3
  chosen = [arm.name for arm in advice.arms]
  cost = plan.cost(advice.arms, 30)
  for (stage, names, seeds, after), count in zip(
    looks, (6, 10, 16), strict=False
  ):
    assert (stage, names) == ('confirm', chosen)
    assert seeds == list(range(1000, 1000 + count))
    assert after == pytest.approx((16 - count) * cost)
  assert advice.decision.seeds == len(seeds)
  assert advice.spent == pytest.approx(26.8 + len(seeds) * cost)
  again = Fake(noise=0.05)
  study.follow_plan(planned(), again)
  assert again.calls == train.calls


def test_it_goes_on_to_all_looks_while_it_may_tell_and_stops_where_it_has():
  # Two and a half standard errors at 16 seeds, one and a half at 6: neither
  # told at once nor hopeless.
  class Steady(Fake):
    def values(self, name, metric, seeds):
      quiet = super().values(name, metric, seeds)
      spread = 0.03 * (name != BASELINE)
      return quiet + spread * (-1.0) ** np.array(seeds)[:, None]

  weak = Steady({LSR.name: 0.02}, noise=0)
  advice = study.follow_plan(planned(metrics=('top1',)), weak)
  assert [len(call[2]) for call in weak.calls] == [4, 6, 10, 16]
  clear = Fake({LSR.name: 0.3})
  advice = study.follow_plan(planned(), clear)
  assert [len(call[2]) for call in clear.calls] == [4, 6]
  assert advice.decision.ended == 'told_all'
  assert [v.kind for v in advice.verdicts] == ['smooth'] * 3
  assert {v.comparison.arm for v in advice.verdicts} == {LSR}
  assert advice.spent < advice.plan.budget


def test_a_plan_without_a_screen_asks_of_both_arms_at_once():
  train = Fake()
  advice = study.follow_plan(planned(budget=24), train)
  assert [call[0] for call in train.calls] == ['confirm']
  assert train.calls[0][1:] == ([LSR.name, TSLA.name], [*range(1000, 1010)], 0)
  assert advice.screen == {} and advice.spent == pytest.approx(23)
  top1, nll, _ = (f.question.candidates for f in advice.decision.findings)
  assert top1 == ((LSR, 0), (TSLA, 0))
  assert nll == ((LSR, 0), (LSR, 1), (TSLA, 0), (TSLA, 1))


def test_an_arm_that_diverges_in_the_screen_is_left_out_and_named():
  train = Fake({LSR.name: 1.0, OTHER.name: 0.5}, gone=[LSR.name])
  advice = study.follow_plan(planned(), train)
  assert advice.diverged == [LSR.name]
  assert {v.comparison.arm for v in advice.verdicts} == {OTHER}
  everything = [arm.name for arm in advice.plan.arms]
  with pytest.raises(study.Failed, match='every arm'):
    study.follow_plan(planned(), Fake(gone=everything))


def test_of_an_arm_that_diverges_as_it_confirms_nothing_is_told():
  class Late(Fake):
    def __call__(self, stage, arms, seeds, after):
      self.gone = [LSR.name] if len(seeds) > 6 else []
      return super().__call__(stage, arms, seeds, after)

  # Told better at the first look for all but NLL; NLL goes on, and it diverges.
  class Unsure(Late):
    def values(self, name, metric, seeds):
      quiet = super().values(name, metric, seeds)
      wild = 0.5 * (-1.0) ** np.array(seeds)[:, None]
      return quiet + wild * (name != BASELINE and metric == 'nll')

  train = Unsure({LSR.name: 0.3})
  advice = study.follow_plan(planned(), train)
  assert [len(call[2]) for call in train.calls][:3] == [4, 6, 10]
  found = {v.question.metric: v for v in advice.verdicts}
  assert advice.diverged == [LSR.name]
  for finding in found.values():
    assert finding.comparison.arm == LSR
    assert (finding.told, finding.kind) == (0, 'no_evidence')
    assert finding.gain_below == math.inf
  # Without a screen the other arm is still asked about, at no easier level.
  both = Fake({TSLA.name: 0.3})
  advice = study.follow_plan(planned(budget=24), both)
  one = Fake({TSLA.name: 0.3}, gone=[LSR.name])
  less = study.follow_plan(planned(budget=24), one)
  assert less.diverged == [LSR.name]
  for old, new in zip(advice.verdicts, less.verdicts, strict=True):
    assert new.kind == 'smooth' and new.comparison.arm == TSLA
    assert (new.level, new.comparison.p_value) == (
      *(old.level, old.comparison.p_value),
    )


# What runs said.


def a_run(row, seed, state='done', *, test=6, held=4, **fields):
  """A run that said the less of an image the further back it is."""
  labels = np.arange(test) % 3
  said = {
    'test': {'labels': labels, 'logits': np.eye(3)[labels] * (1 + seed)},
    'validation': {'labels': labels[:held], 'logits': np.eye(3)[labels[:held]]},
  }
  record = SimpleNamespace(
    path=f'{row}-{seed}',
    fingerprint=dataset().fingerprint,
    predictions=said.get,
    network=lambda where: {'temperature': 0.5},
  )
  record.__dict__.update(fields)
  return SimpleNamespace(
    row=row, seed=seed, state=state, reason='why', record=record
  )


def trainer(monkeypatch, tmp_path, runs, budget=math.inf, signum=0, data=None):
  rows = tuple(dict.fromkeys(run.row for run in runs))
  results = SimpleNamespace(
    rows=rows,
    runs=runs,
    done=lambda row: [r for r in runs if r.row == row and r.state == 'done'],
  )
  monkeypatch.setattr(study.pool, 'train_table', lambda *a, **k: ({}, signum))
  monkeypatch.setattr(study, 'check_inputs', lambda *a: None)
  monkeypatch.setattr(study, 'read_results', lambda paths: [results])
  asked = planned(budget, data=data or dataset(4, 6))
  config = digits_baseline.get_config()
  return study.Trainer(asked, config, tmp_path, 2, 'again')


def test_numbers_are_of_the_images_of_the_stage_in_both_forms(
  monkeypatch, tmp_path
):
  runs = [a_run(row, seed) for row in (BASELINE, LSR.name) for seed in (0, 1)]
  train = trainer(monkeypatch, tmp_path, runs)
  found = train('screen', [LSR], [0, 1], 0)
  assert list(found) == [BASELINE, LSR.name]
  assert found[BASELINE]['top1'].shape == (1, 2, 4)
  assert found[BASELINE]['nll'].shape == (2, 2, 4)
  found = train('confirm', [LSR], [0, 1], 0)
  nll = found[LSR.name]['nll']
  assert nll.shape == (2, 2, 6)
  for form, temperature in enumerate((1, 0.5)):
    for seed in (0, 1):  # log softmax of (1 + seed, 0, 0) / T, by hand
      logit = (1 + seed) / temperature
      expected = logit - math.log(math.exp(logit) + 2)
      assert nll[form, seed] == pytest.approx(expected)


def test_a_stage_says_of_how_many_epochs_it_is_a_part(monkeypatch, tmp_path):
  runs = [a_run(row, seed) for row in (BASELINE, LSR.name) for seed in (0, 1)]
  train, told = trainer(monkeypatch, tmp_path, runs, budget=24), []
  monkeypatch.setattr(
    study.pool, 'train_table', lambda *a, **k: told.append(k) or ({}, 0)
  )
  train('confirm', [LSR], [0, 1], 2.5)
  epochs, budget = train.plan.epochs, train.plan.budget
  assert told == [{'after': 2.5 * epochs, 'whole': budget * epochs}]
  assert told[0]['after'] != told[0]['whole'] > 0


def test_of_many_classes_scores_are_read_where_no_logits_are_kept(
  monkeypatch, tmp_path
):
  scores = {'nll': np.arange(6.0), 'brier': np.zeros(6)}
  scores |= {'correct': np.arange(6) < 2, 'confidence': np.full(6, 0.5)}
  said = scores | {f'calibrated_{name}': scores[name] for name in scores}
  said |= {'labels': np.zeros(6, int), 'calibrated_nll': np.arange(6.0) / 2}
  run = a_run(BASELINE, 0, predictions=lambda split: said)
  train = trainer(monkeypatch, tmp_path, [run])
  found = train('confirm', [], [0], 0)[BASELINE]
  assert found['nll'][:, 0].tolist() == [
    *(
      [-0.0, -1.0, -2.0, -3.0, -4.0, -5.0],
      [-0.0, -0.5, -1.0, -1.5, -2.0, -2.5],
    )
  ]
  assert found['top1'].sum() == 2


def test_a_fifth_of_the_test_set_chooses_and_never_confirms(
  monkeypatch, tmp_path
):
  runs = [a_run(BASELINE, 0, test=50, held=2)]
  for run in runs:  # right only on the images that choose
    chosen = planned(data=dataset(2, 50)).parts['screen']
    logits = np.zeros((50, 3))
    labels = np.zeros(50, int)
    logits[:, 1] = 1
    logits[chosen, 0] = 2
    said = {'test': {'labels': labels, 'logits': logits}}
    run.record.predictions = said.get
  train = trainer(monkeypatch, tmp_path, runs, data=dataset(2, 50))
  found = train('screen', [], [0], 0)[BASELINE]['top1']
  assert found.shape == (1, 1, 10) and found.all()
  found = train('confirm', [], [0], 0)[BASELINE]['top1']
  assert found.shape == (1, 1, 40) and not found.any()


@pytest.mark.parametrize(
  ('runs', 'error', 'words'),
  [
    ([a_run(BASELINE, 0, 'diverged')], study.Failed, 'the baseline diverged'),
    (
      [a_run(BASELINE, 0), a_run(LSR.name, 0, 'damaged')],
      study.Failed,
      r'LSR\(0.1\)-0: damaged \(why\)',
    ),
    (
      [a_run(BASELINE, 0, fingerprint='other')],
      InputError,
      'not what it said of validation images of this data set',
    ),
    (
      [a_run(BASELINE, 0, predictions=lambda split: None)],
      InputError,
      'rm -r baseline-0, then the same command',
    ),
  ],
)
def test_what_a_run_lacks_ends_the_advice_with_its_name(
  runs, error, words, monkeypatch, tmp_path
):
  train = trainer(monkeypatch, tmp_path, runs)
  with pytest.raises(error, match=words):
    train('screen', [LSR] * (len(runs) - 1), [0], 0)


def test_an_arm_of_which_a_run_diverged_is_left_out(monkeypatch, tmp_path):
  runs = [a_run(BASELINE, 0), a_run(BASELINE, 1)]
  runs += [a_run(LSR.name, 0), a_run(LSR.name, 1, 'diverged')]
  train = trainer(monkeypatch, tmp_path, runs)
  assert list(train('screen', [LSR], [0, 1], 0)) == [BASELINE]


def test_a_signal_ends_the_advice(monkeypatch, tmp_path):
  train = trainer(monkeypatch, tmp_path, [], signum=signal.SIGTERM)
  with pytest.raises(Interrupted) as stop:
    train('screen', [], [0], 0)
  assert stop.value.exit_code == 143


def test_the_time_is_that_of_starts_and_epochs_and_leaves_no_folder(
  monkeypatch, tmp_path
):
  runs = [a_run(BASELINE, 0), a_run(BASELINE, 1)]
  train = trainer(monkeypatch, tmp_path, runs, budget=24)
  clock = iter([0.0, 100.0, 200.0, 208.0])
  monkeypatch.setattr(study.time, 'monotonic', lambda: next(clock))
  # Two runs of two epochs took 12 s of training: an epoch takes 3 s, a start 2.
  monkeypatch.setattr(study.summary, 'cost', lambda runs: [4, 0, 12.0, 0])
  (tmp_path / 'timing').mkdir()
  assert train.measure() == pytest.approx((30 * 2 + 24 * 30 * 3) / 2)
  assert not (tmp_path / 'timing').exists()
  assert not train.has_begun
  (tmp_path / 'confirm').mkdir()
  assert train.has_begun
  clock = iter([0.0, 100.0, 200.0, 208.0])
  monkeypatch.setattr(study.summary, 'cost', lambda runs: [4, 0, math.nan, 0])
  assert train.measure() == pytest.approx(24 * 30 * 4 / 2)
  train.config.optimizer.warmup_steps = 10  # which two epochs cannot hold
  assert train.measure() is None


# Its words.


def estimate(mean, error=0.001, images=360):
  half = error**2 / 2
  return Estimate(mean, error, 15.0, 16, images, 16 * half, half)


def a_verdict(
  kind, metric='top1', means=(0.01,), arm=LSR, told=0, gain_below=0.004, **more
):
  """With errors of a tenth of a point, and an interval of one to each side."""
  error = more.pop('error', 0.001)
  against = tuple(estimate(mean, error) for mean in means)
  control = int(np.argmin(means))
  compared = Comparison(arm, 0, against, control, told, 0.001)
  asked = Question(metric, ((arm, 0),), control, more.pop('other', None))
  more |= {'kind': kind, 'gain_below': gain_below}
  more['interval'] = means[control] - 0.002, means[control] + 0.002
  return Finding(asked, (compared,), told, 0, 0.05, **more)


def an_advice(*verdicts, asked=None, **fields):
  asked = asked or planned()
  found = Decision(verdicts, 16, 'all_seeds')
  runs = {BASELINE: {'nll': np.array([[[-0.2]], [[-0.1]]])}}
  advice = Advice(
    *(asked, {}, found, list(verdicts), [LSR, TSLA], (16,), runs, 78.0, [], [])
  )
  return advice._replace(**fields)


def words(*verdicts, **fields):
  (answer,) = page.answers(an_advice(*verdicts, **fields))
  return answer


GUESS = (
  'Nothing was shown either way; not to smooth is simpler. Best guess for '
)
GUESS += 'LSR(0.1), the most promising of 12 ways: '


def test_a_smooth_verdict_says_by_how_much_and_until_when():
  found = words(a_verdict('smooth', told=1))
  assert found.heading == 'SMOOTH TO THE END, θ = 0.1.'
  assert found.text.startswith(
    'With LSR(0.1), Top-1 is better by 1.00 points (95 % interval [0.80, '
    '1.20]) than the baseline, over other seeds and other images like these '
    '360. When to drop it was not asked'
  )
  assert found.advised == LSR
  for note in ('overstated', 'fitted to the smoothed network'):
    assert note not in found.text
  small = words(a_verdict('smooth', told=1, means=(0.01,), error=0.004))
  assert 'tends to be overstated' in small.text
  found = words(a_verdict('smooth', 'nll', (0.03, 0.01), told=1, arm=TSLA))
  assert found.heading == 'SMOOTH θ = 0.1, DROP AT EPOCH 21.'
  assert (
    'NLL is better by 0.0100 nats (95 % interval [0.0080, 0.0120]) than the '
    'baseline, as trained and with its own temperature, over'
  ) in found.text
  assert found.advised == TSLA
  own = a_verdict('smooth', 'nll', (0.03, 0.01), told=1)
  compared = own.comparison._replace(form=1)
  own = own._replace(comparisons=(compared,))
  note = 'That is with a temperature fitted to the smoothed network too.'
  assert note in words(own).text


@pytest.mark.parametrize(
  ('arm', 'other', 'told', 'advised', 'text'),
  [
    (LSR, TSLA, 1, LSR, 'Dropping it at epoch 21 is worse by 1.00 points (98'),
    (LSR, TSLA, -1, TSLA, 'Kept to the end is worse by 1.00 points (98'),
    (TSLA, LSR, 1, TSLA, 'Kept to the end is worse by 1.00 points (98'),
    (TSLA, LSR, -1, LSR, 'Dropping it at epoch 21 is worse by 1.00 points (98'),
    (
      LSR,
      TSLA,
      0,
      LSR,
      'For Top-1 alone, dropped at epoch 21 and kept are not',
    ),
    (
      TSLA,
      LSR,
      0,
      TSLA,
      'For Top-1 alone, dropped at epoch 21 and kept are not',
    ),
  ],
)
def test_the_companion_decides_until_when(arm, other, told, advised, text):
  companion = estimate((told or 1) * 0.01)
  more = {'companion': companion, 'companion_told': told, 'other': other}
  more['companion_level'] = 0.02
  found = words(a_verdict('smooth', told=1, arm=arm, **more))
  assert text in found.text and '−' not in found.text
  assert found.advised == advised
  assert ('DROP' in found.heading) == bool(advised.drop)


def test_dont_says_why():
  found = words(a_verdict('dont', told=-1, means=(-0.01,)))
  assert (found.heading, found.advised) == ('DON’T.', None)
  assert found.text == (
    'The most promising of 12 ways to smooth, LSR(0.1), is worse by 1.00 '
    'points (95 % interval [0.80, 1.20]) than the baseline.'
  )
  # The interval of one of several may reach beyond 0.
  wide = a_verdict('dont', told=-1, means=(-0.001,))
  assert 'by 0.10 points (95 % interval [−0.10, 0.30]) than' in words(wide).text
  found = words(a_verdict('dont', means=(0.001,)))
  assert found.text == (
    'The most promising of 12 ways to smooth, LSR(0.1), gains at most 0.40 '
    'points over the baseline; 0.50 points would matter (--worth).'
  )
  found = words(a_verdict('dont', 'nll', (0.1, -0.3), gain_below=-0.2))
  assert found.text == (
    'The most promising of 12 ways to smooth, LSR(0.1), is worse by at least '
    '0.2000 nats than the baseline with its temperature.'
  )


def test_a_temperature_that_does_as_well_is_said():
  repaired = (
    'Against the baseline as trained the gain is 0.0300 nats; a temperature, '
    'which is fitted after training in seconds, does as well.'
  )
  found = words(a_verdict('calibrate', 'nll', (0.03, -0.01)))
  assert found.heading == 'DON’T: CALIBRATE INSTEAD.'
  assert found.text.endswith(repaired) and 'gains at most' in found.text
  found = words(a_verdict('beyond_temperature', 'nll', (0.03, 0.001)))
  assert found.heading == 'NO EVIDENCE beyond a temperature.'
  assert found.text.startswith(GUESS + '+0.0010 nats (95 % interval')
  assert found.text.endswith(
    'the gain is 0.0300 nats; what is left of it beyond a temperature, which '
    'is fitted in seconds, cannot be told.'
  )
  assert found.advised is None


def test_no_evidence_says_what_it_would_take():
  found = words(a_verdict('no_evidence', means=(0.001,), error=0.003))
  assert found.heading == 'NO EVIDENCE.'
  # A = 16 · C and C = 4.5e-6: with seeds without end √C (1.96 + 0.84) is 0.59
  # points, so 0.5 needs 360 · 4.5e-6 (2.8016 / 0.005)² = 509 images.
  assert found.text == (
    f'{GUESS}+0.10 points (95 % interval [−0.10, +0.30]) against the '
    'baseline. 16 seeds on 360 images could have told 0.90 points at this '
    'look; no number of seeds tells 0.50 points: with any number it takes 509 '
    'test images or more.'
  )
  found = words(a_verdict('no_evidence', means=(0.001,), error=0.002))
  # (t_{.975, N-1} + t_{.8, N-1}) √(32e-6/N + 2e-6) ≤ 0.005 from N = 33 on.
  assert (
    '; 33 seeds would tell 0.50 points, more than an advice trains, if these '
    'images add no more noise than it seems.'
  ) in found.text
  found = words(a_verdict('no_evidence', means=(0.001,), error=0.0012))
  # (2.4469 + 0.9057) √(11.52e-6 / 7 + 0.72e-6) = 0.00516 of 7 seeds, and
  # (2.3646 + 0.8960) √(11.52e-6 / 8 + 0.72e-6) = 0.00479 of 8.
  assert '; 8 seeds would tell 0.50 points.' in found.text
  # Of three metrics that wait, a third of the level: of 10 seeds
  # (2.9333 + 0.8834) √(11.52e-6 / 10 + 0.72e-6) = 0.00522, and of 11
  # (2.8701 + 0.8791) √(11.52e-6 / 11 + 0.72e-6) = 0.00498.
  waiting = [a_verdict('no_evidence', means=(0.001,), error=0.0012)] * 3
  for found in page.answers(an_advice(*waiting)):
    assert '; 11 seeds would tell 0.50 points.' in found.text
  found = words(a_verdict('no_evidence', 'calibration', (1e-4, 1e-4)))
  assert 'could have told 29.98 points² at this look.' in found.text
  found = words(a_verdict('no_evidence', means=(0.0,), error=0.0))
  assert found.text == (
    'There is no noise to compare with: too few pairs, all alike, or a run '
    'that diverged.'
  )


@pytest.mark.parametrize(
  ('fields', 'note'),
  [
    (
      {'diverged': ['LSR(0.2)']},
      'Left out, as a run of it diverged: LSR(0.2).',
    ),
    ({'earlier': ['a', 'b']}, 'have been advised on 2 times before'),
    (
      {'asked': planned(data=dataset(5))},
      'a fifth of the test set takes its place',
    ),
    (
      {'runs': {BASELINE: {'nll': np.array([[[-0.1]], [[-0.2]]])}}},
      'The temperature makes the baseline’s NLL worse',
    ),
  ],
)
def test_each_beware_stands_where_it_applies_and_only_there(fields, note):
  verdict = a_verdict('smooth', told=1)
  (found,) = page.beware(an_advice(verdict, **fields))
  assert note in found
  assert not page.beware(an_advice(verdict))


def test_a_gain_of_less_than_an_image_is_no_gain_to_rely_on():
  note = ['Top-1 differs by less than one image.']
  below = a_verdict('smooth', told=1, means=(0.9 / 360,))
  above = a_verdict('smooth', told=1, means=(1.1 / 360,))
  assert page.beware(an_advice(below)) == note
  assert not page.beware(an_advice(above))
  other = a_verdict('smooth', 'nll', told=1, means=(0.9 / 360,) * 2)
  assert not page.beware(an_advice(other))


def test_what_it_rests_on_is_counted():
  text = page.rests_on(an_advice(a_verdict('dont')))[0]
  assert 'Seeds 0 to 3 chose among 12 ways to smooth, on 143 images.' in text
  assert (
    'Seeds 1000 to 1015 of the baseline and of LSR(0.1), TSLA(0.1, 21) '
    'were tested on 360 test images, with looks after 16 seeds.'
  ) in text
  assert 'It took 78.0 baseline runs; plan ' in text
  assert text.endswith('It used all its seeds.')
  text = page.rests_on(an_advice(a_verdict('dont'), asked=planned(24)))[0]
  assert text.startswith('Seeds 1000 to 1015') and 'chose' not in text


@pytest.fixture
def no_runs(monkeypatch):
  """Of the runs that confirm only the names are read."""
  results = Results('', 'T', '', (BASELINE, '<b>&'), [])
  monkeypatch.setattr(page, 'read_results', lambda paths: [results])


def refuse(constant):
  raise AssertionError(constant)


def test_the_files_hold_no_nan_and_escape_what_they_show(no_runs, tmp_path):
  unknown = Estimate(*[math.nan] * 3, 16, 360, *[math.nan] * 2)
  nan = a_verdict('no_evidence', 'nll', (0.1, 0.1))
  compared = nan.comparison._replace(against=(unknown, unknown))
  unbounded = {'interval': (-math.inf, math.inf), 'gain_below': math.inf}
  nan = nan._replace(comparisons=(compared,), **unbounded)
  mine = Arm('<i>.py:f', 0.1, 0)
  screen = Fake()('screen', [mine], [0, 1], 0)
  verdict = a_verdict('smooth', told=1, arm=mine)
  asked = planned(metrics=('top1', 'nll'))
  fields = {'screen': screen, 'asked': asked, 'diverged': ['<u>']}
  advice = an_advice(verdict, nan, **fields)
  page.write(advice, tmp_path, BEGAN + " '--config.data.path=<a>&'")
  text = (tmp_path / 'advice.json').read_text()
  content = json.loads(text, parse_constant=refuse)
  assert content['plan']['hash'] == advice.plan.hash
  assert content['answers'][0]['heading'].startswith('SMOOTH')
  assert content['answers'][0]['advised']['theta'] == 0.1
  assert content['answers'][1]['text'].startswith('There is no noise')
  means = content['screen'][mine.name]
  assert means['nll'] == pytest.approx(screen[mine.name]['nll'].mean((1, 2)))
  html = (tmp_path / 'advice.html').read_text()
  for tag in ('<b>&', '<i>', '<u>', '<a>'):
    assert tag not in html
  for shown in ('&lt;b&gt;&amp;', '&lt;i&gt;.py:f(0.1)', '&lt;u&gt;'):
    assert shown in html
  assert 'CHOSEN AMONG 12: NOT AN ESTIMATE.' in html
  assert '<svg' in html and 'nan' not in html.split('<svg')[1].lower()
  before = (tmp_path / 'advice.json').read_bytes(), html
  page.write(advice, tmp_path, BEGAN + " '--config.data.path=<a>&'")
  after = (tmp_path / 'advice.json').read_bytes()
  assert (after, (tmp_path / 'advice.html').read_text()) == before


def test_seeds_that_are_all_alike_add_no_noise(no_runs, tmp_path):
  # By rounding the error is a little less than that of the images.
  c = 0.001**2 * (1 + 1e-12)
  verdict = a_verdict('smooth', told=1)
  alike = Estimate(0.01, 0.001, 15.0, 16, 360, 0.0, c)
  compared = verdict.comparison._replace(against=(alike,))
  verdict = verdict._replace(comparisons=(compared,))
  page.write(an_advice(verdict), tmp_path, BEGAN)
  html = (tmp_path / 'advice.html').read_text()
  row = html.split('Top-1, points<')[-1].split('</tr>')[0]
  assert re.findall(r'>\s*([0-9.]+|nan)\b', row) == ['0.00', '0.10', '0.10']


@pytest.mark.parametrize(
  'arm', [LSR, TSLA, OTHER, Arm('max_suppression', 0.05, 27)]
)
def test_the_command_trains_the_arm_that_is_advised(arm):
  told = a_verdict('smooth', told=1, arm=arm)
  dont = a_verdict('dont', 'nll', (-0.1, -0.1), told=-1)
  found = page.commands(an_advice(told, dont), BEGAN + ' --config.epochs=40')
  plain, text = found.pop('To train for NLL:'), found.pop('To train for Top-1:')
  assert not found and plain == BEGAN + ' --config.epochs=40'
  python, main, *argv = shlex.split(text.replace('\\\n', ''))
  assert (python, main) == ('python', 'main.py')
  config = cli.parse([main, *argv]).config
  baseline = cli.parse([main, BASE, '--config.epochs=40']).config
  assert config == plan.smoothed(baseline, arm)
  assert config.smoothing.theta == arm.theta
  assert config.smoothing.drop_epochs == (arm.drop or -1)
  kind = 'two_stage' if arm.drop else 'constant'
  assert config.smoothing.schedule == kind


def test_metrics_that_advise_the_same_share_a_command():
  dont = [a_verdict('dont', m, (-0.1, -0.1), told=-1) for m in ('nll', 'top1')]
  assert page.commands(an_advice(*dont), 'c') == {
    'To train for NLL, Top-1:': 'c'
  }


# The command.


def test_the_digits_are_not_taken_for_another_set(capsys):
  code, _, err = run(capsys, '--config.data.path=images')
  assert code == 2 and len(err.splitlines()) <= 3
  assert '--config=configs/own_baseline.py' in err


def test_methods_are_not_dropped_for_want_of_budget():
  with pytest.raises(InputError, match='2 methods') as caught:
    planned(60, methods=['label_smoothing', 'max_suppression'])
  # A screen of 4 seeds at 12.4 runs, and the least that confirms.
  assert caught.value.allowed == '82.8 or more'


def run(capsys, *argv):
  code = advise.main([*argv])
  said = capsys.readouterr()
  return code, said.out, said.err


@pytest.mark.parametrize(
  ('argv', 'said'),
  [
    (['--config=configs/digits_tsla.py'], 'smoothing.schedule'),
    ([BASE, '--config.data.validation=0'], '--config.data.validation=0.1'),
    ([BASE, '--config.seed=5'], '--config.seed=0'),
    ([BASE, '--config.epochs=1'], 'epochs = 1'),
    ([BASE, '--config.epoch=1'], 'epochs'),
    ([BASE, '--bugdet=60'], '--budget'),
    ([BASE, 'configs/digits_baseline.py'], 'not a flag'),
    *(([f'--budget={b}'], '--budget') for b in ('nan', '-1', '0', 'abc')),
    (['--jobs=0'], '--jobs=0'),
    (['--jobs=two'], '--jobs'),
    (['--metric=foo'], "'top1', 'nll', 'calibration'"),
    *((['--worth=' + w], '--worth=' + w) for w in ('top1', 'top1=x', 'x=1')),
    *((['--worth=' + w], 'METRIC=GAIN') for w in ('nll=-1', 'nll=nan', '=')),
    (['--methods=foo'], 'label_smoothing'),
    (['--methods='], 'label_smoothing'),
    (['--config=configs/none.py'], 'configs/none.py'),
  ],
)
def test_bad_input_is_explained_in_three_lines(
  argv, said, capsys, tmp_path, monkeypatch
):
  monkeypatch.chdir(ROOT)
  code, out, err = run(capsys, f'--workdir={tmp_path / "new"}', *argv)
  assert (code, out) == (2, '')
  assert said in err and 1 <= len(err.splitlines()) <= 3, err
  assert not (tmp_path / 'new').exists()


def test_outside_a_checkout_a_config_is_missing(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  code, out, err = run(capsys)
  assert (code, out) == (2, '') and 'configs/digits_baseline.py' in err
  assert len(err.splitlines()) <= 3 and not any(tmp_path.iterdir())


def test_a_budget_below_the_least_trains_nothing(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  workdir = f'--workdir={tmp_path / "new"}'
  code, out, err = run(capsys, workdir, '--budget=22.9')
  assert (code, err) == (0, '') and 'too few to train' in out
  assert not (tmp_path / 'new').exists()


@pytest.fixture
def faked(monkeypatch, no_runs):
  """The command trains nothing, in seconds that pass at once."""
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(advise, 'find_devices', lambda: ('cpu', 1))
  train = Fake({LSR.name: 0.3})
  train.has_begun, train.measured = False, 0

  def measure():
    train.measured += 1
    return 75.0

  train.measure = measure
  monkeypatch.setattr(study, 'Trainer', lambda *given: train)
  return train


def test_the_command_says_the_plan_its_time_and_its_verdicts(
  faked, capsys, tmp_path
):
  workdir = tmp_path / 'a'
  code, out, err = run(capsys, f'--workdir={workdir}', '--dry_run')
  assert (code, err) == (0, '') and not faked.calls
  assert 'at most 114.8 baseline runs (3,444 epochs)' in out
  assert '4 seeds choose on 143 validation images' in out
  assert 'at most about 01:15' in out and faked.measured == 1
  assert not workdir.exists()
  # A plan that was only tried commits to nothing.
  code, out, err = run(capsys, f'--workdir={workdir}', '--budget=24')
  assert (code, err) == (0, '') and faked.measured == 2
  assert 'For Top-1: SMOOTH TO THE END, θ = 0.1.' in out
  assert f'advice: {workdir / "advice.html"}' in out
  before = (workdir / 'advice.json').read_bytes()
  faked.has_begun = True
  code, again, err = run(capsys, f'--workdir={workdir}', '--budget=24')
  assert faked.measured == 2 and 'at most about' not in again
  assert (workdir / 'advice.json').read_bytes() == before
  code, _, err = run(capsys, f'--workdir={workdir}', '--budget=25')
  assert code == 2 and 'other now: budget' in err
  code, out, _ = run(capsys, f'--workdir={tmp_path / "b"}', '--budget=25')
  assert code == 0 and 'have been advised on 1 times before' in out


def test_two_advisers_in_a_folder_are_one_too_many(faked, capsys, tmp_path):
  with files.locked(tmp_path / '.lock'):
    code, _, err = run(capsys, f'--workdir={tmp_path}', '--budget=24')
  assert code == 2 and 'another process is training here' in err
  assert not faked.calls and not (tmp_path / 'plan.json').exists()


def test_a_failed_or_stopped_advice_says_how_to_go_on(
  faked, capsys, tmp_path, monkeypatch
):
  argv = [f'--workdir={tmp_path}', '--budget=24', '--worth=top1=0.01']
  again = shlex.join(['python', '-m', 'tsla', 'advise', *argv])
  faked.gone = [BASELINE]
  code, _, err = run(capsys, *argv)
  assert code == 1 and again in err and 'baseline' in err
  stop = Interrupted(signal.SIGTERM)
  faked.measure = lambda: (_ for _ in ()).throw(stop)
  code, _, err = run(capsys, *argv)
  assert code == 143 and err.endswith(f'go on with\n  {again}\n')


# All of it.

_ADVISE = (
  *(sys.executable, 'tests/one_core.py', '-m', 'tsla', 'advise', BASE),
  *('--config.model.width=4', '--config.epochs=2', '--budget=25'),
  *('--metric=top1', '--jobs=2'),
)
_ENV = os.environ | {
  'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')]),
  'JAX_ENABLE_COMPILATION_CACHE': 'true',
}


def start(workdir):
  return subprocess.Popen(
    [*_ADVISE, f'--workdir={workdir}'],
    **{'cwd': ROOT, 'env': _ENV, 'text': True},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )


def wait_for(condition):
  ends = time.monotonic() + 300
  while not condition():
    assert time.monotonic() < ends
    time.sleep(0.05)


def is_free(folder):
  try:
    with files.locked(folder / '.lock', wait=False):
      return True
  except BlockingIOError:
    return False


@pytest.mark.slow
def test_an_advice_that_is_killed_ends_with_the_same_bytes(tmp_path):
  """Killed in its rehearsal and among its runs, stopped among later ones."""
  process = start(tmp_path / 'whole')
  whole, err = process.communicate(timeout=900)
  assert process.returncode == 0, err
  assert 'at most about' in whole and not (tmp_path / 'whole/timing').exists()
  killed = tmp_path / 'killed'

  def has(pattern, count):
    return lambda: len([*killed.glob(pattern)]) >= count

  for pattern, count in (
    ('timing/*/metrics.jsonl', 1),
    ('confirm/*/predictions', 7),
  ):
    process = start(killed)
    wait_for(has(pattern, count))
    process.kill()
    process.communicate()
    below = [path for path in killed.glob('*/*') if path.is_dir()]
    wait_for(lambda below=below: all(map(is_free, filter(has_lock, below))))
  process = start(killed)
  wait_for(has('confirm/*/predictions', 14))
  process.terminate()
  out, err = process.communicate(timeout=300)
  assert process.returncode == 143, err
  assert 'go on with\n  python -m tsla advise' in err
  assert 'at most about' not in out  # nothing is rehearsed again
  process = start(killed)
  out, err = process.communicate(timeout=900)
  assert process.returncode == 0, err
  for name in ('advice.json', 'advice.html', 'plan.json'):
    content = (tmp_path / 'whole' / name).read_bytes()
    assert (killed / name).read_bytes() == content, name
  seeds = collections.Counter(
    path.name.split('-seed')[0] for path in killed.glob('confirm/*-seed*')
  )
  assert set(seeds.values()) == {10}
  begun = time.monotonic()
  process = start(tmp_path / 'whole')
  again, err = process.communicate(timeout=300)
  assert process.returncode == 0 and time.monotonic() - begun < 60, err
  verdict = whole[whole.index('\nFor ') :]
  assert again.endswith(verdict)


def has_lock(folder):
  return (folder / '.lock').exists()
