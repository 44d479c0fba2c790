"""What the commands share: how flags are read, and how errors end them."""

import argparse
import difflib
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tsla.errors import InputError


class Parser(argparse.ArgumentParser):
  """argparse that raises `InputError`; `--help` still raises SystemExit(0)."""

  def __init__(self, name: str, description: str | None):
    super().__init__(
      prog=f'python -m tsla {name}',
      description=description,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )

  def error(self, message: str) -> NoReturn:
    """What argparse calls for flags that it cannot use."""
    raise InputError(message, cure=f'{self.prog} --help')

  def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
    """As argparse's; an unknown argument is named with the nearest flag."""
    parsed, rest = self.parse_known_args(args, namespace)
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


def command(main: Callable[[Sequence[str]], int | None]) -> Callable[..., int]:
  """A main that prints an `InputError` and returns 2, else 0 for None."""

  @functools.wraps(main)
  def wrapped(argv: Sequence[str] | None = None) -> int:
    hold_stderr()
    try:
      return main(sys.argv[1:] if argv is None else argv) or 0
    except InputError as error:
      print(error, file=sys.stderr)
      return 2

  return wrapped
