"""Files on a local disk: written whole, locked, checked as they are read."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from tsla.errors import InputError

FORMAT = 'format'  # the key of a file's format version
_AT_LEAST_ONE = ('epochs', 'batch_size', 'eval_every_epochs')


class DamagedFile(InputError):
  """A file is not what it should be."""

  def __init__(self, problem: str):
    super().__init__(
      problem,
      allowed='the file as the sweep or the run wrote it',
      cure='start the command that wrote it again',
    )


class NewerFormat(InputError):
  """A file was written by a newer version of the program."""


def write_whole(
  path: pathlib.Path, content: str | bytes, *, partial: str = ''
) -> None:
  """Writes all of a file or nothing, also if the power goes.

  Text is UTF-8. Until it is whole it is called `partial`, by default the file's
  name with '.partial'.
  """
  draft = path.with_name(partial or f'{path.name}.partial')
  try:
    with draft.open('wb') as file:
      file.write(content.encode() if isinstance(content, str) else content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(draft, path)
  except OSError:
    draft.unlink(missing_ok=True)  # it would fill a full disk
    raise
  sync(path.parent)


def sync(path: pathlib.Path) -> None:
  """Waits until a file's content, or the names in a folder, are on the disk."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


@contextlib.contextmanager
def locked(path: pathlib.Path, *, wait: bool = True) -> Iterator[None]:
  """Holds the lock that is this file; the kernel frees it with the process.

  Raises:
    BlockingIOError: another process holds it, and `wait` is false.
  """
  with path.open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    yield


def existing(path: pathlib.Path) -> pathlib.Path:
  """The path itself, or the nearest folder above it that is there."""
  return next(p for p in (path, *path.absolute().parents) if p.exists())


def user_cache(kind: str) -> pathlib.Path:
  """Returns the folder of the user's own cache for what is of one kind."""
  cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(cache).expanduser() / 'tsla' / kind


def sha256_of(path: str | os.PathLike) -> str:
  """Returns the SHA-256 of a file, 64 hexadecimal digits."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def write_object(
  path: pathlib.Path, value: Mapping[str, Any], *, version: int = 0
) -> None:
  """Writes a JSON object, with the version of its format if it has one."""
  value = {FORMAT: version, **value} if version else value
  write_whole(path, json.dumps(value, indent=1, allow_nan=False) + '\n')


def read_object(path: pathlib.Path, *, newest: int = 0) -> dict[str, Any]:
  """The JSON object in a file, without the version of its format.

  Args:
    path: the file.
    newest: the version that this program writes; 0: the file has none.

  Raises:
    NewerFormat: the file is of a newer format.
    DamagedFile: it cannot be read, or is no JSON object.
  """
  value = parse(f'{path}: ', read_text(path))
  if newest:
    check_format(path, value.pop(FORMAT, 1), newest)
  return value


def read_text(path: pathlib.Path) -> str:
  """The text of a file; raises DamagedFile if it cannot be read."""
  try:
    return path.read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError) as error:
    raise DamagedFile(f'{path}: {error}') from error


def check_format(path: pathlib.Path, version: Any, newest: int) -> None:
  """Raises NewerFormat if the version of a file's format is above `newest`.

  Files that were written before formats had versions are of version 1.
  """
  if type(version) is not int or version < 1:
    raise DamagedFile(f'{path}: {FORMAT} = {version!r}')
  if version > newest:
    raise NewerFormat(
      f'{path}: format {version}, of a newer version of this program',
      allowed=f'format {newest} or older',
      cure='update this program, or use the version that wrote the file',
    )


def parse(where: str, text: str, **fields: type) -> dict[str, Any]:
  """The JSON object that a text is; `where` and `fields` as `check_fields`."""
  try:
    value = json.loads(text)
  except ValueError as error:
    raise DamagedFile(f'{where}{error}') from error
  check_fields(where, value, **fields)
  return value


def check_fields(where: str, value: Any, **fields: type) -> None:
  """Raises DamagedFile unless `value` is a JSON object with these fields.

  Args:
    where: the file and the place in it, as 'runs/a/log: line 3: '.
    value: what was read.
    **fields: names and types; whole numbers are 0 or more, or 1 for some.
  """
  if not isinstance(value, dict):
    raise DamagedFile(f'{where}no JSON object')
  for name, kind in fields.items():
    found = value.get(name)
    if type(found) is not kind:
      raise DamagedFile(f'{where}{name} = {found!r}, not {kind.__name__}')
    if kind is int and found < (name in _AT_LEAST_ONE):
      raise DamagedFile(f'{where}{name} = {found}')
