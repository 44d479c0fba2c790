"""Brings a data set onto the disk, once for all processes."""

import contextlib
import difflib
import io
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tsla.data.builders import BUILDERS, builder_class
from tsla.errors import InputError
from tsla.files import expand, locked, sha256_of, untrusted

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

AnyPath = str | os.PathLike


def data_root(data_dir: AnyPath = '') -> pathlib.Path:
  """Returns the folder of all sets; '' means TFDS's default."""
  default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return expand(data_dir or default)


def command(name: str, data_dir: AnyPath = '', *, by_hand: bool = False) -> str:
  """The shell command that prepares a set, for error messages."""
  text = f'python -m tsla prepare {name}'
  if data_dir:
    text += f' --data_dir={data_dir}'
  return text + by_hand * len(builder_class(name).ARCHIVES) * ' --archive=FILE'


def prepare(
  name: str, data_dir: AnyPath = '', archives: Sequence[AnyPath] = ()
) -> pathlib.Path:
  """Builds one of the project's own sets unless it is there, and checks it.

  Processes that ask for the same set at once wait for the first one. A build
  that dies leaves nothing that is taken for a set. The `archives` were fetched
  by hand; what is missing is downloaded. Returns the set's folder.
  """
  root = data_root(data_dir)
  if name not in BUILDERS:
    problem = f'{name!r}: not a set that is built here, and not in {root}'
    cure = nearest(name, BUILDERS, 'python -m tsla prepare ')
    cure = cure or f'--data_dir=DIR, where DIR holds {name}'
    raise InputError(problem, allowed=', '.join(sorted(BUILDERS)), cure=cure)
  directory = root / name / BUILDERS[name]
  by_hand = _match_archives(name, data_dir, archives)
  with _explained(name, data_dir):
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / f'.{name}.lock'):
      if not directory.exists():
        _sweep(root, directory)
        try:
          _build(name, root, by_hand)
        finally:
          _sweep(root, directory)
  open_prepared(directory)
  return directory


def open_prepared(directory: pathlib.Path) -> 'tfds.core.DatasetBuilder':
  """Opens a set that lies on disk as array_record; InputError if damaged."""
  import tensorflow_datasets as tfds
  from array_record.python import array_record_data_source

  allowed = 'a set that TFDS prepared with file_format=array_record'
  cure = f'{again(directory)}, or choose another --config.data.path'
  with untrusted(f'{directory}: no readable set', allowed=allowed, cure=cure):
    builder = tfds.builder_from_directory(directory, file_format='array_record')
  for split, info in builder.info.splits.items():
    where, cure = f'{directory}: split {split!r}', again(directory)
    with untrusted(f'{where} is damaged', cure=cure):
      files = [os.fspath(path) for path in info.filepaths]
      found = len(array_record_data_source.ArrayRecordDataSource(files))
    if found != info.num_examples:
      allowed = f'{info.num_examples}, as its dataset_info.json says'
      problem = f'{where} holds {found} examples'
      raise InputError(problem, allowed=allowed, cure=cure)
  return builder


def again(directory: AnyPath) -> str:
  """What to do about a damaged set, for error messages."""
  return f'remove {directory} and prepare the set again'


def nearest(name: str, names: Sequence[str], prefix: str) -> str:
  """Returns `prefix` with the most similar of `names`, '' if none is near."""
  matches = difflib.get_close_matches(name, names, n=1)
  return prefix + matches[0] if matches else ''


def _match_archives(
  name: str, data_dir: AnyPath, given: Sequence[AnyPath]
) -> dict[str, pathlib.Path]:
  """The archives that were fetched by hand, by their SHA-256."""
  known = {item.sha256 for item in builder_class(name).ARCHIVES}
  found = {}
  for path in map(pathlib.Path, given):
    with untrusted(f'--archive={path}'):
      digest = sha256_of(path)
    if digest not in known:
      problem = f'--archive={path}: its SHA-256 is {digest[:12]}…'
      cure = f'fetch it again, then {command(name, data_dir, by_hand=True)}'
      raise InputError(problem, allowed=_archives(name), cure=cure)
    found[digest] = path
  return found


def _build(name: str, root: pathlib.Path, by_hand: dict) -> None:
  import tensorflow_datasets as tfds

  builder = builder_class(name)(data_dir=root, archives=by_hand)
  config = tfds.download.DownloadConfig(
    try_download_gcs=False, force_checksums_validation=True
  )
  # TFDS prints a paragraph to stdout; its progress bars go to stderr.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(
      file_format='array_record', download_config=config
    )


@contextlib.contextmanager
def _explained(name: str, data_dir: AnyPath) -> Iterator[None]:
  """Turns what the network and the disk can do into an `InputError`."""
  import requests
  from tensorflow_datasets.core.download import download_manager, util

  advice = 'fetch it by hand, then '
  try:
    yield
    return
  except download_manager.NonMatchingChecksumError as error:
    cause, why = error, 'the download has another SHA-256'
  except (requests.RequestException, TimeoutError, util.DownloadError) as error:
    cause, why = error, _root_cause(error)
  except (OSError, RuntimeError) as error:
    # A RuntimeError is array_record's way of saying that the disk is full.
    if isinstance(error, RuntimeError) and 'No space left' not in str(error):
      raise
    cause, why = error, str(error)
    advice = 'make room or choose another --data_dir, then '
  problem = f'{name} cannot be prepared in {data_root(data_dir)}: {why}'
  cure = advice + command(name, data_dir, by_hand=True)
  raise InputError(problem, allowed=_archives(name), cure=cure) from cause


def _archives(name: str) -> str:
  items = builder_class(name).ARCHIVES
  return '; '.join(f'{i.filename} with SHA-256 {i.sha256}' for i in items)


def _root_cause(error: BaseException) -> str:
  while error.__context__ is not None:
    error = error.__context__
  return str(error) or type(error).__name__


def _sweep(root: pathlib.Path, directory: pathlib.Path) -> None:
  """Removes what a killed build or a failed download left; needs the lock."""
  builds = directory.parent.glob(f'incomplete.*_{directory.name}')
  downloads = (root / 'downloads' / directory.parent.name).glob('*.tmp.*')
  for leftover in [*builds, *downloads]:
    shutil.rmtree(leftover, ignore_errors=True)
