"""Whether to smooth on one's own data, how strongly, and until when.

  python -m tsla advise --config=configs/own_baseline.py \
    --config.data.path=DIR
  python -m tsla advise          # the embedded digits, from a checkout

The config is one without smoothing. Its plan is printed, with the time by a
rehearsal of epochs, and kept in --workdir from the first run on; --dry_run
stops before. What was stopped or killed goes on when it is started again,
and the end is the same: `advice.html` and `advice.json` there.

A budget is in runs of the baseline: from 60 on four seeds choose among 12 ways
to smooth and up to 16 others confirm; from 23 on two fixed ways are tried;
below that nothing is trained.

Exit codes: 0 a verdict, 1 a run failed, 2 bad input, 143, 129 and 130
interrupted after a save.
"""

import argparse
import contextlib
import math
import pathlib
import shlex
import sys

import jax
from tqdm import tqdm

from tsla import files
from tsla.advise import page, plan, study
from tsla.advise.decision import METRICS
from tsla.commands.parser import Parser, command
from tsla.config import cli
from tsla.config.from_data import said, settle
from tsla.config.schema import Config
from tsla.data import datasets
from tsla.errors import InputError
from tsla.runs.environment import available_cores
from tsla.runs.lifecycle import Interrupted
from tsla.sweep.worker import find_devices

_MOST_JOBS = 4  # on CPUs, whose memory they share
_DIGITS = '--config=configs/digits_baseline.py'


def _parse(parser: Parser) -> tuple[argparse.Namespace, list[str]]:
  add = parser.add_argument
  text = 'the one that counts; default: all, each with its verdict'
  add('--metric', choices=(*METRICS, 'all'), default='all', help=text)
  text = 'what it may take, in runs of the baseline'
  add('--budget', type=float, default=math.inf, metavar='RUNS', help=text)
  text = 'the gain that matters; default: top1=0.005,nll=0.01'
  add('--worth', default='', metavar='METRIC=GAIN,…', help=text)
  text = 'ways to smooth, of smoothing.method; default: label_smoothing'
  add('--methods', default='label_smoothing', metavar='NAME,…', help=text)
  add('--jobs', type=int, metavar='K', help='runs at a time')
  add('--workdir', metavar='DIR', help='default: runs/advice-CONFIG-PLAN')
  add('--dry_run', action='store_true', help='the plan and its cost')
  args, rest = parser.parse_known_args(parser.argv)
  for argument in rest:
    if not argument.startswith('--config'):
      raise parser.not_a_flag(argument, '--config=FILE.py')
  for name in ('budget', 'jobs'):
    value = getattr(args, name)
    if value is not None and not value > 0:
      raise InputError(f'--{name}={value:g}', allowed='a number above 0')
  if not any(argument.startswith('--config=') for argument in rest):
    if any(argument.startswith('--config.data.') for argument in rest):
      cure = '--config=configs/own_baseline.py'
      raise InputError('--config.data.… without --config', cure=cure)
    rest.insert(0, _DIGITS)
  return args, rest


def _worth(text: str) -> dict[str, float]:
  parts = [part.partition('=') for part in text.split(',') if part]
  with contextlib.suppress(ValueError):
    given = {name: float(value) for name, _, value in parts}
    finite = all(0 <= value < math.inf for value in given.values())
    if finite and given.keys() <= {*METRICS}:
      return plan.WORTH | given
  allowed = f'METRIC=GAIN, of {", ".join(METRICS)}'
  cure = '--worth=top1=0.005,nll=0.01'
  raise InputError(f'--worth={text}', allowed=allowed, cure=cure)


def _check(config: Config) -> None:
  schedule, held = config.smoothing.schedule, config.data.validation
  seed, epochs = config.seed, config.epochs
  part = 'a part of the training set, which chooses and fits temperatures'
  for name, value, fits, allowed, cure in (
    ('smoothing.schedule', schedule, schedule == 'none', 'none', 'none'),
    ('data.validation', held, held > 0, part, 0.1),
    ('seed', seed, not seed, '0: the plan has its own', 0),
    ('epochs', epochs, epochs > 1, '2 to drop within, or more', 2),
  ):
    if not fits:
      cure = f'--config.{name}={cure}'
      raise InputError(f'{name} = {value!r}', allowed=allowed, cure=cure)


@command
def main(parser: Parser) -> int:
  """Runs the command line; returns the exit code."""
  args, rest = _parse(parser)
  worth = _worth(args.worth)
  config = cli.parse(['advise', *rest]).config
  _check(config)
  given, config = config, settle(config)
  dataset = datasets.load_dataset(config.data)
  metrics = METRICS if args.metric == 'all' else (args.metric,)
  methods = args.methods.split(',')
  asked = plan.make(config, dataset, methods, metrics, worth, args.budget)
  if asked is None:
    print(page.too_small(args.budget, config.epochs))
    return 0
  name = f'runs/advice-{asked.config}-{asked.hash[:8]}'
  workdir = pathlib.Path(args.workdir or name).absolute()
  for note in filter(None, [*dataset.notes, said(given, config)]):
    print(note)
  print(page.describe(asked, workdir), flush=True)
  jobs = args.jobs
  if jobs is None:
    platform, count = find_devices()
    jobs = count if platform != 'cpu' else min(available_cores(), _MOST_JOBS)
  again = shlex.join(['python', '-m', 'tsla', 'advise', *parser.argv])
  jax.config.update('jax_platforms', 'cpu')  # the runs need the accelerator
  at_once = min(jobs, asked.most_runs)
  trainer = study.Trainer(asked, config, workdir, at_once, again)
  with files.claimed(workdir):
    earlier = [] if args.dry_run else asked.save(workdir, dataset.test)
    try:
      if args.dry_run or not trainer.has_begun:
        print('  rehearsing two epochs twice, for the time alone', flush=True)
        seconds = trainer.measure()
        left = tqdm.format_interval(seconds) if seconds else 'unknown time'
        print(f'  at most about {left}, {jobs} at a time, if no other job runs')
        sys.stdout.flush()
      if args.dry_run:
        return 0
      advice = study.follow_plan(asked, trainer, earlier)
    except study.Failed as error:
      print(f'{error}\n  next: {again}', file=sys.stderr)
      return 1
    except Interrupted as stop:
      print(f'{stop}; go on with\n  {again}', file=sys.stderr)
      return stop.exit_code
    train = shlex.join(['python', 'main.py', *rest])
    page.write(advice, workdir, train)
  for note in page.beware(advice):
    print(f'Beware: {note}')
  for answer in page.answers(advice):
    print(f'\nFor {answer.metric}: {answer.heading}\n  {answer.text}')
  for what, again in page.commands(advice, train).items():
    print(f'\n{what}\n  {again}')
  print('', *page.rests_on(advice), sep='\n')
  print(f'advice: {workdir / plan.ADVICE.replace("json", "html")}')
  return 0
