"""Runs a plan, k runs at a time, each once those that it needs are finished."""

import os
import pathlib
import sys
import time
from collections.abc import Sequence
from multiprocessing import connection

from tqdm import tqdm

from tsla.runs import directory
from tsla.runs.lifecycle import watch_signals
from tsla.sweep import outline
from tsla.sweep.plan import PlannedRun, resolve_fork
from tsla.sweep.table import Table
from tsla.sweep.worker import Worker, environment, find_devices

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 40.0  # longer than a run has to save


def train_table(
  table: Table,
  runs: Sequence[PlannedRun],
  workdir: pathlib.Path,
  jobs: int,
  command: str,
  *,
  after: float = 0,
  whole: float = 0,
) -> tuple[dict[str, str], int]:
  """Trains what is not finished yet of a table's plan, `jobs` runs at a time.

  The plan is on the disk as it is before and after. Where the table is a part
  of something, progress is that of `whole` epochs, of which `after` follow.
  Returns why each run failed that did, by folder, and the number of the signal
  that stopped the sweep, 0 if it came to its end.
  """

  def write_plan() -> None:
    resolved = [resolve_fork(run, workdir) for run in runs]
    outline.write(workdir, table, resolved, command)

  write_plan()
  queue = _Queue(runs, workdir)
  devices = find_devices() if jobs > 1 else ('', 0)
  running, stopping = list[Worker](), False
  with (
    watch_signals(lambda: None, _GRACE_SECONDS) as requested,
    _Progress(queue.waiting, workdir, after, whole) as progress,
  ):
    while True:
      if requested.signum and not stopping:
        stopping = True
        for worker in running:
          worker.stop()
      while not stopping and len(running) < jobs and (run := queue.next()):
        slot = min(set(range(jobs)) - {worker.slot for worker in running})
        variables = environment(slot, jobs, *devices, os.environ)
        running.append(Worker(run, workdir, slot, variables))
      if not running:
        break
      ended = connection.wait([w.ended for w in running], _POLL_SECONDS)
      progress.show([worker.run for worker in running])
      for worker in [w for w in running if w.ended in ended]:
        running.remove(worker)
        outcome = worker.outcome()
        if stopping and outcome.exit_code > 128:
          continue  # it has saved, and goes on another time
        progress.say(worker.run, outcome.text)
        queue.end(worker.run, outcome.text if outcome.exit_code else None)
  write_plan()
  return queue.failures, requested.signum


class _Queue:
  """Which run can be trained next, and why others never can."""

  def __init__(self, runs: Sequence[PlannedRun], workdir: pathlib.Path):
    states = [directory.state_of(workdir / run.directory) for run in runs]
    pairs = zip(runs, states, strict=True)
    self._runs = {run.directory: run for run, s in pairs if s != 'done'}
    self.waiting = list(self._runs.values())
    self.failures: dict[str, str] = {}
    self._unfinished = set(self._runs)
    self._workdir = workdir
    for name in self._runs:
      directory.note_failure(workdir / name)  # of an earlier try

  def next(self) -> PlannedRun | None:
    """Takes the first run that needs nothing unfinished; None: there is none.

    Without its teacher a run fails too; without its trunk it is trained alone,
    or from what the trunk saved before it failed.
    """
    while ready := [
      r for r in self.waiting if self._unfinished.isdisjoint(r.needs)
    ]:
      run = ready[0]
      self.waiting.remove(run)
      if run.teacher not in self.failures:
        return run
      self.end(run, f'needs {self._runs[run.teacher].label}, which failed')
    return None

  def end(self, run: PlannedRun, failure: str | None = None) -> None:
    """Lets those that need it go ahead; notes in its folder why it failed."""
    if failure is not None:
      self.failures[run.directory] = failure
      directory.note_failure(self._workdir / run.directory, failure)
    self._unfinished.remove(run.directory)


class _Progress(tqdm):
  """A bar over the epochs of all runs, and a line for each that ends."""

  def __init__(
    self,
    runs: Sequence[PlannedRun],
    workdir: pathlib.Path,
    after: float,
    whole: float,
  ):
    self._folders = [(run, workdir / run.directory) for run in runs]
    self._ended = 0
    self._started = time.monotonic()
    left = outline.trained_epochs(runs) + after
    self._before = max(0.0, whole - left)
    self._first = self._epochs()
    super().__init__(
      total=self._before + left,
      initial=self._first,
      unit=' epochs',
      disable=not sys.stderr.isatty(),
      bar_format='{percentage:3.0f}% of {total:g} epochs |{bar}| '
      '{elapsed} ETA {remaining}  {postfix}',
    )

  def show(self, running: Sequence[PlannedRun]) -> None:
    """Moves the bar to where the runs are."""
    labels = ', '.join(run.label for run in running)
    self.set_postfix_str(labels, refresh=False)
    self.n = self._epochs()
    self.refresh()

  def say(self, run: PlannedRun, text: str) -> None:
    """A line that stays: how a run ended."""
    self._ended += 1
    done, passed = self._epochs(), time.monotonic() - self._started
    speed, left = (done - self._first) / passed, '--:--'
    if speed > 0:
      left = tqdm.format_interval((self.total - done) / speed)
    place = f'[{self._ended}/{len(self._folders)}, ETA {left}]'
    tqdm.write(f'{place} {run.label}: {text}', file=sys.stderr)

  def _epochs(self) -> float:
    """Epochs trained of those that are the runs' own."""
    done = [directory.epochs_done(f) - r.first_epoch for r, f in self._folders]
    return round(self._before + sum(max(0.0, epochs) for epochs in done), 1)
