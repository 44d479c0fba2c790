"""JSON that a sweep or a run wrote, checked as it is read."""

import json
import pathlib
from typing import Any

from tsla.errors import InputError

_AT_LEAST_ONE = ('epochs', 'batch_size', 'eval_every_epochs')


def read_log(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
  """The rows of a `metrics.jsonl` by kind.

  Raises:
    InputError: it cannot be read, or a whole line is no row.
  """
  lines = read_text(path).splitlines(keepends=True)
  if lines and not lines[-1].endswith('\n'):
    lines.pop()  # half a row: the process was killed, or is writing it
  log: dict[str, list[dict[str, Any]]] = {}
  for number, line in enumerate(lines, start=1):
    try:
      row = json.loads(line)
    except ValueError as error:
      raise damaged(path, f'line {number}: {error}') from error
    check(path, f'line {number}: ', row, {'kind': str, 'step': int})
    log.setdefault(row['kind'], []).append(row)
  return log


def read_object(path: pathlib.Path) -> dict[str, Any]:
  """The JSON object in a file.

  Raises:
    InputError: it cannot be read, or is no JSON object.
  """
  try:
    value = json.loads(read_text(path))
  except ValueError as error:
    raise damaged(path, str(error)) from error
  check(path, '', value, {})
  return value


def read_text(path: pathlib.Path) -> str:
  """The text of a file.

  Raises:
    InputError: it cannot be read, or is no text.
  """
  try:
    return path.read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError) as error:
    raise damaged(path, str(error)) from error


def check(
  path: pathlib.Path, where: str, value: Any, fields: dict[str, type]
) -> None:
  """Raises InputError unless `value` is an object with these fields.

  Args:
    path: the file it is from.
    where: its place in that file, '' for the whole.
    value: what was read.
    fields: names and types; whole numbers are 0 or more, or 1 for some.
  """
  if not isinstance(value, dict):
    raise damaged(path, f'{where}no JSON object')
  for name, kind in fields.items():
    found = value.get(name)
    if type(found) is not kind:
      raise damaged(path, f'{where}{name} = {found!r}, not {kind.__name__}')
    if kind is int and found < (name in _AT_LEAST_ONE):
      raise damaged(path, f'{where}{name} = {found}')


def damaged(path: pathlib.Path, what: str) -> InputError:
  """The error that a file is not what it should be."""
  return InputError(
    f'{path}: {what}',
    allowed='the file as the sweep or the run wrote it',
    cure='start the command that wrote it again',
  )
