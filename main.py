"""Trains one experiment: flags in, exit code out.

  python main.py --config=configs/digits_tsla.py
  python main.py --config=configs/cifar100_tsla.py:160 --config.seed=1

Exit codes: 0 finished, 2 bad input, 3 diverged, 4 stuck (nothing was done for
`watchdog_minutes`; the work directory holds where it stood), 143, 129 and 130
interrupted after a save. After 4, 143, 129 and 130 the same command goes on.
"""

import os
import shlex
import signal
import sys

if __name__ == '__main__':  # the imports take seconds, and may be interrupted
  for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if (_number, signal.getsignal(_number)) != (signal.SIGHUP, signal.SIG_IGN):
      signal.signal(_number, lambda number, _: os._exit(128 + number))

import traceback
from collections.abc import Sequence

try:
  from tsla.commands.parser import hold_stderr
  from tsla.config import cli
  from tsla.errors import InputError
  from tsla.runs.environment import hush, keep_compiled, split_cores
  from tsla.runs.lifecycle import Interrupted
  from tsla.training import parallel
  from tsla.training.loop import train_and_evaluate
  from tsla.training.reporter import Diverged, in_words
except ModuleNotFoundError as error:
  if (error.name or 'tsla').split('.')[0] == 'tsla':
    raise
  print(f'main.py needs {error.name}, which this Python does not have:')
  print(f'  {sys.executable}')
  print('  next: . .venv/bin/activate, or pip install -r requirements.txt')
  sys.exit(2)


def main(argv: Sequence[str]) -> int:
  """Runs the command line, as `sys.argv` has it; returns the exit code."""
  if {'-h', '--help'} & set(argv):
    print(f'{__doc__}\n{cli.help_text()}')
    return 0
  hold_stderr()
  try:
    command = cli.parse(argv)
    keep_compiled()
    if command.processes is not None:
      parallel.join(*command.processes, seconds=command.join_seconds)
    split_cores(command.config.model.name, command.config.batch_size)
    test = train_and_evaluate(
      command.config,
      command.workdir,
      allow_changed_config=command.allow_changed_config,
      overview=command.overview,
    )
  except InputError as error:
    if '--debug' in argv:  # the flags may not be parsed
      traceback.print_exception(error)
    print(error, file=sys.stderr)
    return 2
  except (Diverged, Interrupted) as stop:
    print(stop, file=sys.stderr)
    return stop.exit_code
  place = shlex.quote(str(command.workdir))
  print(f'test of {test["count"]:,.0f} images after epoch {test["epoch"]:g}:')
  print(f'  {in_words(test, top5=test["top5"] < 1)}')
  print(f'directory: {command.workdir}')
  print(f'next: python -m tsla report {place}')
  print(f'      python -m tsla evaluate {place}')
  return 0


if __name__ == '__main__':
  if '--debug' not in sys.argv:
    hush()
  code = main(sys.argv)
  for _number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, signal.SIG_IGN)  # one more changes nothing
  sys.exit(code)
