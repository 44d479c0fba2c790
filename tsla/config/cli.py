"""The command line of training: its flags, and the config they ask for."""

import difflib
import pathlib
import re
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from tsla.config import tables
from tsla.config.checks import check_file, notices, validate
from tsla.config.forms import config_hash, keep_given
from tsla.config.schema import FIELDS, Config, check_field_name, nearest_field
from tsla.errors import InputError, Problems

_EXAMPLE = 'python main.py --config=configs/digits_tsla.py'
_text = flags.DEFINE_string
_whole = flags.DEFINE_integer
_switch = flags.DEFINE_boolean
_FLAGS = {
  'workdir': (_text, "the run's directory; default: runs/CONFIG-HASH"),
  'overview': (_switch, 'list the parameters of the network first'),
  'allow_changed_config': (_switch, 'go on with a run of another config'),
  'distributed': (_switch, 'join the processes of a pod slice or Slurm job'),
  'coordinator': (_text, 'HOST:PORT of process 0, to join processes by hand'),
  'num_processes': (_whole, 'how many share the run, with --coordinator'),
  'process_index': (_whole, 'which this one is, from 0, with --coordinator'),
  'join_seconds': (_whole, 'how long to wait for the others; default: 60'),
  'debug': (_switch, 'show where in the code bad input was found'),
}
_BY_HAND = ('coordinator', 'num_processes', 'process_index')

# Arguments of `tsla.training.parallel.join`, () where a pod slice or Slurm
# knows them; None: this process is alone.
_Processes = tuple[str, int, int] | tuple[()] | None


class CommandLine(NamedTuple):
  """What a command line asks for."""

  config: Config
  workdir: pathlib.Path
  allow_changed_config: bool
  overview: bool
  processes: _Processes
  join_seconds: int


def parse(argv: Sequence[str]) -> CommandLine:
  """Reads a command line, as `sys.argv` has it."""
  given, problems = [], Problems()
  for argument in argv[1:]:
    if file := re.match(r'--?config=([^:]+)', argument):
      check_file(pathlib.Path(file[1]), 'config', 'configs/[a-z]*_*.py')
    if field := re.match(r'--?(?:no)?config\.([\w.]+)', argument):
      given.append(field[1])
      with problems:
        check_field_name(field[1])
  problems.raise_all()
  values = flags.FlagValues()
  values.append_flag_values(flags.FLAGS)  # of libraries, such as --verbosity
  config_flags.DEFINE_config_file(
    'config', flag_values=values, sys_argv=list(argv)
  )
  for name, (define, meaning) in _FLAGS.items():
    define(name, None, meaning, flag_values=values)
  try:
    rest = values(argv)[1:]
    config = values.config
    if config is not None:
      keep_given(config, given)
      asked, config = config, validate(config)
  except flags.UnrecognizedFlagError as error:
    named = re.compile(rf'--?{re.escape(error.flagname)}\b')
    wrong = next(filter(named.match, argv[1:]), f'--{error.flagname}')
    raise _not_a_flag(wrong) from error
  except Exception as error:  # a config file may raise anything
    raise _explain(error) from error
  flags.FLAGS.mark_as_parsed()  # else absl's loggers wait for it
  if rest:
    raise _not_a_flag(rest[0])
  if config is None:
    raise InputError('--config is missing', cure=_EXAMPLE)
  name = pathlib.Path(values['config'].config_filename).stem
  workdir = values.workdir or f'runs/{name}-{config_hash(config)}'
  if '://' in workdir:
    problem = f'--workdir={workdir}: an address'
    allowed = 'a folder of a local or mounted disk'
    cure = 'mount it, and --workdir=FOLDER'
    raise InputError(problem, allowed=allowed, cure=cure)
  for line in notices(given, [asked]):
    print(line, file=sys.stderr)
  seconds = 60 if values.join_seconds is None else values.join_seconds
  if seconds < 1:
    raise InputError(f'--join_seconds={seconds}', allowed='1 or more')
  changed, overview = bool(values.allow_changed_config), bool(values.overview)
  more = overview, _processes(values), seconds
  return CommandLine(config, pathlib.Path(workdir), changed, *more)


def help_text() -> str:
  """Every flag; every field with type, default and meaning; every option."""
  lines = [f'  --{name}: {meaning}' for name, (_, meaning) in _FLAGS.items()]
  lines.append('\nFields, with their defaults before the config file:')
  for name, field in FIELDS.items():
    lines += [
      f'  --config.{name}: {type(field.default).__name__} = {field.default!r}',
      f'      {field.meaning} ({field.allowed})',
      *(f'      {text}' for text in tables.help_on_options(name)),
    ]
  return '\n'.join(lines)


def _processes(values: flags.FlagValues) -> _Processes:
  """The processes that the flags speak of."""
  given = {name: values[name].value for name in _BY_HAND}
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(given):
    return () if values.distributed else None
  if missing:
    name = next(name for name in given if name not in missing)
    problem = f'--{name}={given[name]} without --{missing[0]}'
    allowed = '--coordinator, --num_processes and --process_index together'
    raise InputError(problem, allowed=allowed, cure=f'--{missing[0]}=…')
  address, count, index = given.values()
  port = re.fullmatch(r'.+:(\d{1,5})', address)
  if not port or int(port[1]) >= 2**16:
    problem = f'--coordinator={address}: no address'
    raise InputError(problem, allowed='HOST:PORT of process 0')
  if not 0 <= index < count:
    problem = f'--process_index={index} of --num_processes={count}'
    raise InputError(problem, allowed='0 to num_processes - 1')
  return address, count, index


def _not_a_flag(argument: str) -> InputError:
  """The error for an argument that is none, with the flag that was meant."""
  name, equals, value = argument.lstrip('-').partition('=')
  name = name.replace('-', '_')
  flag = difflib.get_close_matches(name, ['config', *_FLAGS], 1, cutoff=0.85)
  field = nearest_field(name.removeprefix('config.'))
  cure = 'python main.py --help lists every flag'
  if re.match(r'[^-].*\.py', argument):
    cure = f'--config={argument}'
  elif known := ''.join(flag) or f'config.{field}' * bool(field):
    cure = f'--{known}{equals}{value}'
  return InputError(f'{argument!r}: not a flag', cure=cure)


def _explain(error: Exception) -> InputError:
  """What absl, ml_collections or a config file raised, in three lines."""
  chain: list[BaseException] = [error]
  while link := chain[-1].__context__:
    chain.append(link)
  root = chain[-1]
  # The last of them is the config file's own; ml_collections wraps it in more.
  if ours := [link for link in chain if isinstance(link, InputError)]:
    return ours[-1]
  if field := re.search(r'--config\.([\w.]+)=', str(error)):
    allowed, cure = FIELDS[field[1]].allowed, f'--config.{field[1]}=…'
    return InputError(str(error), allowed=allowed, cure=cure)
  in_file = str(error).startswith('flag --config=')
  if isinstance(error, flags.Error) and not in_file:
    return InputError(str(error), cure='python main.py --help lists every flag')
  if 'get_config() takes 0 positional' in str(root):
    problem = '--config=FILE.py:ARGUMENT: this config takes no argument'
    cure = 'the same without what follows the colon'
    return InputError(problem, allowed='FILE.py without a colon', cure=cure)
  # In whose code: not this one's, nor that of the libraries and of Python.
  here, place = str(pathlib.Path(__file__).parents[1]), ''
  for link in chain:
    for frame in traceback.extract_tb(link.__traceback__):
      if not re.match(f'<|{re.escape(here)}|.*-packages', frame.filename):
        place = f'{frame.filename}, line {frame.lineno}: '
  problem = f'--config: {place}{type(root).__name__}: {root}'
  allowed = 'FILE.py with a get_config() that takes what follows a colon'
  return InputError(problem, allowed=allowed, cure=_EXAMPLE)
