"""The plan of an adviser, which is written before its first run."""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from tsla import files
from tsla.advise.decision import Arm, Question
from tsla.config.checks import validate
from tsla.config.forms import config_hash
from tsla.config.schema import Config
from tsla.data.datasets import Dataset, Split
from tsla.errors import InputError
from tsla.runs.predictions import MOST_LOGITS
from tsla.sweep import outline
from tsla.sweep.table import ENDLESS

NAME, ADVICE = 'plan.json', 'advice.json'
WORTH = {'top1': 0.005, 'nll': 0.01}
_FORMAT = 1
_THETAS = (0.05, 0.1, 0.2)
_DROPS = (0.5, 0.7, 0.9)  # shares of the run
SCREEN_SEEDS = (0, 1, 2, 3)
_FIRST_SEED = 1000  # of those that confirm
MOST_SEEDS = 16
_LOOKS = (0.375, 0.625, 1)  # shares of the seeds
_FEWEST_FIXED = 10  # seeds, of the plan without a screen
_LEAST = 33.2  # baseline runs that are left to confirm after a screen
_PART = 5  # a selection has at least so small a part of the test images
_SOME_IMAGES = 1000  # at most, by which test images are known again
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is trained, chosen, asked, and of how many seeds and images."""

  config: str  # hash of the baseline's
  data: str  # SHA-256 of the data set
  epochs: int
  arms: tuple[Arm, ...]
  screen: tuple[int, ...]  # seeds that choose; none: all arms are confirmed
  metrics: tuple[str, ...]
  worth: dict[str, float]  # the gain of a metric that would matter
  budget: float  # baseline runs that it takes at most
  select: str  # 'validation', or 'test': on a fifth of it
  images: tuple[int, int]  # that choose, that confirm
  confirm: tuple[int, int] = (_FIRST_SEED, MOST_SEEDS)  # first, how many
  looks: tuple[float, ...] = _LOOKS  # after these shares of the seeds

  @property
  def hash(self) -> str:
    """Of all of it."""
    text = json.dumps(dataclasses.asdict(self), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  @property
  def screen_cost(self) -> float:
    """In baseline runs."""
    return len(self.screen) * cost(self.arms, self.epochs)

  @property
  def most_runs(self) -> int:
    """Runs that it may train."""
    arms = 1 + len(self.arms)
    if not self.screen:
      return self.confirmed(())[1][-1] * arms
    confirm = MOST_SEEDS * (1 + 2 * len(self.metrics))
    return len(self.screen) * arms + confirm

  def confirmed(
    self, questions: Sequence[Question]
  ) -> tuple[list[Arm], tuple[int, ...]]:
    """The arms that are confirmed, and the looks at numbers of seeds.

    Without a budget that allows them for all seeds no companion is trained.
    """
    if not self.screen:
      seeds = self.budget / cost(self.arms, self.epochs)
      return [*self.arms], (int(seeds + _ROUNDING),)
    chosen = [arm for q in questions for arm, _ in q.candidates]
    companions = [q.companion for q in questions if q.companion]
    for arms in (chosen + companions, chosen):
      arms = list(dict.fromkeys(arms))
      left = (self.budget - self.screen_cost) / cost(arms, self.epochs)
      if (seeds := int(left + _ROUNDING)) >= MOST_SEEDS:
        break
    return arms, looks_at(min(seeds, MOST_SEEDS), self.looks)

  @property
  def parts(self) -> dict[str, np.ndarray]:
    """By stage, the places of its images in their split."""
    first, second = self.images
    if self.select == 'validation':
      return {'screen': np.arange(first), 'confirm': np.arange(second)}
    generator = np.random.default_rng(int(self.data[:16], 16))
    order = generator.permutation(first + second)
    chosen, rest = np.sort(order[:first]), np.sort(order[first:])
    return {'screen': chosen, 'confirm': rest}

  def save(self, workdir: pathlib.Path, test: Split) -> list[str]:
    """Writes it; InputError: the folder is another plan's, or a sweep's.

    Returns which advices on the same test images were finished beside it before
    it was begun, by their folders' names.
    """
    content = json.loads(json.dumps(dataclasses.asdict(self)))
    some = test.images[:: len(test.labels) // _SOME_IMAGES + 1]
    seen = hashlib.sha256(test.labels.tobytes() + some.tobytes()).hexdigest()
    path, cure = workdir / NAME, 'another --workdir'
    if path.exists():
      begun = files.read_object(path, newest=_FORMAT)
      if changed := [n for n in content if begun.get(n) != content[n]]:
        problem = f'--workdir={workdir}: another plan was begun there'
        allowed = f'the same plan; other now: {", ".join(changed)}'
        raise InputError(problem, allowed=allowed, cure=cure)
      return begun.get('earlier', [])
    if (workdir / outline.NAME).exists():
      raise InputError(f'--workdir={workdir}: a sweep is there', cure=cure)
    earlier = []
    for other in sorted(workdir.parent.glob(f'*/{NAME}')):
      with contextlib.suppress(InputError):
        begun = files.read_object(other, newest=_FORMAT)
        # An earlier version knew the whole set alone.
        known = {'test': seen, 'data': self.data}
        same = any(begun.get(name) == known[name] for name in known)
        same = same and begun.get('hash') != self.hash
        if same and (other.parent / ADVICE).exists():
          earlier.append(other.parent.name)
    content |= {'hash': self.hash, 'test': seen, 'earlier': earlier}
    files.write_object(path, content, version=_FORMAT)
    return earlier


def cost(arms: Iterable[Arm], epochs: int) -> float:
  """Baseline runs of a seed of the baseline and some arms that share trunks."""
  spent, longest = 1.0, collections.defaultdict[tuple[str, float], int](int)
  for arm in arms:
    kind, end = arm[:2], arm.drop or epochs
    # The first of a kind is trained whole, the others from where they end.
    spent += 1 - min(longest[kind], end) / epochs
    longest[kind] = max(longest[kind], end)
  return spent


def arms_of(methods: Sequence[str], epochs: int) -> list[Arm]:
  """What a screen chooses among: each θ to the end, and dropped before."""
  drops = sorted({round(share * epochs) for share in _DROPS} - {0, epochs})
  ways = dict.fromkeys(methods), _THETAS, (0, *drops)
  return list(itertools.starmap(Arm, itertools.product(*ways)))


def looks_at(seeds: int, shares: Sequence[float] = _LOOKS) -> tuple[int, ...]:
  """Of so many seeds, the numbers after which is looked."""
  return tuple(sorted({math.ceil(share * seeds) for share in shares}))


def make(
  config: Config,
  dataset: Dataset,
  methods: Sequence[str],
  metrics: Sequence[str],
  worth: dict[str, float],
  budget: float,
) -> Plan | None:
  """The plan of a budget; None: it is too small for any.

  InputError: a method is not known, or cannot be used with the config.
  """
  epochs = config.epochs
  arms = arms_of(methods, epochs)
  for arm in arms:
    validate(smoothed(config, arm))
  screen: tuple[int, ...] = SCREEN_SEEDS
  spent = len(screen) * cost(arms, epochs)
  if budget < spent + _LEAST:
    if len(methods) > 1:
      problem = f'--budget={budget:g}, and {len(methods)} methods'
      allowed, cure = f'{spent + _LEAST:g} or more', 'one of --methods'
      raise InputError(problem, allowed=allowed, cure=cure)
    arms, screen = fixed(methods[0], epochs), ()
    if budget < _FEWEST_FIXED * cost(arms, epochs) - _ROUNDING:
      return None
  else:  # at most, every metric has a θ of its own
    first = min(arm.drop for arm in arms if arm.drop)
    seed = 1 + len(metrics) * (1 + (1 - first / epochs))
    budget = min(budget, spent + MOST_SEEDS * seed)
  test = len(dataset.test.labels)
  held = len(dataset.validation.labels) if dataset.validation else 0
  select, images = 'validation', (held, test)
  if _PART * held < test:
    if dataset.num_classes > MOST_LOGITS:
      problem = f'{held:,} validation images, and {test:,} test images'
      allowed = (
        f'at least {1 / _PART:.0%} as many, above {MOST_LOGITS:,} classes'
      )
      cure = '--config.data.validation=…, more of the training images'
      raise InputError(problem, allowed=allowed, cure=cure)
    select, images = 'test', (test // _PART, test - test // _PART)
  return Plan(
    config_hash(config),
    dataset.fingerprint,
    epochs,
    tuple(arms),
    screen,
    tuple(metrics),
    {name: worth[name] for name in metrics if name in worth},
    budget,
    select,
    images,
  )


def smoothed(config: Config, arm: Arm) -> Config:
  """The baseline's config with an arm's smoothing."""
  config = config.copy_and_resolve_references()
  config.smoothing.update(ENDLESS | arm.fields)
  return config


def seeds_of(count: int) -> range:
  """The seeds of the first `count` runs that confirm."""
  return range(_FIRST_SEED, _FIRST_SEED + count)


def fixed(method: str, epochs: int) -> list[Arm]:
  """The arms of a plan without a screen."""
  return [Arm(method, 0.1, drop) for drop in (0, round(0.7 * epochs))]
