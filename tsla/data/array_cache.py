"""Computed arrays on disk: what takes long is done once, not at every start.

A file is named by the digest of all that its array follows from. It is complete
or not there, because it is renamed into its place, and it begins with the
SHA-256 of what comes after, so that a damaged one counts as missing.
"""

import hashlib
import io
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tsla.errors import InputError
from tsla.files import locked, user_cache, write_whole


def cached_array(
  kind: str, facts: Mapping[str, Any], compute: Callable[[], np.ndarray]
) -> np.ndarray:
  """Returns an array that is kept; computes it unless it is there.

  Processes that ask at once wait for the first one; those that share no disk
  compute the same, each for itself.

  Args:
    kind: the folder of the user's cache.
    facts: all that the array follows from, JSON-ready.
    compute: makes the array.

  Returns:
    The array, bit for bit as `compute` gave it under the same facts.

  Raises:
    InputError: the cache cannot be written.
  """
  text = json.dumps(facts, sort_keys=True)
  home = user_cache(kind)
  path = home / f'{hashlib.sha256(text.encode()).hexdigest()}.array'
  array = _open(path)
  if array is not None:
    return array
  try:
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / '.lock'):
      array = _open(path)
      if array is None:
        array = compute()
        _write(path, array)
  except OSError as error:
    raise InputError(
      f'{home}: nothing can be stored there: {error}',
      cure='make room, or XDG_CACHE_HOME=DIR',
    ) from error
  return array


def _open(path: pathlib.Path) -> np.ndarray | None:
  """Returns what the file holds; None where that is not what was written."""
  try:
    content = path.read_bytes()
  except OSError:
    return None
  size = hashlib.sha256().digest_size
  if hashlib.sha256(content[size:]).digest() != content[:size]:
    return None
  return np.load(io.BytesIO(content[size:]), allow_pickle=False)


def _write(path: pathlib.Path, array: np.ndarray) -> None:
  """Writes the whole file or nothing; needs the home's lock."""
  buffer = io.BytesIO()
  np.save(buffer, array, allow_pickle=False)
  content = buffer.getvalue()
  # One name for all, so that the next one replaces what a kill left.
  content = hashlib.sha256(content).digest() + content
  write_whole(path, content, partial='.partial')
