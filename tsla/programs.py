"""Python files of one's own: `FILE.py:name` is a function or class in one.

A file is known by its SHA-256. What it imports from elsewhere is not.
"""

import ast
import contextlib
import difflib
import functools
import hashlib
import inspect
import math
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from tsla.errors import InputError
from tsla.files import read_bytes, untrusted

FORM = 'FILE.py:name'
# What `ast.literal_eval` raises, and what is made of its value.
NO_LITERAL = (
  *(ArithmeticError, MemoryError, RecursionError),
  *(SyntaxError, TypeError, ValueError),
)
Function = Callable[..., Any]
Options = dict[str, Any]


def is_own(text: str) -> bool:
  """Whether a text is of the form `FILE.py:name`."""
  return bool(re.search(r'\.py:\w+$', text))


def source(text: str, where: str = '') -> bytes:
  """The content of the file of `FILE.py:name`; `where` names it in errors."""
  path = pathlib.Path(text.rpartition(':')[0])
  named = f'{where or text}: {path}'
  with untrusted(named, allowed=FORM):
    try:
      return read_bytes(path)
    except FileNotFoundError as error:
      others = ', '.join(sorted(map(str, path.parent.glob('*.py'))))
      problem = f'{named}: {error.strerror}'
      raise InputError(problem, allowed=others or FORM) from error


def sha256(text: str) -> str:
  """The SHA-256 of the file of `FILE.py:name`, 64 hexadecimal digits."""
  return hashlib.sha256(source(text)).hexdigest()


def load(text: str, where: str) -> Function:
  """Runs the file of `FILE.py:name` and returns the function `name` there.

  A file is run once in a process as long as its content is the same: functions
  of two runs would be compiled twice. `where` names it in errors, as
  "config.smoothing.method = 'mine.py:margin'".
  """
  path, _, name = text.rpartition(':')
  content = source(text, where)
  with explained(where, text):
    module = _run(str(pathlib.Path(path).resolve()), content)
  found = getattr(module, name, None)
  if not callable(found):
    functions = {k: f for k, f in vars(module).items() if callable(f)}
    there = [k for k, f in functions.items() if f.__module__ == module.__name__]
    near = difflib.get_close_matches(name, there, n=1, cutoff=0) or [name]
    problem = f'{where}: no function {name!r} in {path}'
    allowed = ', '.join(there) or 'a file that has one'
    raise InputError(problem, allowed=allowed, cure=f'{path}:{near[0]}')
  return found


@functools.cache
def _run(path: str, content: bytes) -> types.ModuleType:
  digest = hashlib.sha256(path.encode() + content).hexdigest()[:16]
  module = types.ModuleType(f'{pathlib.Path(path).stem}_{digest}')
  module.__file__ = path
  sys.modules[module.__name__] = module  # dataclasses look for it there
  exec(compile(content, path, 'exec'), vars(module))
  return module


@contextlib.contextmanager
def explained(where: str, name: str, cure: str = '') -> Iterator[None]:
  """What the function `name` raises becomes an `InputError` of three lines.

  Of `FILE.py:name` whatever it is, with the line; else a ValueError only.
  """
  try:
    yield
  except (Exception, SystemExit) as error:  # the code is the user's
    known = isinstance(error, InputError)
    if known or not (is_own(name) or isinstance(error, ValueError)):
      raise
    what = ''
    if is_own(name):
      path = str(pathlib.Path(name.rpartition(':')[0]).resolve())
      frames = traceback.extract_tb(error.__traceback__)
      lines = [f'line {f.lineno}: ' for f in frames if f.filename == path]
      what = f'{"".join(lines[-1:])}{type(error).__name__}: '
      cure = cure or 'docs/extending.md says what it is called with'
      if 'Tracer' in type(error).__name__:
        error = 'Python cannot look at what JAX traces'
        cure = 'jnp.where in place of an if, jax.numpy in place of math'
    raise InputError(f'{where}: {what}{error}', cure=cure) from None


def make(
  function: Function, name: str, where: str, kind: Any, *args: Any, **named: Any
) -> Any:
  """What the function `name` returns; InputError unless it is a `kind`."""
  with explained(where, name):
    made = function(*args, **named)
  if not isinstance(made, kind):
    problem = f'{where}: returned {type(made).__name__}'
    allowed = f'a function that returns a {kind.__name__}'
    raise InputError(problem, allowed=allowed)
  return made


def options_of(function: Function, but: Collection[str] = ()) -> Options:
  """The parameters of a function that have a default, with it."""
  return {
    name: parameter.default
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.default is not parameter.empty and name not in but
  }


def parse_options(text: str, where: str) -> Options:
  """The options that a text gives: Python literals, or words for strings."""
  try:
    call = ast.parse(f'_({text})', mode='eval').body
    options = {
      part.arg: getattr(part.value, 'id', None) or ast.literal_eval(part.value)
      for part in call.keywords
    }
    once = len(options) == len(call.keywords) and None not in options
    if call.args or call.func.id != '_' or not once:
      raise ValueError
  except (AttributeError, *NO_LITERAL):
    allowed = "NAME=VALUE, NAME=VALUE: numbers, words, 'texts'; a name once"
    raise InputError(f'{where}: no list of options', allowed=allowed) from None
  return options


def dispatch(
  text: str, where: str, parts: Mapping[str, Options]
) -> dict[str, Options]:
  """What a text gives to each of several parts, without their defaults.

  `parts` has by the name of each part what `options_of` found. A whole number
  becomes a fraction if the default is one; of None anything takes the place.
  """
  given: dict[str, Options] = {part: {} for part in parts}
  for name, value in parse_options(text, where).items():
    owners = [part for part, options in parts.items() if name in options]
    if len(owners) > 1:
      problem = f'{where}: {" and ".join(owners)} both have an option {name!r}'
      raise InputError(problem, cure='rename the parameter of one')
    if not owners:
      having = {part: o for part, o in parts.items() if o} or parts
      has, it = ('have', 'they') if len(having) > 1 else ('has', 'it')
      known = [f'{n} = {v!r}' for o in having.values() for n, v in o.items()]
      raise InputError(
        f'{where}: {", ".join(having)} {has} no option {name!r}; '
        f'{it} {has}: {", ".join(known) or "none"}'
      )
    default = parts[owners[0]][name]
    if type(default) is bool and value in ('true', 'false'):
      value = value == 'true'
    if (type(default), type(value)) == (float, int):
      with contextlib.suppress(OverflowError):  # it stays what is refused
        value = float(value)
    finite = type(value) is not float or math.isfinite(value)
    if not finite or not (default is None or type(value) is type(default)):
      problem = f'{where}: {name} = {value!r} of {owners[0]}'
      allowed = f'what its default is, {type(default).__name__} {default!r}'
      raise InputError(problem, allowed=allowed)
    if value != default:
      given[owners[0]][name] = value
  return given


def normal_form(*given: Options) -> str:
  """The one text that `dispatch` reads as these options of several parts."""
  values = [pair for options in given for pair in options.items()]
  return ', '.join(f'{name}={value!r}' for name, value in sorted(values))
