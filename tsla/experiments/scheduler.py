"""Runs a plan, k runs at a time, each once those that it needs are finished."""

import json
import multiprocessing.connection
import os
import pathlib
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from tsla.experiments import plan
from tsla.experiments.plan import PlannedRun
from tsla.experiments.worker import Worker
from tsla.training.interrupt import watch_signals

_POLL_SECONDS = 0.5
_FAILURE = 'failure.txt'


def run_all(
  runs: Sequence[PlannedRun], workdir: pathlib.Path, jobs: int
) -> tuple[dict[str, str], int | None]:
  """Trains what is not finished yet.

  Args:
    runs: a plan, those that others need first.
    workdir: the sweep's folder.
    jobs: runs at a time.

  Returns:
    The reason, by folder, of each run that failed, and the number of the
    signal that stopped the sweep, None if it came to its end.
  """
  states = {
    run.directory: plan.state_of(workdir / run.directory) for run in runs
  }
  waiting = [run for run in runs if states[run.directory] != 'done']
  finished = {name for name, state in states.items() if state == 'done'}
  running: list[Worker] = []
  failures: dict[str, str] = {}
  labels = {run.directory: run.label for run in runs}
  for run in waiting:  # of an earlier try
    (workdir / run.directory / _FAILURE).unlink(missing_ok=True)
  with (
    watch_signals(alone=True) as requested,
    _Progress(waiting, workdir) as progress,
  ):
    stopping = False
    while running or (waiting and not stopping):
      if requested.signum is not None and not stopping:
        stopping = True
        for worker in running:
          worker.stop()
      if not stopping:
        waiting = _block(waiting, failures, labels, workdir)
        while len(running) < jobs and (run := _next(waiting, finished)):
          waiting.remove(run)
          running.append(Worker(run, workdir))
      multiprocessing.connection.wait(
        [worker.ended for worker in running], _POLL_SECONDS
      )
      progress.show([worker.run for worker in running])
      for worker in [w for w in running if w.has_ended]:
        running.remove(worker)
        outcome, run = worker.outcome(), worker.run
        if outcome.exit_code == 0:
          finished.add(run.directory)
        elif not stopping:
          _fail(run, outcome.text, failures, workdir)
        progress.say(run, outcome.text)
  return failures, requested.signum


def _next(
  waiting: Sequence[PlannedRun], finished: set[str]
) -> PlannedRun | None:
  return next((run for run in waiting if finished.issuperset(run.needs)), None)


def _block(
  waiting: Sequence[PlannedRun],
  failures: dict[str, str],
  labels: dict[str, str],
  workdir: pathlib.Path,
) -> list[PlannedRun]:
  """Those that can still run; the others fail with what they need."""
  left = []
  for run in waiting:  # in order of need: one pass finds them all
    missing = [labels[name] for name in run.needs if name in failures]
    if missing:
      reason = f'needs {", ".join(missing)}, which failed'
      _fail(run, reason, failures, workdir)
    else:
      left.append(run)
  return left


def _fail(
  run: PlannedRun,
  reason: str,
  failures: dict[str, str],
  workdir: pathlib.Path,
) -> None:
  """Notes the reason, also in the run's folder, for the report."""
  failures[run.directory] = reason
  directory = workdir / run.directory
  directory.mkdir(parents=True, exist_ok=True)
  (directory / _FAILURE).write_text(reason + '\n')


class _Progress:
  """A bar over the epochs of all runs, and a line for each that ends."""

  def __init__(self, runs: Sequence[PlannedRun], workdir: pathlib.Path):
    self._workdir = workdir
    self._runs = runs
    self._ended = 0
    self._started = time.monotonic()
    self._first = self._epochs()
    self._bar = tqdm(
      total=plan.trained_epochs(runs),
      initial=self._first,
      unit=' epochs',
      disable=not sys.stderr.isatty(),
      bar_format='{percentage:3.0f}% of {total:g} epochs |{bar}| '
      '{elapsed} ETA {remaining}  {postfix}',
    )

  def __enter__(self) -> '_Progress':
    return self

  def __exit__(self, *exception: object) -> None:
    self._bar.close()

  def show(self, running: Sequence[PlannedRun]) -> None:
    """Moves the bar to where the runs are."""
    self._bar.set_postfix_str(
      ', '.join(r.label for r in running), refresh=False
    )
    self._bar.n = self._epochs()
    self._bar.refresh()

  def say(self, run: PlannedRun, text: str) -> None:
    """A line that stays: how a run ended."""
    self._ended += 1
    done, passed = self._epochs(), time.monotonic() - self._started
    speed = (done - self._first) / passed
    left = '--:--'
    if speed > 0:
      left = tqdm.format_interval((self._bar_total() - done) / speed)
    tqdm.write(
      f'[{self._ended}/{len(self._runs)}, ETA {left}] {run.label}: {text}',
      file=sys.stderr,
    )

  def _bar_total(self) -> int:
    return plan.trained_epochs(self._runs)

  def _epochs(self) -> float:
    """Epochs trained of those that are the runs' own."""
    return round(
      sum(
        max(0.0, _epoch(self._workdir / run.directory) - run.first_epoch)
        for run in self._runs
      ),
      1,
    )


def _epoch(directory: pathlib.Path) -> float:
  """Where a run is, from the end of its log."""
  try:
    with (directory / 'metrics.jsonl').open('rb') as file:
      file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
      return json.loads(file.read().splitlines()[-1])['epoch']
  except (OSError, ValueError, LookupError):
    return 0.0
