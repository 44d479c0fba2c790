"""Trains one planned run, in this process or in one of its own."""

import multiprocessing
import os
import pathlib
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import NamedTuple

from tsla.errors import InputError
from tsla.runs.environment import keep_compiled, split_cores
from tsla.runs.lifecycle import Interrupted
from tsla.sweep import plan
from tsla.sweep.plan import PlannedRun
from tsla.training.loop import train_and_evaluate
from tsla.training.reporter import Diverged

_MOST_CHARACTERS = 500  # a pipe holds little while nobody reads it


class Outcome(NamedTuple):
  """How a run ended."""

  exit_code: int  # as of main.py; 1: it crashed; 128 + a signal that ended it
  text: str  # for a person


def train(run: PlannedRun, workdir: pathlib.Path) -> Outcome:
  """Trains a run to its end, also from where it was stopped."""
  keep_compiled()
  split_cores(run.config.model.name, run.config.batch_size)
  run = plan.resolve_fork(run, workdir)
  directory = workdir / run.directory
  try:
    config = plan.config_to_train(run, workdir)
    # The folder's name says that it is this run, wherever its trunk lies.
    test = train_and_evaluate(config, directory, allow_changed_config=True)
  except InputError as error:
    return Outcome(2, str(error))
  except (Diverged, Interrupted) as stop:
    return Outcome(stop.exit_code, str(stop))
  return Outcome(0, f'top-1 {test["top1"]:.2%}  NLL {test["nll"]:.4f}')


class Worker:
  """A run in a process of its own, with `variables` in its environment.

  It writes to a file what it has to say, leaves Ctrl-C to the parent, and ends
  when the parent does. `slot` is its place among the runs at a time.
  """

  def __init__(
    self,
    run: PlannedRun,
    workdir: pathlib.Path,
    slot: int,
    variables: Mapping[str, str],
  ):
    self.run, self.slot = run, slot
    self.log = workdir / 'logs' / f'{run.directory}.log'
    self.log.parent.mkdir(parents=True, exist_ok=True)
    # A fork of a process that runs XLA would hang; a new one is spawned.
    context = multiprocessing.get_context('spawn')
    self._outcome, sender = context.Pipe(duplex=False)
    args = (run, workdir, self.log, sender, variables)
    self._process = context.Process(target=_work, args=args, name=run.directory)
    self._process.start()
    self.ended = self._process.sentinel  # becomes ready at the end
    sender.close()

  def stop(self) -> None:
    """Asks the run to save and leave."""
    self._process.terminate()

  def outcome(self) -> Outcome:
    """How the run ended; waits until it has."""
    self._process.join()
    try:
      return self._outcome.recv()
    except EOFError:  # it could not say
      code = self._process.exitcode
      how = f'signal {-code}' if code < 0 else f'exit code {code}'
      code = 128 - code if code < 0 else 1
      return Outcome(code, f'ended by {how}; see {self.log}')


def _work(
  run: PlannedRun,
  workdir: pathlib.Path,
  log: pathlib.Path,
  sender: Connection,
  variables: Mapping[str, str],
) -> None:
  os.setsid()
  os.environ.update(variables)
  with log.open('a') as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
  threading.Thread(target=_end_with_parent, daemon=True).start()
  try:
    outcome = train(run, workdir)
    print(outcome.text, file=sys.stderr, flush=True)
  except Exception as error:  # to be named in the sweep's summary
    traceback.print_exc()
    what = f'{type(error).__name__}: {error}'.split('\n')[0]
    outcome = Outcome(1, f'{what[:_MOST_CHARACTERS]}; see {log}')
  sender.send(outcome)
  sys.exit(outcome.exit_code)


def _end_with_parent() -> None:
  multiprocessing.parent_process().join()
  os._exit(1)  # nothing is lost: the run resumes from its last checkpoint
