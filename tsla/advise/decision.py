"""What an adviser's runs decide: pure functions of numbers per image.

A method is judged as trained and with its own temperature, the two forms, by
per-image numbers of which larger is better. A screen chooses a candidate for
each metric; runs of fresh seeds on other images confirm it, at some looks.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from tsla.evaluation.calibration import Scores, squared_error_shares
from tsla.evaluation.two_way import ALPHA, Estimate, futile, spending, two_way

METRICS = ('top1', 'nll', 'calibration')
FORMS = ('as trained', 'with its temperature')
BASELINE = 'baseline'

Values = Mapping[str, np.ndarray]  # by metric, f64[forms, ..., images]
Runs = Mapping[str, Values]  # by the name of an arm, f64[forms, seeds, images]
Kind = Literal[
  'smooth', 'dont', 'calibrate', 'no_evidence', 'beyond_temperature'
]


class Arm(NamedTuple):
  """A way of smoothing that may be advised."""

  method: str
  theta: float
  drop: int  # the epoch after which it ends; 0: it never does

  @property
  def name(self) -> str:
    """Such as 'LSR(0.1)' and 'TSLA(0.1, 15)'."""
    text = f'{self.theta:g}, {self.drop}' if self.drop else f'{self.theta:g}'
    if self.method != 'label_smoothing':
      return f'{self.method}({text})'
    return f'TSLA({text})' if self.drop else f'LSR({text})'

  @property
  def fields(self) -> dict[str, Any]:
    """Of a config's `smoothing`, those that it sets."""
    given = {'schedule': 'constant', 'method': self.method, 'theta': self.theta}
    drops = {'schedule': 'two_stage', 'drop_epochs': self.drop}
    return given | drops if self.drop else given


class Question(NamedTuple):
  """What the confirmation asks of a metric."""

  metric: str
  candidates: tuple[tuple[Arm, int], ...]  # with its form; several: corrected
  control: int | None = None  # the baseline's better form; None: none is known
  companion: Arm | None = None  # the candidate's, dropped instead of kept or so


class Comparison(NamedTuple):
  """A candidate against each form of the baseline, at a look."""

  arm: Arm
  form: int
  against: tuple[Estimate, ...]
  control: int
  direction: int  # 1 better, -1 worse, 0 neither
  p_value: float  # corrected for the candidates of the question
  rivals: tuple[tuple[Estimate, ...], ...] = ()  # of every candidate

  @property
  def lead(self) -> Estimate:
    """Against the better form of the baseline, as far as that was known."""
    return self.against[self.control]

  @property
  def hardest(self) -> int:
    """The form of the baseline over which the gain is least."""
    means = [estimate.mean for estimate in self.against]
    return int(np.argmin(means))


class Finding(NamedTuple):
  """What is known of a metric, at the look that told it or at the last one.

  `judge` adds the answer, with the level at which its interval holds.
  """

  question: Question
  comparisons: tuple[Comparison, ...] = ()  # one a look
  told: int = 0  # 1 better than the baseline, -1 worse, 0 not told
  look: int = 0  # which of the looks tells it
  level: float = 0.0  # of that look
  companion: Estimate | None = None  # candidate less companion, where asked
  companion_told: int = 0
  companion_level: float = 0.0  # of the look that tells it, or the last one
  kind: Kind = 'no_evidence'
  interval: tuple[float, float] = (-np.inf, np.inf)  # of the lead
  gain_below: float = np.inf  # a gain from there on is excluded

  @property
  def comparison(self) -> Comparison:
    """The comparison at the look that counts."""
    return self.comparisons[self.look]

  def form(self, comparison: Comparison) -> int:
    """The form of the baseline that a comparison speaks of."""
    return comparison.control if self.told < 0 else comparison.hardest

  @property
  def lead(self) -> Estimate:
    """Against the form of the baseline that decides."""
    return self.comparison.against[self.form(self.comparison)]


class Decision(NamedTuple):
  """Where an adviser stands after some seeds."""

  findings: tuple[Finding, ...]  # one a metric
  seeds: int  # of the last look
  ended: str  # 'told_all', 'futile' or 'all_seeds'; '' while it goes on


def per_image(forms: Sequence[Scores]) -> dict[str, np.ndarray]:
  """By metric `f64[forms, N]` of a run; larger is better.

  top-1: whether the image is right, the same in both forms; NLL: log p_y, in
  nats; calibration: what it takes from the squared calibration error.
  """
  return {
    'top1': np.array([forms[0].correct], np.float64),
    'nll': np.array([-scores.nll for scores in forms]),
    'calibration': -np.array([squared_error_shares(s) for s in forms]),
  }


def choose(
  screen: Runs, arms: Sequence[Arm], metrics: Sequence[str]
) -> list[Question]:
  """The candidate of each metric: of all arms and forms the largest mean.

  Its companion has the same θ: of an arm that is dropped the one that is kept,
  of one that is kept the best of those that are dropped.
  """
  questions = []
  for metric in metrics:
    mean = {name: _means(runs[metric]) for name, runs in screen.items()}
    arm = max(arms, key=lambda a: mean[a.name].max())  # of equal ones the first
    form, control = (int(mean[x].argmax()) for x in (arm.name, BASELINE))
    alike = (a for a in arms if a[:2] == arm[:2])
    others = (a for a in alike if bool(a.drop) != bool(arm.drop))
    companion = max(others, key=lambda a: mean[a.name][form], default=None)
    questions.append(Question(metric, ((arm, form),), control, companion))
  return questions


def ask_all(arms: Sequence[Arm], metrics: Sequence[str]) -> list[Question]:
  """Without a screen every arm, in each form, is a candidate."""
  forms = {metric: range(1 if metric == 'top1' else 2) for metric in metrics}
  return [
    Question(metric, tuple(itertools.product(arms, forms[metric])))
    for metric in metrics
  ]


def _means(values: np.ndarray) -> np.ndarray:
  """By form; what is not known is never the best."""
  means = values.mean((1, 2))
  return np.where(np.isnan(means), -np.inf, means)


def follow(
  runs: Runs, questions: Sequence[Question], looks: Sequence[int]
) -> Decision:
  """What is decided after as many looks as there are fresh seeds for.

  At each look Holm's method goes over the metrics that are not told yet, at
  what the spending leaves for the look; what is told stays told. Whether the
  companion differs is a question of its own, at a level of its own, from the
  look on at which the candidate is told better. It ends where everything is
  told, or the rest is futile.

  Reference:
    Holm, A simple sequentially rejective multiple test procedure, Scandinavian
    Journal of Statistics 6 (1979).
  """
  available = min(x.shape[1] for own in runs.values() for x in own.values())
  found = {question.metric: Finding(question) for question in questions}
  ended, seeds = '', 0
  for look, seeds in enumerate(n for n in looks if n <= available):
    for metric, finding in found.items():
      compared = *finding.comparisons, _compare(runs, finding.question, seeds)
      latest = finding.look if finding.told else look
      found[metric] = finding._replace(comparisons=compared, look=latest)
    waiting = [metric for metric, finding in found.items() if not finding.told]
    waiting.sort(key=lambda metric: found[metric].comparison.p_value)
    while waiting:
      level = _level(looks, look, len(waiting))
      if found[waiting[0]].comparison.p_value > level:
        break
      finding = found[metric := waiting.pop(0)]
      direction = finding.comparison.direction
      found[metric] = finding._replace(told=direction, level=level)
    for metric in waiting:
      found[metric] = found[metric]._replace(level=level)
    for metric, finding in found.items():
      if finding.told > 0 and not finding.companion_told:
        level = _level(looks, look, 1)
        found[metric] = _ask_companion(runs, finding, seeds, level)
    final = _level(looks, len(looks) - 1, 1)
    leads = [found[metric].comparison.lead for metric in waiting]
    if not waiting:
      ended = 'told_all'
    elif seeds == looks[-1]:
      ended = 'all_seeds'
    elif all(futile(lead, looks[-1], final) for lead in leads):
      ended = 'futile'
    if ended:
      break
  return Decision(tuple(found.values()) if seeds else (), seeds, ended)


def _level(looks: Sequence[int], look: int, shares: int) -> float:
  """What is spent at a look of a share of ALPHA."""
  return float(spending(looks, ALPHA / shares)[look])


def _compare(runs: Runs, question: Question, seeds: int) -> Comparison:
  """The candidate that speaks for smoothing most, against the baseline.

  One of several is better at a p-value times their number; they are worse where
  all of them are, at the greatest p-value.
  """
  metric, known, found = question.metric, question.control, []
  for arm, form in question.candidates:
    own = runs[arm.name][metric][form, :seeds]
    others = runs[BASELINE][metric][:, :seeds]
    against = tuple(two_way(own - other) for other in others)
    # Better is more than every form of the baseline; worse is less than the
    # better one, or than all where it is not known which that is.
    worse = against if known is None else (against[known],)
    lowest = int(np.argmin([estimate.mean for estimate in against]))
    control = lowest if known is None else known
    direction, p_value = 0, 1.0
    for sign, estimates in ((1, against), (-1, worse)):
      if all(sign * estimate.mean > 0 for estimate in estimates):
        direction = sign
        p_value = max(estimate.p_value for estimate in estimates)
    found.append(Comparison(arm, form, against, control, direction, p_value))
  direction = max(comparison.direction for comparison in found)
  if direction > 0:
    best = max(found, key=lambda c: (c.direction, -c.p_value, c.lead.mean))
    p_value = min(1.0, len(found) * best.p_value)
  else:  # where one is neither, its p-value is 1
    best = max(found, key=lambda c: (not np.isnan(c.lead.mean), c.lead.mean))
    p_value = max(c.p_value for c in found)
  rivals = tuple(comparison.against for comparison in found)
  return best._replace(direction=direction, p_value=p_value, rivals=rivals)


def _ask_companion(
  runs: Runs, finding: Finding, seeds: int, level: float
) -> Finding:
  comparison, metric = finding.comparison, finding.question.metric
  companion = finding.question.companion
  if companion is None or companion.name not in runs:
    return finding
  arms = comparison.arm, companion
  own, other = (runs[a.name][metric][comparison.form, :seeds] for a in arms)
  estimate = two_way(own - other)
  told = int(np.sign(estimate.mean)) if estimate.p_value <= level else 0
  found = {'companion_told': told, 'companion_level': level}
  return finding._replace(companion=estimate, **found)


def judge(
  decision: Decision, looks: Sequence[int], worth: Mapping[str, float]
) -> list[Finding]:
  """With the answers; `worth` is the gain of a metric that would matter."""
  judged = []
  for finding in decision.findings:
    comparison, question = finding.comparison, finding.question
    candidates = len(question.candidates)
    # All candidates are worse at no more than the level itself.
    level = finding.level / (candidates if finding.told >= 0 else 1)
    # A gain is one over every form of the baseline: the least end bounds it.
    bound = _level(looks, finding.look, len(decision.findings) * candidates)
    ends = [[e.interval(bound)[1] for e in each] for each in comparison.rivals]
    gain_below, matters = max(map(min, ends)), worth.get(question.metric, 0.0)
    # A gain over the baseline as trained, of which a temperature takes some.
    trained, *calibrated = comparison.against
    gained = trained.mean > 0 and trained.p_value <= level
    may_matter = trained.interval(bound)[1] >= matters
    repaired = gained and bool(calibrated) and may_matter
    repaired = repaired and comparison.hardest > 0
    kind: Kind = 'beyond_temperature' if repaired else 'no_evidence'
    if finding.told > 0:
      kind = 'smooth'
    elif finding.told < 0 or gain_below < matters:
      kind = 'calibrate' if repaired else 'dont'
    answer = {'kind': kind, 'interval': finding.lead.interval(level)}
    answer |= {'level': level, 'gain_below': gain_below}
    judged.append(finding._replace(**answer))
  return judged
