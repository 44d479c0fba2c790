"""Trains one planned run, in this process or in one on a device of its own."""

import multiprocessing
import os
import pathlib
import subprocess
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
    self, run: PlannedRun, workdir: pathlib.Path, slot: int, variables: Mapping
  ):
    self.run, self.slot = run, slot
    self.log = workdir / 'logs' / f'{run.directory}.log'
    self.log.parent.mkdir(parents=True, exist_ok=True)
    # A fork of a process that runs XLA would hang; a server has only imported.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([__name__])
    # Ready at the run's end; a sentinel is too when the server ends before it.
    self.ended, sender = context.Pipe(duplex=False)
    args = (run, workdir, self.log, sender, variables)
    self._process = context.Process(target=_work, args=args, name=run.directory)
    self._process.start()
    sender.close()

  def stop(self) -> None:
    """Asks the run to save and leave."""
    self._process.terminate()

  def outcome(self) -> Outcome:
    """How the run ended; waits until it has."""
    self._process.join()
    try:
      return self.ended.recv()
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


def find_devices() -> tuple[str, int]:
  """The platform and the number of this machine's devices.

  A process of its own asks, which lets them go again: the runs need them.
  """
  code = 'import jax; print(jax.default_backend(), jax.local_device_count())'
  command = [sys.executable, '-c', code]
  said = subprocess.check_output(command, stderr=subprocess.PIPE, text=True)
  platform, count = said.split()[-2:]
  return platform, int(count)


def environment(
  slot: int, jobs: int, platform: str, devices: int, outer: Mapping[str, str]
) -> dict[str, str]:
  """What a run's process gets in addition, so that it uses its own device.

  A run per device beats a batch that is split over devices. On CPUs, or one run
  at a time, all is shared; else the run in place `slot`, from 0, of `jobs` gets
  one of the `devices`, and beyond these they share, in turn. What the sweep's
  own environment, `outer`, hides stays hidden.
  """
  if platform == 'cpu' or jobs == 1:
    return {}
  device = slot % devices
  if platform == 'tpu':
    one = 'TPU_CHIPS_PER_PROCESS_BOUNDS', 'TPU_PROCESS_BOUNDS'
    return {'TPU_VISIBLE_CHIPS': str(device), **dict.fromkeys(one, '1,1,1')}
  every = ','.join(map(str, range(devices)))
  visible = outer.get('CUDA_VISIBLE_DEVICES') or every
  variables = {'CUDA_VISIBLE_DEVICES': visible.split(',')[device]}
  sharing, name = -(-jobs // devices), 'XLA_PYTHON_CLIENT_MEM_FRACTION'
  if sharing > 1:  # a process would take three quarters of the memory
    variables[name] = outer.get(name) or f'{0.9 / sharing:.2f}'
  return variables
