"""How often the adviser finds something in real runs of one method only.

A finished sweep of a single row is read, the runs are given the names of the
baseline and of all arms at random, and the adviser decides: whatever it claims
is false. Of the test images a fifth, drawn anew, chooses and the others
confirm; each run has the temperature of its validation split.

An adviser takes distinct runs for the 4 × 13 of the screen, and of what is left
16 as the baseline, 16 as the candidate and 16 as the companion of every metric:
100 together, so that of two advisers' runs and images most are the same, in
other places. The advisers are not independent, and the error of the rate holds
for these runs and images only. No run shares its seed with another, so that
nothing is paired.

  python -m tsla sweep --table=configs/sweeps/digits_seeds.py \
    --workdir=runs/digits-seeds --seeds=100
  python benchmarks/adviser_control.py --workdir=runs/digits-seeds
"""

import argparse
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

import adviser
from tsla.advise import decision
from tsla.evaluation.calibration import Scores
from tsla.report.results import read_results
from tsla.runs import predictions

Forms = Sequence[Scores]  # of a run


def read_runs(folder: pathlib.Path) -> list[Forms]:
  """The scores of each run on the test images, in both forms."""
  (results,) = read_results([folder])
  found = []
  for run in results.done(results.rows[0]):
    said = run.record.predictions('test')
    by = run.record.network(str(folder))['temperature']
    found.append([predictions.scores(said, t) for t in (1.0, by)])
  return found


def on(runs: Sequence[Forms], images: np.ndarray) -> decision.Values:
  """By metric f64[forms, runs, images], on some of the images."""
  own = [
    decision.per_image([Scores(*(a[images] for a in form)) for form in run])
    for run in runs
  ]
  metrics = decision.METRICS
  return {name: np.stack([run[name] for run in own], 1) for name in metrics}


def advise(rng: np.random.Generator, runs: list[Forms]) -> decision.Decision:
  """One adviser; runs begin again where they do not suffice."""
  order = itertools.cycle(rng.permutation(len(runs)))

  def take(number: int) -> list[Forms]:
    return [runs[next(order)] for _ in range(number)]

  places = rng.permutation(len(runs[0][0].correct))
  images, chosen = np.split(places, [len(places) * 4 // 5])
  screen = {n: on(take(adviser.SCREENED), chosen) for n in adviser.NAMES}
  questions = decision.choose(screen, adviser.ARMS, decision.METRICS)
  base, own, other = (on(take(adviser.LOOKS[-1]), images) for _ in range(3))
  # One arm may be the candidate of a metric and the companion of another.
  confirm: dict[str, dict[str, np.ndarray]] = {decision.BASELINE: dict(base)}
  for question in questions:
    roles = (question.candidates[0][0], own), (question.companion, other)
    for arm, values in roles:
      confirm.setdefault(arm.name, {})[question.metric] = values[
        question.metric
      ]
  return decision.follow(confirm, questions, adviser.LOOKS)


def main() -> None:
  """Draws the advisers and records the rates."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--advisers', type=int, default=200)
  parser.add_argument('--no-save', action='store_true')
  args = parser.parse_args()
  args.batch = args.advisers
  runs, rng = read_runs(args.workdir), np.random.default_rng(0)
  rows = []
  for _ in range(args.advisers):
    found = advise(rng, runs)
    row = {'any_claim': any(f.told for f in found.findings)}
    for finding in found.findings:
      row[f'{finding.question.metric}_better'] = finding.told > 0
      row[f'{finding.question.metric}_worse'] = finding.told < 0
    row['until_when'] = any(f.companion_told for f in found.findings)
    row['seeds'] = found.seeds
    rows.append({name: float(value) for name, value in row.items()})
  case = adviser.Case('control', args.workdir.name, 'null', args.advisers)
  numbers = adviser.figures(case, rows)
  adviser.show(case, numbers)
  needed = adviser.SCREENED * len(adviser.NAMES) + 3 * adviser.LOOKS[-1]
  about = {
    'advisers': args.advisers,
    'runs': len(runs),
    'runs_an_adviser': needed,
    'images': len(runs[0][0].correct),
  }
  adviser.save(args, 'adviser_control', 'digits', about | numbers)


if __name__ == '__main__':
  main()
