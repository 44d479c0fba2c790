"""Files on a local disk: written whole, locked, checked as they are read.

What others made may be damaged or hostile. It is opened by `open_regular` or
read by `read_bytes`, as an archive seen by `check_archive`, and taken apart
inside `untrusted`, which makes an error of three lines of what is wrong.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import stat
import sys
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, BinaryIO

from tsla.errors import InputError

FORMAT = 'format'  # the key of a file's format version
MOST_BYTES = 2**32  # that a file is read into memory with
_AT_LEAST_ONE = ('epochs', 'batch_size', 'eval_every_epochs')


class DamagedFile(InputError):
  """A file is not what it should be."""

  def __init__(self, problem: str):
    allowed = 'the file as the sweep or the run wrote it'
    cure = 'start the command that wrote it again'
    super().__init__(problem, allowed=allowed, cure=cure)


class NewerFormat(InputError):
  """A file was written by a newer version of the program."""


def write_whole(
  path: pathlib.Path, content: str | bytes, *, partial: str = ''
) -> None:
  """Writes all of a file or nothing, also if the power goes.

  Until it is whole it is called `partial`, by default its name with '.partial'.
  """
  draft = path.with_name(partial or f'{path.name}.partial')
  try:
    with draft.open('wb') as file:
      file.write(content.encode() if isinstance(content, str) else content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(draft, path)
  except OSError as error:
    draft.unlink(missing_ok=True)  # it would fill a full disk
    raise OSError(error.errno, error.strerror, os.fspath(path)) from error
  sync(path.parent)


def sync(path: pathlib.Path) -> None:
  """Waits until a file's content, or the names in a folder, are on the disk."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


@contextlib.contextmanager
def locked(path: pathlib.Path, *, wait: bool = True) -> Iterator[int]:
  """Holds the lock that is this file, and yields the file's descriptor.

  The kernel frees it with the process. If another process holds it, it says so
  and waits; without `wait` it raises BlockingIOError.
  """
  with path.open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      if not wait:
        raise
      print(f'{path.parent}: waiting for another process', file=sys.stderr)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield file.fileno()


@contextlib.contextmanager
def claimed(folder: pathlib.Path) -> Iterator[Callable[[], None]]:
  """Makes a work directory this process's alone, by a `.lock` in it.

  What it yields raises InputError if that was deleted or replaced since. A
  folder that it made and in which nothing else was written is deleted again.
  """
  path, where = folder / '.lock', f'workdir = {folder}'
  anew = not os.path.exists(folder)
  advice = {'allowed': 'a directory that can be written', 'cure': '--workdir=…'}
  with contextlib.ExitStack() as stack:
    with untrusted(where, **advice):
      folder.mkdir(parents=True, exist_ok=True)
      sync(folder.absolute().parent)
      try:
        held = os.fstat(stack.enter_context(locked(path, wait=False)))
      except BlockingIOError:
        problem = f'{where}: another process is training here'
        cure = 'wait for it, or another --workdir'
        raise InputError(problem, cure=cure) from None

    def confirm() -> None:
      with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.stat(path), held):
          return
      why = 'its .lock was deleted or replaced, so that this run ends'
      allowed = 'one process in a directory, which stays until that ends'
      cure = 'the same command again, once nothing else trains there'
      raise InputError(f'{where}: {why}', allowed=allowed, cure=cure)

    try:
      yield confirm
    finally:
      with contextlib.suppress(InputError):  # it is another's by now
        confirm()
        if anew and list(folder.glob('*')) == [path]:
          shutil.rmtree(folder, ignore_errors=True)


def existing(path: pathlib.Path) -> pathlib.Path:
  """The path itself, or the nearest folder above it that is there."""
  folders = (path, *path.absolute().parents)
  return next(p for p in folders if os.path.exists(p))


def check_writable(path: pathlib.Path) -> None:
  """Raises OSError unless a folder `path` is there, or can be made."""
  home = existing(path)
  if not (home.is_dir() and os.access(home, os.W_OK)):
    raise PermissionError(f'{home} is no folder that can be written')


def expand(path: str | os.PathLike) -> pathlib.Path:
  """The path with ~ spelt out; InputError for a user that is not known."""
  try:
    return pathlib.Path(path).expanduser()
  except RuntimeError as error:
    problem = f'{path}: HOME is not set, or there is no such user'
    cure = 'HOME=DIR, XDG_CACHE_HOME=DIR for a cache, or a path without ~'
    raise InputError(problem, cure=cure) from error


def user_cache(kind: str) -> pathlib.Path:
  """Returns the folder of the user's own cache for what is of one kind."""
  cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return expand(cache) / 'tsla' / kind


def open_regular(path: str | os.PathLike) -> BinaryIO:
  """Opens a file to read it; raises OSError at once for a pipe or a device."""
  handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
  mode = os.fstat(handle).st_mode
  if stat.S_ISREG(mode):
    return os.fdopen(handle, 'rb')
  os.close(handle)
  code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
  why = os.strerror(code) if stat.S_ISDIR(mode) else 'not a regular file'
  raise OSError(code, why, os.fspath(path))


def read_bytes(path: str | os.PathLike, most: int = MOST_BYTES) -> bytes:
  """The content of a regular file; raises OSError if it is above `most`."""
  with open_regular(path) as file:
    if os.fstat(file.fileno()).st_size > most:
      why = f'larger than {most:,} bytes'
      raise OSError(errno.EFBIG, why, os.fspath(path))
    return file.read()


def check_archive(
  archive: zipfile.ZipFile, most: int, kinds: Collection[int]
) -> None:
  """Raises ValueError unless a zip archive unpacks to at most `most` bytes.

  Its files are compressed in one of the `kinds`, as of `zipfile`.
  """
  records = archive.infolist()
  for record in records:
    if record.flag_bits & 1 or record.compress_type not in kinds:
      way = 'encrypted' if record.flag_bits & 1 else 'compressed in another way'
      raise ValueError(f'{record.filename} is {way}')
  if (size := sum(record.file_size for record in records)) > most:
    raise ValueError(f'unpacked, it takes {size:,} of at most {most:,} bytes')


@contextlib.contextmanager
def untrusted(
  where: str, kind: type[InputError] = InputError, **advice: str
) -> Iterator[None]:
  """Whatever is raised inside becomes an error of a `kind` that `where` begins.

  For code that takes apart what others made: a parser raises what it likes. The
  advice is `allowed` and `cure`, as of InputError.
  """
  try:
    yield
  except InputError:
    raise
  except Exception as error:  # of any kind, as the caller asked for
    why = getattr(error, 'strerror', None) or str(error) or type(error).__name__
    name = getattr(error, 'filename', None)
    if name and str(name) not in where:
      why = f'{name}: {why}'
    raise kind(f'{where}: {why}', **advice) from error


def sha256_of(path: str | os.PathLike) -> str:
  """Returns the SHA-256 of a regular file, 64 hexadecimal digits."""
  with open_regular(path) as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def write_object(
  path: pathlib.Path, value: Mapping[str, Any], *, version: int = 0
) -> None:
  """Writes a JSON object, with the version of its format if it has one."""
  value = {FORMAT: version, **value} if version else value
  write_whole(path, json.dumps(value, indent=1, allow_nan=False) + '\n')


def read_object(path: pathlib.Path, *, newest: int = 0) -> dict[str, Any]:
  """The JSON object in a file, without the version of its format.

  `newest` is the version that this program writes; 0: the file has none.
  """
  value = parse(str(path), read_text(path))
  if newest:
    check_format(path, value.pop(FORMAT, 1), newest)  # 1 was not written yet
  return value


def read_text(path: pathlib.Path) -> str:
  """The text of a file; raises DamagedFile if it cannot be read."""
  with untrusted(str(path), DamagedFile):
    return read_bytes(path).decode()


def check_format(path: pathlib.Path, version: Any, newest: int) -> None:
  """Raises NewerFormat if the version of a file's format is above `newest`."""
  if type(version) is not int or version < 1:
    raise DamagedFile(f'{path}: {FORMAT} = {version!r}')
  if version > newest:
    problem = f'{path}: format {version}, of a newer version of this program'
    allowed = f'format {newest} or older'
    cure = 'update this program, or use the version that wrote the file'
    raise NewerFormat(problem, allowed=allowed, cure=cure)


def parse(where: str, text: str, **fields: type) -> dict[str, Any]:
  """The JSON object that a text is, with `fields` as of `check_fields`."""
  with untrusted(where, DamagedFile):
    value = json.loads(text)
  check_fields(f'{where}: ', value, **fields)
  return value


def check_fields(where: str, value: Any, **fields: type) -> None:
  """Raises DamagedFile unless `value` is a JSON object with these fields.

  `where` is as 'runs/a/log: line 3: ', `fields` are names and types; whole
  numbers are 0 or more, or 1 for some.
  """
  if not isinstance(value, dict):
    raise DamagedFile(f'{where}no JSON object')
  for name, kind in fields.items():
    found = value.get(name)
    if type(found) is not kind:
      raise DamagedFile(f'{where}{name} = {found!r}, not {kind.__name__}')
    if kind is int and found < (name in _AT_LEAST_ONE):
      raise DamagedFile(f'{where}{name} = {found}')
