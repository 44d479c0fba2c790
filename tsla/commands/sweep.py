r"""Trains a whole table in as few epochs as the mathematics allows.

  python -m tsla sweep --table=configs/sweeps/digits.py \
    --workdir=runs/digits --seeds=3

The plan is printed first; --dry_run stops there. A sweep that was stopped or
killed goes on when it is started again: finished runs are kept, the others
resume from their last checkpoint, and the end is the same. Any field of
`python main.py --help` is set in all rows by --config.FIELD=VALUE.

Exit codes: 0 all runs are finished, 1 some failed and are named, 2 bad input,
143, 129 and 130 interrupted after a save; with --only those of main.py.
"""

import argparse
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence

import jax

from tsla.commands.parser import Parser, command
from tsla.config.checks import notices
from tsla.errors import InputError
from tsla.files import check_writable, claimed, untrusted
from tsla.report.sections import write_report
from tsla.runs import directory
from tsla.runs.environment import split_cores
from tsla.sweep import outline, plan, pool, worker
from tsla.sweep.inputs import check_inputs
from tsla.sweep.plan import PlannedRun
from tsla.sweep.table import adapt, load_table


def _parse(parser: Parser) -> argparse.Namespace:
  add = parser.add_argument
  add('--table', required=True, metavar='FILE.py', help='the rows')
  add('--workdir', required=True, metavar='DIR', help='folder of all its runs')
  add('--seeds', type=int, default=5, metavar='N', help='0 to N-1; default 5')
  add('--jobs', type=int, default=1, metavar='K', help='runs at a time')
  text = 'a rehearsal: E epochs a run, what is given in epochs in proportion'
  add('--epochs', type=int, metavar='E', help=text)
  add = parser.add_mutually_exclusive_group().add_argument
  add('--dry_run', action='store_true', help='print the plan, train nothing')
  add('--list', action='store_true', help='print one command a run, in order')
  add('--only', type=int, metavar='I', help='train run I of --list, here')
  args, rest = parser.parse_known_args(parser.argv)
  for name in ('seeds', 'jobs', 'epochs'):
    value = getattr(args, name)
    if value is not None and value < 1:
      allowed, cure = 'a whole number >= 1', f'--{name}=1'
      raise InputError(f'--{name}={value}', allowed=allowed, cure=cure)
  args.fields = {}
  for argument in rest:
    field = re.fullmatch(r'--config\.([\w.]+)=(.*)', argument, re.DOTALL)
    if not field:
      raise parser.not_a_flag(argument, '--config.FIELD=VALUE')
    args.fields[field[1]] = field[2]
  return args


def _command(args: argparse.Namespace) -> str:
  """The shell command that trains the same table."""
  names = ('table', 'workdir', 'seeds', 'epochs')
  given = {name: getattr(args, name) for name in names}
  given |= {f'config.{name}': text for name, text in args.fields.items()}
  flags = [f'--{name}={v}' for name, v in given.items() if v is not None]
  return 'python -m tsla sweep ' + shlex.join(flags)


def _train_one(
  index: int, runs: Sequence[PlannedRun], workdir: pathlib.Path, again: str
) -> int:
  if not 0 <= index < len(runs):
    allowed, cure = f'0 to {len(runs) - 1}', f'{again} --list'
    raise InputError(f'--only={index}: no such run', allowed=allowed, cure=cure)
  run = runs[index]
  for place, other in enumerate(runs):
    state = directory.state_of(workdir / other.directory)
    serves = plan.ENDED if other.directory == run.trunk else ('done',)
    if other.directory in run.needs and state not in serves:
      problem = f'{run.label} needs {other.label}, which is {state}'
      cure = f'{again} --only={place}'
      raise InputError(f'--only={index}: {problem}', cure=cure)
  folder = workdir / run.directory
  directory.note_failure(folder)
  same = (other for other in runs if other.config.data == run.config.data)
  begun = (r for r in same if directory.read_saved(workdir / r.directory))
  if first := next(begun, None):
    # Before jax looks for devices, as it does to read labels with noise.
    split_cores(run.config.model.name, run.config.batch_size)
    check_inputs([run, first], workdir)
  outcome = worker.train(run, workdir)
  if outcome.exit_code in (2, 3):
    directory.note_failure(folder, outcome.text)
  print(outcome.text, file=sys.stderr)
  return outcome.exit_code


@command
def main(parser: Parser) -> int:
  """Runs the command line; returns the exit code."""
  args = _parse(parser)
  again = _command(args)
  table = adapt(load_table(args.table), args.fields, args.epochs)
  workdir = pathlib.Path(args.workdir).absolute()
  with untrusted(f'--workdir={workdir}', cure='another --workdir'):
    check_writable(workdir)
  runs = plan.plan(table, range(args.seeds), workdir)
  for line in notices(args.fields, [row.config for row in table.rows]):
    print(line, file=sys.stderr)
  if args.list:
    outline.write(workdir, table, runs, again)
    for index, run in enumerate(runs):
      print(f'{again} --only={index}  # stage {run.stage}: {run.label}')
    return 0
  if args.only is not None:
    return _train_one(args.only, runs, workdir, again)
  resolved = [plan.resolve_fork(run, workdir) for run in runs]
  print(outline.describe(table, resolved, workdir), flush=True)
  if args.dry_run:
    return 0
  with claimed(workdir):
    check_inputs(runs, workdir)
    # The runs need the accelerator for themselves.
    jax.config.update('jax_platforms', 'cpu')
    failures, signum = pool.train_table(table, runs, workdir, args.jobs, again)
    if signum:
      text = f'saved and stopped; go on with\n  {again} --jobs={args.jobs}'
      print(text, file=sys.stderr)
      return 128 + signum
    for run in runs:
      if why := failures.get(run.directory):
        print(f'failed: {run.label}: {why}', file=sys.stderr)
    print(f'report: {write_report([workdir], workdir)}')
    return 1 if failures else 0
