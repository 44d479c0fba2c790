"""Trains one experiment: flags in, exit code out.

  python main.py --config=configs/digits_tsla.py
  python main.py --config=configs/cifar100_tsla.py:160 --config.seed=1

Exit codes: 0 finished, 2 bad input, 3 diverged, 4 stuck (nothing was done for
`watchdog_minutes`; the work directory holds where it stood), 143 and 130
interrupted after a save. After 4, 143 and 130 the same command goes on.
"""

import difflib
import os
import pathlib
import re
import sys
import traceback

import ml_collections
from absl import flags
from ml_collections import config_flags

from tsla.config import forms as config_lib
from tsla.errors import InputError
from tsla.runs.environment import keep_compiled, split_cores
from tsla.runs.lifecycle import Interrupted
from tsla.training import parallel
from tsla.training.loop import train_and_evaluate
from tsla.training.reporter import Diverged

_CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='FILE.py or FILE.py:ARGUMENT', lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, "the run's directory; default: runs/CONFIG-HASH"
)
_DISTRIBUTED = flags.DEFINE_boolean(
  'distributed', False, 'join the other processes of a pod slice or Slurm job'
)
_BY_HAND = (
  flags.DEFINE_string(
    'coordinator', None, 'HOST:PORT of process 0, to join processes by hand'
  ),
  flags.DEFINE_integer(
    'num_processes', None, 'how many share the run, with --coordinator'
  ),
  flags.DEFINE_integer(
    'process_index', None, 'which this one is, from 0, with --coordinator'
  ),
)
_ALLOW_CHANGED_CONFIG = flags.DEFINE_boolean(
  'allow_changed_config',
  False,
  'go on with the run in --workdir although its config was another',
)
_DEBUG = flags.DEFINE_boolean(
  'debug', False, 'show where in the code bad input was found'
)


def parse(argv: list[str]) -> tuple[ml_collections.ConfigDict, pathlib.Path]:
  """The config and the work directory the command line asks for.

  Raises:
    InputError: whatever is wrong with it.
  """
  for argument in argv[1:]:
    if file := re.match(r'--?config=([^:]+)', argument):
      check_file(pathlib.Path(file[1]))
    if field := re.match(r'--?(?:no)?config\.([\w.]+)', argument):
      config_lib.check_field_name(field[1])
  try:
    rest = flags.FLAGS(argv)[1:]
    config = _CONFIG.value
    if config is not None:
      config_lib.validate(config)
  except (
    Exception
  ) as error:  # a config file is a program: it may raise anything
    raise _explain(error) from error
  if rest:
    flag = '--config=' if '.py' in rest[0] else '--'
    raise InputError(f'{rest[0]!r}: not a flag', cure=f'{flag}{rest[0]}')
  if config is None:
    raise InputError(
      '--config is missing',
      cure='python main.py --config=configs/digits_tsla.py',
    )
  name = pathlib.Path(flags.FLAGS['config'].config_filename).stem
  default = pathlib.Path('runs', f'{name}-{config_lib.config_hash(config)}')
  workdir = _WORKDIR.value or str(default)
  if '://' in workdir:
    raise InputError(
      f'--workdir={workdir}: an address',
      allowed='a folder of a local or mounted disk',
      cure='mount it, and --workdir=FOLDER',
    )
  return config, pathlib.Path(workdir)


def join() -> None:
  """Joins the other processes that the flags speak of, if they do.

  Raises:
    InputError: they contradict each other, or there are none.
  """
  given = [flag for flag in _BY_HAND if flag.value is not None]
  if not given:
    if _DISTRIBUTED.value:
      parallel.join()
    return
  if missing := [flag.name for flag in _BY_HAND if flag.value is None]:
    raise InputError(
      f'--{given[0].name}={given[0].value} without --{missing[0]}',
      allowed='--coordinator, --num_processes and --process_index together',
      cure=f'--{missing[0]}=…',
    )
  address, count, index = (flag.value for flag in _BY_HAND)
  if not re.fullmatch(r'.+:\d+', address):
    raise InputError(
      f'--coordinator={address}: no address', allowed='HOST:PORT of process 0'
    )
  if not 0 <= index < count:
    raise InputError(
      f'--process_index={index} of --num_processes={count}',
      allowed='0 to num_processes - 1',
    )
  parallel.join(address, count, index)


def _explain(error: Exception) -> InputError:
  """What went wrong between the command line and a config, in three lines."""
  chain: list[BaseException] = [error]
  while chain[-1].__context__ is not None:
    chain.append(chain[-1].__context__)
  root = chain[-1]
  # The last of them is the config file's own; ml_collections wraps it in more.
  if ours := [link for link in chain if isinstance(link, InputError)]:
    return ours[-1]
  if field := re.search(r'--config\.([\w.]+)=', str(error)):
    return InputError(
      str(error),
      allowed=config_lib.FIELDS[field[1]].allowed,
      cure=f'--config.{field[1]}=…',
    )
  unknown = isinstance(error, flags.UnrecognizedFlagError)
  illegal = isinstance(error, flags.IllegalFlagValueError)
  if unknown or (illegal and not str(error).startswith('flag --config=')):
    return InputError(str(error), cure='python main.py --help lists every flag')
  if 'get_config() takes 0 positional' in str(root):
    return InputError(
      '--config=FILE.py:ARGUMENT: this config takes no argument',
      allowed='FILE.py without a colon',
      cure='the same without what follows the colon',
    )
  return InputError(
    f'--config: {type(root).__name__}: {root}',
    allowed='FILE.py with a get_config() that takes what follows a colon',
    cure='python main.py --config=configs/digits_tsla.py',
  )


def check_file(path: pathlib.Path) -> None:
  """Raises InputError, with the nearest known file, if there is no `path`."""
  if path.is_file():
    return
  known = [str(file) for file in pathlib.Path('configs').glob('[a-z]*_*.py')]
  near = difflib.get_close_matches(str(path), known, n=1, cutoff=0.0)
  raise InputError(
    f'--config={path}: no such file',
    cure=f'--config={near[0]}' if near else 'run in the folder of main.py',
  )


def main(argv: list[str]) -> int:
  """Runs the command line and returns the exit code.

  Args:
    argv: `sys.argv`, where ml_collections looks for overrides as well.
  """
  if {'-h', '--help'} & set(argv):
    print(__doc__)
    for flag in (
      *(_WORKDIR, _ALLOW_CHANGED_CONFIG),
      *(_DISTRIBUTED, *_BY_HAND, _DEBUG),
    ):
      print(f'  --{flag.name}: {flags.FLAGS[flag.name].help}')
    print('\nFields, with their defaults before the config file:')
    print(config_lib.help_text())
    return 0
  try:
    config, workdir = parse(argv)
    keep_compiled()
    join()
    split_cores(config.model.name, config.batch_size)
    test = train_and_evaluate(
      config, workdir, allow_changed_config=_ALLOW_CHANGED_CONFIG.value
    )
  except InputError as error:
    if '--debug' in argv:  # the flags may not be parsed
      traceback.print_exception(error)
    print(error, file=sys.stderr)
    return 2
  except (Diverged, Interrupted) as stop:
    print(stop, file=sys.stderr)
    return stop.exit_code
  except KeyboardInterrupt:
    print('interrupted: nothing more was saved', file=sys.stderr, flush=True)
    os._exit(130)  # the compiler may be at work, and cannot be asked to stop
  print(
    f'{workdir}: test ' + '  '.join(f'{k} {v:.4f}' for k, v in test.items())
  )
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
