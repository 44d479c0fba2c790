"""Computed arrays on disk: what takes long is done once, not at every start.

A file is named by the digest of all that its array follows from. It is complete
or not there, because it is renamed into its place, and it begins with the
SHA-256 of what comes after, so that a damaged one counts as missing.
"""

import contextlib
import hashlib
import io
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tsla.errors import InputError
from tsla.files import locked, read_bytes, user_cache, write_whole


def cached_array(
  kind: str, facts: Mapping[str, Any], compute: Callable[[], np.ndarray]
) -> np.ndarray:
  """The array in the user's cache, folder `kind`; computed unless it is there.

  The facts are all that it follows from, to the bit, JSON-ready. Processes that
  ask at once wait for the first one; those that share no disk compute the same,
  each for itself. Raises InputError if the cache cannot be written.
  """
  text = json.dumps(facts, sort_keys=True)
  home = user_cache(kind)
  path = home / f'{hashlib.sha256(text.encode()).hexdigest()}.array'
  if (array := _open(path)) is None:
    cure = 'make room, or XDG_CACHE_HOME=DIR'
    with writing(home, 'nothing can be stored there', cure):
      if (array := _open(path)) is None:
        array = compute()
        np.save(buffer := io.BytesIO(), array, allow_pickle=False)
        content = buffer.getvalue()
        content = hashlib.sha256(content).digest() + content
        # One name for all, so that the next one replaces what a kill left.
        write_whole(path, content, partial='.partial')
  return array


@contextlib.contextmanager
def writing(home: pathlib.Path, problem: str, cure: str) -> Iterator[None]:
  """Locks a cache's folder, made if missing; InputError if the disk refuses."""
  try:
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / '.lock'):
      yield
  except OSError as error:
    raise InputError(f'{home}: {problem}: {error}', cure=cure) from error


def _open(path: pathlib.Path) -> np.ndarray | None:
  """Returns what the file holds; None where that is not what was written."""
  try:
    content = read_bytes(path, most=2**40)  # of one's own
  except OSError:
    return None
  size = hashlib.sha256().digest_size
  if hashlib.sha256(content[size:]).digest() != content[:size]:
    return None
  return np.load(io.BytesIO(content[size:]), allow_pickle=False)
