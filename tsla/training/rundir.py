"""A run's directory: what is in it, and how it is written.

- `config.json`: the fields this run was started with;
- `status.json`: running, done, diverged or interrupted, and at which update;
- `metrics.jsonl`: one row an interval, an evaluation, an event: the truth;
- `tensorboard/`: the same numbers, derived;
- `checkpoints/`: the state.
"""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any, TextIO

import ml_collections
from tensorboardX import SummaryWriter

from tsla.errors import InputError
from tsla.training import config as config_lib


class RunDirectory:
  """The directory of one run.

  Args:
    path: made if missing; a directory of the same config is gone on with.
    config: the run's config.
    writes: False for the processes that leave what is shared to the first.

  Raises:
    InputError: `path` cannot be written, or holds a run of another config.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    config: ml_collections.ConfigDict,
    *,
    writes: bool = True,
  ):
    self.path = pathlib.Path(path)
    self._writes = writes
    self._fields = config_lib.flatten(config)
    with self._explained():
      self.path.mkdir(parents=True, exist_ok=True)
      before = self._read_json('config.json') or self._fields
    if before != self._fields:
      changed = [
        f'{name} = {before.get(name)!r} there and {value!r} here'
        for name, value in self._fields.items()
        if before.get(name) != value
      ]
      raise InputError(
        f'workdir = {self.path}: holds a run of another config',
        allowed='the same config; now ' + ', '.join(changed),
        cure='another --workdir, or the config that is there',
      )

  def begin(self) -> None:
    """Makes the directory this run's own: from here on it is for one config."""
    with self._explained():
      self._write_json('config.json', self._fields)

  @property
  def checkpoints(self) -> pathlib.Path:
    """Where the state is saved."""
    return self.path / 'checkpoints'

  @property
  def status(self) -> dict[str, Any]:
    """What `write_status` last wrote; empty for a new run."""
    return self._read_json('status.json') or {}

  def write_status(self, state: str, step: int, **more: Any) -> None:
    """Says how the run stands: running, done, diverged, interrupted."""
    self._write_json('status.json', {'state': state, 'step': step, **more})

  @contextlib.contextmanager
  def log(self, step: int) -> Iterator['RunLog']:
    """The run's log from update `step` on; later rows are cut away."""
    if not self._writes:
      yield RunLog(None, None)
      return
    metrics = self.path / 'metrics.jsonl'
    if metrics.exists():
      rows = metrics.read_text().splitlines(keepends=True)
      _replace(metrics, ''.join(r for r in rows if _is_kept(r, step)))
    with (
      metrics.open('a') as file,
      contextlib.closing(
        SummaryWriter(str(self.path / 'tensorboard'), purge_step=step + 1)
      ) as board,
    ):
      yield RunLog(file, board)

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    try:
      yield
    except (OSError, json.JSONDecodeError) as error:
      raise InputError(
        f'workdir = {self.path}: {error}',
        allowed='a directory of one run that can be read and written',
        cure='--workdir=…',
      ) from error

  def _read_json(self, name: str) -> Any:
    path = self.path / name
    return json.loads(path.read_text()) if path.exists() else None

  def _write_json(self, name: str, value: Any) -> None:
    if not self._writes:
      return
    _replace(self.path / name, json.dumps(value, indent=1) + '\n')


class RunLog:
  """Appends rows to `metrics.jsonl` and TensorBoard, or to nothing."""

  def __init__(self, file: TextIO | None, board: SummaryWriter | None):
    self._file = file
    self._board = board

  def write(self, kind: str, step: int, **values: float | None) -> None:
    """One row: `kind` is train, eval or switch, `step` the updates done.

    A value that is not finite is written as null, as JSON has no other word.
    """
    if self._file is None:
      return
    values = {
      name: value if value is not None and math.isfinite(value) else None
      for name, value in values.items()
    }
    row = {'kind': kind, 'step': step, **values}
    self._file.write(json.dumps(row) + '\n')
    self._file.flush()
    for name, value in values.items():
      if value is not None:
        self._board.add_scalar(f'{kind}/{name}', value, step)


def _is_kept(line: str, step: int) -> bool:
  """Whether a row belongs to the first `step` updates; half a row does not."""
  try:
    return json.loads(line)['step'] <= step
  except (json.JSONDecodeError, KeyError):
    return False


def _replace(path: pathlib.Path, text: str) -> None:
  """Writes a whole file or nothing."""
  partial = path.with_name(path.name + '.partial')
  with partial.open('w') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  partial.replace(path)
