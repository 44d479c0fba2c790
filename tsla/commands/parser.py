"""What the commands share: how flags are read, and how errors end them."""

import argparse
import difflib
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from tsla.errors import InputError


class Parser(argparse.ArgumentParser):
  """argparse that raises `InputError`; `--help` still raises SystemExit(0).

  It is of the command in module `name`, and parses `argv`.
  """

  def __init__(self, name: str, argv: Sequence[str]):
    self.argv = argv
    super().__init__(
      prog=f'python -m tsla {name.split(".")[-1].replace("_", "-")}',
      description=sys.modules[name].__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )

  def error(self, message: str) -> NoReturn:
    """What argparse calls for flags that it cannot use."""
    raise InputError(message, cure=f'{self.prog} --help')

  def parse_args(self) -> argparse.Namespace:
    """As argparse's; an unknown argument is named with the nearest flag."""
    parsed, rest = self.parse_known_args(self.argv)
    if rest:
      raise self.not_a_flag(rest[0])
    return parsed

  def not_a_flag(self, argument: str, *others: str) -> InputError:
    """The error for it; `others` are flags that argparse does not know."""
    known = [f[2:] for f in self._option_string_actions if f.startswith('--')]
    near = difflib.get_close_matches(argument.strip('-').split('=')[0], known)
    allowed = ', '.join([*others, *(f'--{flag}' for flag in known)])
    cure = f'--{(near or ["help"])[0]}'
    return InputError(f'{argument!r}: not a flag', allowed=allowed, cure=cure)


def hold_stderr() -> None:
  """Standard error is for errors of three lines, and open."""
  if sys.stderr is None:  # else a file may become it
    sys.stderr = open(os.devnull, 'w')  # noqa: SIM115 (for good)
  # Orbax's threads log pages of what whoever waits for them raises again.
  logging.getLogger('absl').addFilter(lambda record: not record.exc_info)


def command(main: Callable[[Parser], int | None]) -> Callable[..., int]:
  """A main of argv that prints an `InputError` and returns 2, else 0 for None.

  Its module's name and docstring are those of the command.
  """

  @functools.wraps(main)
  def wrapped(argv: Sequence[str] | None = None) -> int:
    hold_stderr()
    try:
      argv = sys.argv[1:] if argv is None else argv
      code = main(Parser(main.__module__, argv)) or 0
      print(end='', flush=True)  # else Python does, when it ends
      return code
    except InputError as error:
      print(error, file=sys.stderr)
      return 2
    except BrokenPipeError:  # nobody reads on, as after `| head`
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      return 141  # as of SIGPIPE

  return wrapped
