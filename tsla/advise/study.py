"""Runs a plan: trains, reads what runs said of images, asks, until told."""

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tsla.advise import decision, plan
from tsla.advise.decision import BASELINE, METRICS, Arm, Runs
from tsla.advise.plan import Plan
from tsla.config.schema import Config
from tsla.errors import InputError
from tsla.evaluation.calibration import fit_temperature
from tsla.report import summary
from tsla.report.results import Results, RunResult, read_results
from tsla.runs.lifecycle import Interrupted
from tsla.runs.predictions import scores
from tsla.sweep import pool
from tsla.sweep.inputs import check_inputs
from tsla.sweep.plan import ENDED
from tsla.sweep.plan import plan as plan_runs
from tsla.sweep.table import Row, Table, adapt

# Trains some arms and seeds of a stage, and reads their numbers; as many
# baseline runs may follow.
Train = Callable[[str, Sequence[Arm], Sequence[int], float], Runs]


class Advice(NamedTuple):
  """How a plan ended."""

  plan: Plan
  screen: Runs
  decision: decision.Decision
  verdicts: list[decision.Finding]
  arms: list[Arm]  # that were confirmed
  looks: tuple[int, ...]
  runs: Runs  # of the seeds that confirm
  spent: float  # baseline runs
  diverged: list[str]  # arms that are left out, as a run of them did
  earlier: Sequence[str]  # folders of other advices on the same data


class Failed(Exception):
  """A run failed without which there is no verdict."""


def follow_plan(
  asked: Plan, train: Train, earlier: Sequence[str] = ()
) -> Advice:
  """Runs a plan, with `train` to train and read."""
  screen: Runs = {}
  if asked.screen:
    after = asked.budget - asked.screen_cost
    screen = train('screen', asked.arms, asked.screen, after)
    arms = [arm for arm in asked.arms if arm.name in screen]
    if not arms:
      raise Failed('every arm of the screen diverged')
    questions = decision.choose(screen, arms, asked.metrics)
  else:
    questions = decision.ask_all(asked.arms, asked.metrics)
  arms, looks = asked.confirmed(questions)
  seed = plan.cost(arms, asked.epochs)
  for count in looks:
    after = (looks[-1] - count) * seed
    runs = train('confirm', arms, plan.seeds_of(count), after)
    # Of an arm that diverged nothing is told, at any look.
    unknown = {m: np.full_like(x, np.nan) for m, x in runs[BASELINE].items()}
    known = runs.keys()
    runs = {arm.name: unknown for arm in arms} | runs
    found = decision.follow(runs, questions, looks)
    if found.ended:
      break
  verdicts = decision.judge(found, looks, asked.worth)
  spent = asked.screen_cost + found.seeds * seed
  gone = {arm.name for arm in asked.arms} - screen.keys() if screen else set()
  gone |= {arm.name for arm in arms} - known
  ends = arms, looks, runs, spent, sorted(gone), earlier
  return Advice(asked, screen, found, verdicts, *ends)


@dataclasses.dataclass
class Trainer:
  """Trains on this machine, as a sweep does, in a folder a stage."""

  plan: Plan
  config: Config  # the baseline's
  workdir: pathlib.Path
  jobs: int  # runs at a time
  command: str  # what goes on with it

  @property
  def has_begun(self) -> bool:
    """Whether a stage has."""
    return any((self.workdir / stage).exists() for stage in self.plan.parts)

  def __call__(
    self, stage: str, arms: Sequence[Arm], seeds: Sequence[int], after: float
  ) -> Runs:
    """What runs said; without the arms of which one diverged."""
    table, epochs = self._table(stage, arms), self.plan.epochs
    whole = self.plan.budget * epochs
    results = self._train(stage, table, seeds, after * epochs, whole)
    found = {}
    for row in results.rows:
      runs = [self._numbers(run, stage) for run in results.done(row)]
      if len(runs) == len(seeds):
        found[row] = {m: np.stack([run[m] for run in runs], 1) for m in METRICS}
    return found

  def measure(self) -> float | None:
    """Seconds that the whole plan takes at most; None: it cannot be rehearsed.

    From a rehearsal of two epochs, of as many runs as there are at a time; the
    second one counts, for which everything is compiled.
    """
    try:
      table = adapt(self._table('rehearsed', ()), {}, epochs=2)
    except InputError:  # what the config has in steps cannot be shortened
      return None
    folder = self.workdir / 'timing'
    try:
      for _ in range(2):
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.monotonic()
        results = self._train('timing', table, range(self.jobs))
        passed = time.monotonic() - begun
    finally:
      shutil.rmtree(folder, ignore_errors=True)
    epochs, _, seconds, _ = summary.cost(results.runs)
    epoch = min(passed / 2, seconds / epochs)  # which NaN is not
    asked, start = self.plan, passed - 2 * epoch
    total = asked.most_runs * start + asked.budget * asked.epochs * epoch
    return total / self.jobs

  def _table(self, stage: str, arms: Sequence[Arm]) -> Table:
    rows = [Row(BASELINE, self.config)]
    rows += [Row(arm.name, plan.smoothed(self.config, arm)) for arm in arms]
    title = f'Advice on {self.config.data.name}, {stage}'
    return Table(f'advice-{stage}', title, tuple(rows))

  def _train(
    self,
    stage: str,
    table: Table,
    seeds: Sequence[int],
    after: float = 0,
    whole: float = 0,
  ) -> Results:
    """Trains what is not trained yet; epochs that follow, and of all."""
    folder = self.workdir / stage
    runs = plan_runs(table, seeds, folder)
    check_inputs(runs, folder)
    asked = table, runs, folder, self.jobs, self.command
    _, signum = pool.train_table(*asked, after=after, whole=whole)
    if signum:
      raise Interrupted(signum)
    (results,) = read_results([folder])
    for run in results.runs:
      if run.state not in ENDED:
        raise Failed(f'{run.record.path}: {run.state} ({run.reason})')
    if len(results.done(BASELINE)) < len(seeds):
      raise Failed('a run of the baseline diverged')
    return results

  def _numbers(self, run: RunResult, stage: str) -> dict[str, np.ndarray]:
    """By metric, what a run said of the images of a stage."""
    where = str(run.record.path)
    split = self.plan.select if stage == 'screen' else 'test'
    said = run.record.predictions(split)
    if said is None or run.record.fingerprint != self.plan.data:
      problem = f'{where}: not what it said of {split} images of this data set'
      cure = f'rm -r {where}, then the same command: it is trained again'
      raise InputError(problem, allowed='as the run wrote it', cure=cure)
    images = self.plan.parts[stage]
    part = {name: values[images] for name, values in said.items()}
    temperature = run.record.network(where)['temperature']
    if self.plan.select == 'test':  # more images fit it better
      chose = (said[n][self.plan.parts['screen']] for n in ('logits', 'labels'))
      temperature = fit_temperature(*chose)
    return decision.per_image([scores(part, by) for by in (1.0, temperature)])
