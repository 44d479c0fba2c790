"""How often the adviser errs and what it tells: it is simulated, with images.

Each adviser meets runs that were drawn, not trained, and decides by the
product's own functions. `null`: no arm differs from the baseline. `power`:
some do. `budget`: fewer seeds than the whole design. `fixed`: the two arms
without a screen. A part prints, of each figure, the share of advisers, its
standard error, and the figure of the design where it named one.

  python benchmarks/adviser.py --part=null --jobs=2

What is drawn of an image is the margin of its label over the other class, in
units in which images differ by 1. To the margin belong what the image is to an
arm, the seed to an arm, and chance, each half an arm's own, a fifth common to
arms of a θ and three tenths to all arms. No clock: the figures do not depend
on the machine, and `size` is part and world.
"""

import argparse
import concurrent.futures
import functools
import itertools
import math
import pathlib
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import common
from tsla.advise import decision, plan
from tsla.advise.decision import METRICS, Question
from tsla.evaluation.calibration import Scores
from tsla.evaluation.two_way import Estimate

EPOCHS, METHOD = 10, 'label_smoothing'
# By θ the longest smoothing first, in which order random numbers are drawn.
ARMS = sorted(
  plan.arms_of([METHOD], EPOCHS),
  key=lambda arm: (arm.theta, -(arm.drop or EPOCHS)),
)
NAMES = (decision.BASELINE, *(arm.name for arm in ARMS))
LOOKS = plan.looks_at(plan.MOST_SEEDS)
SCREENED = len(plan.SCREEN_SEEDS)
OVERCONFIDENT = 1.6  # the true temperature
NAIVE_SEEDS = 5
CHUNK = 25  # advisers that share a seed of the random numbers


class World(NamedTuple):
  """Where the arms do not differ; noises are standard deviations."""

  images: int  # that confirm
  selection: int
  mean: float  # of the margins
  run_noise: float
  image_noise: float
  seed_noise: float
  shift: tuple[float, ...] = (0.0,) * 13  # of the margin, by arm
  sharpness: tuple[float, ...] = (1.0,) * 13

  @property
  def spread(self) -> float:
    """Of the margins."""
    noises = self.run_noise, self.image_noise, self.seed_noise
    return math.sqrt(1 + sum(noise**2 for noise in noises))

  @property
  def scale(self) -> np.ndarray:
    """By arm, what turns margins into logits."""
    true = 2 * self.mean / self.spread**2
    return np.float32(OVERCONFIDENT * true * np.array(self.sharpness))


WORLDS = {
  '360': World(360, 360, 2.1, 0.45, 0.10, 0.02),
  '1000': World(1000, 1000, 1.12, 0.45, 0.15, 0.02),
  '10000': World(10_000, 2000, 1.12, 0.45, 0.15, 0.02),
}

# Of top-1, the sd over seeds of a paired difference as the design had it, from
# one set of images; the mean over sets is 0.0091, 0.0120 and 0.0069.
UNITS = {'360': 0.00766, '1000': 0.0132, '10000': 0.0069}


class Case(NamedTuple):
  """Some advisers that are alike."""

  part: str
  world: str
  name: str
  advisers: int
  gain: float = 0.0  # of top-1, in sd over seeds of a paired difference
  who: str = 'all arms'  # or 'one theta'
  sharpness: float = 1.0  # of the arms
  looks: tuple[int, ...] = LOOKS
  expected: Mapping[str, float] | None = None  # by the design


class Images(NamedTuple):
  """A set of images: how easy they are, and how easy to each arm."""

  easy: np.ndarray  # f32[N]
  to_arm: np.ndarray  # f32[13, N]


# Drawing -------------------------------------------------------------------


def mixed(
  rng: np.random.Generator, arms: Sequence[int], lead: int, tail: int
) -> np.ndarray:
  """Noise f32[lead, arms, tail] of variance 1, partly common to arms."""
  thetas = [3 * (arm - 1) // len(ARMS) for arm in arms]
  shape = lead, len(arms) + 4, tail
  parts = rng.standard_normal(shape, dtype=np.float32)
  noise = parts[:, 4:]
  for place, (arm, theta) in enumerate(zip(arms, thetas, strict=True)):
    if arm:
      noise[:, place] *= np.float32(math.sqrt(0.5))
      noise[:, place] += np.float32(math.sqrt(0.2)) * parts[:, theta]
      noise[:, place] += np.float32(math.sqrt(0.3)) * parts[:, 3]
  return noise


def draw_images(rng: np.random.Generator, world: World, number: int) -> Images:
  """Images that no run was trained on."""
  easy = rng.standard_normal(number, dtype=np.float32) + np.float32(world.mean)
  to_arm = mixed(rng, range(13), 1, number)[0]
  return Images(easy, to_arm * np.float32(world.image_noise))


def draw_seeds(
  rng: np.random.Generator, world: World, arms: Sequence[int], seeds: int
) -> np.ndarray:
  """What a seed is to an arm, f32[seeds, arms, 1]."""
  return mixed(rng, arms, seeds, 1) * np.float32(world.seed_noise)


def draw_logits(
  rng: np.random.Generator,
  world: World,
  arms: Sequence[int],
  seeds: np.ndarray,
  images: Images,
) -> np.ndarray:
  """Of the label over the other class, f32[seeds, arms, images]."""
  logits = mixed(rng, arms, len(seeds), len(images.easy))
  logits *= np.float32(world.run_noise)
  shift = np.float32(world.shift)[list(arms)][:, None]
  logits += images.easy + images.to_arm[list(arms)] + shift
  logits += seeds
  logits *= world.scale[list(arms)][:, None]
  return logits


def temperatures(logits: np.ndarray) -> np.ndarray:
  """Of each run that of the least NLL, by Newton's method: [..., 1]."""
  by = np.full((*logits.shape[:-1], 1), 1 / OVERCONFIDENT, np.float32)
  for _ in range(5):
    with np.errstate(over='ignore'):  # then it is 0
      wrong = 1 / (1 + np.exp(by * logits))
    slope = (logits * wrong).mean(-1, keepdims=True)
    wrong *= 1 - wrong
    wrong *= logits
    wrong *= logits
    by += slope / np.maximum(wrong.mean(-1, keepdims=True), 1e-6)
    by = by.clip(0.2, 3)
  return 1 / by


def scores(logits: np.ndarray) -> Scores:
  """Of a run, from the logit of its labels over the other class."""
  logits = logits.astype(np.float64)
  other = np.exp(-np.abs(logits))
  nll = np.log1p(other) + np.maximum(0, -logits)
  return Scores(nll, np.zeros(0), logits > 0, 1 / (1 + other))


def values(logits: np.ndarray, by: np.ndarray) -> dict[str, np.ndarray]:
  """By metric f64[forms, seeds, images] of an arm's runs."""
  seeds = [
    decision.per_image([scores(run), scores(run / t)])
    for run, t in zip(logits, by, strict=True)
  ]
  return {metric: np.stack([s[metric] for s in seeds], 1) for metric in METRICS}


# One adviser ---------------------------------------------------------------


def screen(
  rng: np.random.Generator, world: World, held: Images
) -> list[Question]:
  """What the first stage asks of the second."""
  seeds = draw_seeds(rng, world, range(13), SCREENED)
  logits = draw_logits(rng, world, range(13), seeds, held)
  by = temperatures(logits)
  runs = {
    name: values(logits[:, arm], by[:, arm]) for arm, name in enumerate(NAMES)
  }
  return decision.choose(runs, ARMS, METRICS)


def two_arms() -> list[Question]:
  """What is asked without a screen: LSR(0.1) and TSLA(0.1, 7 of 10)."""
  return decision.ask_all(plan.fixed(METHOD, EPOCHS), METRICS)


def confirm(
  rng: np.random.Generator,
  world: World,
  questions: Sequence[Question],
  looks: Sequence[int],
  images: Images,
  held: Images,
) -> decision.Decision:
  """Draws the seeds of a look, decides, and so on until it ends.

  What companions are worth is worked out where it is asked for.
  """
  candidates = {arm.name for q in questions for arm, _ in q.candidates}
  companions = {q.companion.name for q in questions if q.companion}
  arms = sorted(map(NAMES.index, {NAMES[0], *candidates, *companions}))
  runs: dict[str, dict[str, np.ndarray]] = {}
  drawn: list[tuple[np.ndarray, np.ndarray]] = []
  before, found = 0, decision.Decision((), 0, '')
  for look in looks:
    seeds = draw_seeds(rng, world, arms, look - before)
    by = temperatures(draw_logits(rng, world, arms, seeds, held))
    logits = draw_logits(rng, world, arms, seeds, images)
    drawn.append((logits, by))
    before = look

    def score(name: str) -> None:
      own = runs.get(name)
      done = own['top1'].shape[1] if own else 0
      total = 0
      for logits, by in drawn:
        total += len(by)
        if total > done:
          place = arms.index(NAMES.index(name))
          new = values(logits[:, place], by[:, place])
          own = own and {m: np.concatenate([own[m], new[m]], 1) for m in own}
          own = own or new
      runs[name] = own

    for name in {NAMES[0], *candidates, *runs}:
      score(name)
    found = decision.follow(runs, questions, looks)
    told = {f.question.companion for f in found.findings if f.told > 0}
    names = {arm.name for arm in told if arm} - set(runs)
    if names:
      for name in names:
        score(name)
      found = decision.follow(runs, questions, looks)
    if found.ended:
      break
  return found


def naive(rng: np.random.Generator, world: World) -> Iterator[bool]:
  """Whether a table of 5 seeds shows something, by metric, over seeds only."""
  images = draw_images(rng, world, world.images)
  seeds = draw_seeds(rng, world, range(13), NAIVE_SEEDS)
  logits = draw_logits(rng, world, range(13), seeds, images)
  runs = [[decision.per_image([scores(r)]) for r in row] for row in logits]
  for metric in METRICS:
    x = np.array([[run[metric].mean() for run in row] for row in runs])
    d = x[:, 1:] - x[:, :1]
    errors = d.std(0, ddof=1) / math.sqrt(NAIVE_SEEDS)
    shown = [
      Estimate(g, e, NAIVE_SEEDS - 1, 0, 0, 0, 0).p_value <= 0.05
      for g, e in zip(d.mean(0), errors, strict=True)
    ]
    yield any(shown)


def cost(questions: Sequence[Question], companions: bool) -> float:
  """Baseline runs that a seed of the confirmation takes, trunks shared."""
  arms = {arm for question in questions for arm, _ in question.candidates}
  if companions:
    arms |= {question.companion for question in questions if question.companion}
  return plan.cost(arms, EPOCHS)


def adviser(
  rng: np.random.Generator, case: Case, world: World, truth: np.ndarray
) -> dict[str, float]:
  """What one adviser says, in numbers, of which 0 and 1 are no and yes.

  `truth` is f64[13, metrics, forms], the expected values of a run.
  """
  held = draw_images(rng, world, world.selection)
  images = draw_images(rng, world, world.images)
  questions = two_arms() if case.part == 'fixed' else screen(rng, world, held)
  found = confirm(rng, world, questions, case.looks, images, held)

  out: dict[str, float] = {'any_claim': 0, 'false_claim': 0, 'until_when': 0}
  gains = {}
  for metric, finding in zip(METRICS, found.findings, strict=True):
    comparison, place = finding.comparison, METRICS.index(metric)
    own = truth[NAMES.index(comparison.arm.name), place, comparison.form]
    over = own - truth[0, place, : len(comparison.against)]
    # The best of what was asked: a gain that is excluded is any arm's.
    gains[metric] = max(
      (truth[NAMES.index(arm.name), place, form] - truth[0, place]).min()
      for arm, form in finding.question.candidates
    )
    better, worse = finding.told > 0, finding.told < 0
    known = finding.question.control
    lost = over[known] if known is not None else over.max()
    out['any_claim'] = max(out['any_claim'], better or worse)
    false = (better and over.min() <= 0) or (worse and lost >= 0)
    out['false_claim'] = max(out['false_claim'], false)
    out[f'{metric}_better'], out[f'{metric}_worse'] = better, worse
    # Arms of one θ are alike in every world.
    out['until_when'] = max(out['until_when'], finding.companion_told != 0)
    low, high = finding.comparisons[-1].lead.interval()
    true = over[finding.comparisons[-1].control]
    if finding.comparisons[-1].arm == comparison.arm:
      out[f'{metric}_covered'] = not (true < low or true > high)
  # The hardest for an exclusion: what is worth it is what is true.
  verdicts = decision.judge(found, case.looks, gains)
  excluded = [
    v.told <= 0 and v.gain_below < gains[v.question.metric] for v in verdicts
  ]
  out['false_exclusion'] = any(excluded)
  kinds = ('false_claim', 'until_when', 'false_exclusion')
  out['any_false'] = max(out[kind] for kind in kinds)
  for verdict in decision.judge(found, case.looks, plan.WORTH):
    for kind in ('dont', 'calibrate', 'beyond_temperature'):
      key = f'{verdict.question.metric}_{kind}'
      out[key] = verdict.kind == kind
  out['seeds'] = found.seeds
  out['runs_a_seed'] = cost(questions, companions=True)
  out['runs_without_companions'] = cost(questions, companions=False)
  if case.part == 'null' and world.images <= 1000:
    shown = dict(zip(METRICS, naive(rng, world), strict=True))
    out |= {f'naive_{metric}': hit for metric, hit in shown.items()}
    out['naive_any'] = any(shown.values())
  return {name: float(value) for name, value in out.items()}


# Worlds with a truth -------------------------------------------------------


def world_of(case: Case) -> World:
  """The world of a case, with what its arms gain."""
  world = WORLDS[case.world]
  # So much more margin is so much more top-1: the density of margins at 0.
  z = world.mean / world.spread
  density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / world.spread
  shift = np.zeros(13)
  shift[slice(5, 9) if case.who == 'one theta' else slice(1, 13)] = case.gain
  shift *= UNITS[case.world] / density
  sharpness = 1.0, *(case.sharpness,) * 12
  return world._replace(shift=tuple(shift), sharpness=sharpness)


def truth_of(world: World) -> np.ndarray:
  """Expected values of a run, f64[13, metrics, forms]; equal arms share them.

  All arms are given the same noise, so that differences are known well.
  """
  rng = np.random.default_rng(1)
  kinds = list(dict.fromkeys(zip(world.shift, world.sharpness, strict=True)))
  sums = np.zeros((len(kinds), len(METRICS), 2))
  draws = max(100, 500_000 // world.images)
  for _ in range(draws):
    plain = world._replace(shift=(0.0,) * 13, sharpness=(1.0,) * 13)
    held = draw_images(rng, world, world.selection)
    images = draw_images(rng, world, world.images)
    noise = draw_seeds(rng, world, (0,), 1)
    pair = [draw_logits(rng, plain, (0,), noise, s)[0] for s in (held, images)]
    for place, (shift, sharpness) in enumerate(kinds):
      scale = world.scale[0] / np.float32(world.sharpness[0])
      own, test = ((u + np.float32(shift * scale)) * sharpness for u in pair)
      runs = values(test, temperatures(own))
      for metric, name in enumerate(METRICS):
        sums[place, metric] += runs[name].mean((1, 2))
  at = [
    kinds.index(kind) for kind in zip(world.shift, world.sharpness, strict=True)
  ]
  return (sums / draws)[at]


def chunk(case: Case, world: World, truth: np.ndarray, number: int) -> Any:
  """Some advisers of a case; which, only the case and the number decide."""
  key = [*f'{case.part} {case.world} {case.name}'.encode(), number]
  rng = np.random.default_rng(key)
  return [adviser(rng, case, world, truth) for _ in range(CHUNK)]


# Parts ---------------------------------------------------------------------


def cases(part: str, share: float) -> Iterator[Case]:
  """What a part consists of; `share` of the advisers."""

  def many(number: int) -> int:
    return max(CHUNK, round(number * share / CHUNK) * CHUNK)

  if part == 'null':
    for world, number, expected in (
      ('360', 2000, (0.016, 11.0, 0.69, 0.968, 0.969, 0.971)),
      ('1000', 2000, (0.032, 10.7, 0.67, 0.958, 0.960, 0.995)),
      ('10000', 1000, (0.030, 11.4, math.nan, 0.950, 0.957, 0.990)),
    ):
      names = ('any_claim', 'seeds', 'naive_any')
      names += tuple(f'{metric}_covered' for metric in METRICS)
      known = dict(zip(names, expected, strict=True))
      yield Case(part, world, 'null', many(number), expected=known)
  if part == 'power':
    for world, told, worse, repaired in (
      ('360', (0.07, 0.06, 0.49, 0.50, 0.98, 0.99), 0.66, 0.013),
      ('1000', (0.14, 0.21, 0.83, 0.80, 1.00, 1.00), 0.85, 0.023),
    ):
      rows = itertools.product((0.5, 1.0, 2.0), ('one theta', 'all arms'))
      for (gain, who), power in zip(rows, told, strict=True):
        name, known = f'{who} {gain:+g} sd', {'top1_better': power}
        yield Case(part, world, name, many(400), gain, who, expected=known)
      known = {'top1_worse': worse}
      name = 'all arms -1 sd'
      yield Case(part, world, name, many(400), -1.0, expected=known)
      known = {'any_claim': repaired}
      name = 'sharpness only'
      yield Case(part, world, name, many(400), sharpness=0.7, expected=known)
  if part == 'budget':
    for world, seeds in itertools.product(('360', '1000'), (9, 12, 14)):
      looks = plan.looks_at(seeds)
      name = f'{seeds} seeds, null'
      yield Case(part, world, name, many(2000), looks=looks)
      for who in ('one theta', 'all arms'):
        name = f'{seeds} seeds, {who} +1 sd'
        yield Case(part, world, name, many(400), 1.0, who, looks=looks)
  if part == 'fixed':
    for world, seeds in itertools.product(('360', '1000'), (10, 16, 24)):
      known = {'any_claim': 0.043}
      yield Case(
        part,
        world,
        f'{seeds} seeds, null',
        many(2000),
        looks=(seeds,),
        expected=known,
      )
      for gain in (1.0, 2.0):
        name = f'{seeds} seeds, all arms {gain:+g} sd'
        yield Case(part, world, name, many(400), gain, looks=(seeds,))


PARTS = ('null', 'power', 'budget', 'fixed')


def figures(case: Case, advisers: list[dict[str, float]]) -> dict[str, Any]:
  """Means over the advisers, each with its error and the design's figure."""
  found: dict[str, Any] = {}
  expected = case.expected or {}
  for name in dict.fromkeys(itertools.chain.from_iterable(advisers)):
    x = np.array([each[name] for each in advisers if name in each])
    if not x.any() and name not in expected and name != 'any_claim':
      continue
    error = x.std() / math.sqrt(len(x))
    found[name] = {'mean': round(float(x.mean()), 4)}
    found[name]['error'] = round(float(error), 4)
    design = expected.get(name, math.nan)
    if not math.isnan(design):
      found[name]['design'] = design
  return found


def show(case: Case, found: dict[str, Any]) -> None:
  """Prints a line each figure."""
  print(f'{case.world} images, {case.name}, {case.advisers} advisers:')
  for name, each in found.items():
    design = f'  design {each["design"]:g}' if 'design' in each else ''
    line = f'{each["mean"]:8.4f} ± {each["error"]:.4f}{design}'
    print(f'  {name.replace("_", " "):28}{line}', flush=True)


def save(
  args: argparse.Namespace, name: str, size: str, figures: dict[str, Any]
) -> None:
  """Adds the line of some advisers, with the command that made it.

  Its batch is how many of them share a seed.
  """
  script = pathlib.Path(sys.argv[0]).name
  command = ' '.join(['python', f'benchmarks/{script}', *sys.argv[1:]])
  args.size, args.dtype = size, 'float32'
  device = f'cpu ({platform.machine()})'
  common.record(name, args, device, {'command': command} | figures)


def main() -> None:
  """Simulates a part, or all of them, and records a line each case."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--part', choices=(*PARTS, 'all'), default='all')
  parser.add_argument('--world', choices=WORLDS, help='that one only')
  parser.add_argument('--jobs', type=int, default=1)
  parser.add_argument('--share', type=float, default=1.0, help='of advisers')
  parser.add_argument('--no-save', action='store_true')
  args = parser.parse_args()
  args.batch = CHUNK
  parts = PARTS if args.part == 'all' else (args.part,)
  with concurrent.futures.ProcessPoolExecutor(args.jobs) as pool:
    for case in itertools.chain.from_iterable(
      cases(part, args.share) for part in parts
    ):
      if args.world and case.world != args.world:
        continue
      world = world_of(case)
      truth = truth_of(world)
      work = functools.partial(chunk, case, world, truth)
      chunks = list(pool.map(work, range(case.advisers // CHUNK)))
      found = figures(case, list(itertools.chain.from_iterable(chunks)))
      show(case, found)
      size = f'{case.part}, {case.world} images, {case.name}'
      save(args, 'adviser', size, {'advisers': case.advisers} | found)


if __name__ == '__main__':
  main()
