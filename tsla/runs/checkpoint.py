"""Saving and restoring a run's state with Orbax, and trusting what was saved.

A checkpoint holds the whole `TrainState`, so that a restored run goes on with
the same bits. It does not know how many devices wrote it. It is written beside
its place, brought to the disk, given a manifest and only then renamed into
place; it is renamed away before it is deleted. So a folder `STEP` is whole,
whenever the process ends; and it counts while its files are of its manifest.
"""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from tsla.errors import InputError
from tsla.files import existing, sync
from tsla.runs import manifest, retention
from tsla.runs.log import RunLog
from tsla.runs.manifest import Damaged

# Counts of rules, by name, may be missing on either side, and then stay as they
# are: so a version with one rule more reads the states of the one before.
_OPTIONAL = '/firings/'
_SPACE = 3  # times the state: two on disk, one being written


class Checkpoints(contextlib.AbstractContextManager):
  """The checkpoints under `directory`; leaving waits until all are on disk.

  Those of `keep_steps` stay; each is marked with the identity of its `run`.
  Only `save` and `discard` change anything on the disk.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    keep_steps: Sequence[int] = (),
    run: Mapping[str, Any] | None = None,
  ):
    self.passed_over: list[str] = []  # a line for each that is damaged
    self._directory = directory
    self._keep_steps = frozenset(keep_steps)
    self._run = run or {}
    self._checkpointer = ocp.StandardCheckpointer()
    self._good: dict[int, bool] = {}
    self._worker = ThreadPoolExecutor(1)
    self._saving: Future[None] | None = None

  @property
  def steps(self) -> list[int]:
    """All that are there, whole or damaged since, oldest first."""
    self.wait()
    return retention.saved_steps(self._directory)

  @property
  def latest_step(self) -> int | None:
    """Updates done in the newest that is whole; None where there is none.

    The first process looks, for all. InputError: there are some, none is whole.
    """
    self._barrier()
    step = -1
    if jax.process_index() == 0:
      step = next(filter(self.is_whole, reversed(self.steps)), -1)
      if step < 0 and self.passed_over:
        problem = f'{self._directory}: no checkpoint is whole: '
        cure = f'rm -r {self._directory} begins anew'
        raise InputError(problem + '; '.join(self.passed_over), cure=cure)
    step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    return step if step >= 0 else None

  def save(
    self,
    step: int,
    state: Any,
    scores: Mapping[int, float] | None = None,
    log: RunLog | None = None,
  ) -> None:
    """Writes `state` in the background; the caller may donate it at once.

    What `log` holds by now belongs to it, and is on the disk before it. Then
    `retention.tidy`. InputError: the save before could not be written.
    """
    self.wait()
    if self._good.get(step):
      return  # an interruption right after a regular save
    folder = self._directory / str(step)
    partial = folder.with_name(f'{step}.partial').absolute()
    with self._explained():
      # The first process writes arrays of NumPy, for all of them.
      arrays = manifest.host_copy(state)
      self._checkpointer.save(partial, arrays, force=True)
    run = {**self._run, 'step': step, 'log': log.position() if log else {}}

    def finish() -> None:
      digests = manifest.digests(arrays)
      self._checkpointer.wait_until_finished()
      if jax.process_index() == 0:
        if log is not None:
          log.sync()
        manifest.write(partial, digests, run)
        retention.remove(folder)  # a damaged one
        partial.rename(folder)
        sync(self._directory)
        sync(self._directory.parent)
        self._good[step] = True
        bad = {step for step, good in self._good.items() if not good}
        retention.tidy(self._directory, self._keep_steps, scores or {}, bad)
      self._good[step] = True

    self._saving = self._worker.submit(finish)

  def wait(self) -> None:
    """Waits until what was saved last is on the disk; InputError: it is not."""
    saving, self._saving = self._saving, None
    if saving is not None:
      with self._explained():
        saving.result()

  def __exit__(self, *error: object) -> None:
    try:
      self.wait()
    finally:
      with self._explained():  # they tell of a full disk once more
        self._checkpointer.close()

  def restore(
    self,
    like: Any,
    step: int,
    *,
    part: bool = False,
    where: str = '',
    **advice: str,
  ) -> Any:
    """The checkpoint of `step`, placed as `like` is.

    `like` may be a `part` of what was saved. If that is of another network or
    optimiser, an InputError that `where` begins says so with the advice.
    """
    self._barrier()
    saved = self._checked(step)
    # Before anything is read: this is the usual reason for a misfit.
    here, empty = manifest.named(like), saved.empty()
    names = here.keys() if part else empty.keys() | here.keys()
    either = {n for n in here.keys() ^ empty.keys() if _OPTIONAL in n}
    for name in sorted(names - either):
      there, mine = _describe(empty.get(name)), _describe(here.get(name))
      if there != mine:
        problem = f'{name} is {there} there and {mine} here'
        raise InputError(f'{where or saved.folder}: {problem}', **advice)
    arrays = self._read(saved)
    placed = [_place(arrays.get(name), leaf) for name, leaf in here.items()]
    return jax.tree.unflatten(jax.tree.structure(like), placed)

  def discard(self, step: int) -> None:
    """Deletes the checkpoint of `step`, if there is one."""
    self._barrier()
    if jax.process_index() == 0:
      retention.remove(self._directory / str(step))

  def confirm(self, step: int) -> manifest.Manifest:
    """Raises Damaged unless all arrays of `step` come back as saved."""
    self._barrier()
    saved = self._checked(step)
    self._read(saved)
    return saved

  def _read(self, saved: manifest.Manifest) -> dict[str, np.ndarray]:
    """The arrays by name; raises Damaged if one is not what was saved."""
    folder = saved.folder.absolute()
    # With arrays of NumPy as the target nothing depends on the devices.
    arrays = self._checkpointer.restore(folder, saved.empty())
    saved.check_arrays(arrays)
    return arrays

  def _barrier(self) -> None:
    """Waits for what any process still has to write."""
    self.wait()
    multihost_utils.sync_global_devices('checkpoints')

  def run_of(self, step: int) -> dict[str, Any]:
    """Whose state a checkpoint is: `Manifest.run`."""
    return manifest.read(self._directory / str(step)).run

  def _checked(self, step: int) -> manifest.Manifest:
    saved = manifest.read(self._directory / str(step))
    if (there := saved.run.get('step', step)) != step:
      raise Damaged(saved.folder, f'it is the state of update {there}')
    saved.check_files()
    return saved

  def is_whole(self, step: int) -> bool:
    """Whether the files of a checkpoint are those that were saved."""
    if step not in self._good:
      try:
        self._checked(step)
        self._good[step] = True
      except Damaged as error:
        what = f'the checkpoint of update {step} is damaged: {error.why}'
        self.passed_over.append(what)
        self._good[step] = False
    return self._good[step]

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    try:
      yield
    except (OSError, ValueError) as error:  # Orbax's has the disk's in its text
      reason = getattr(error, 'strerror', '') or str(error).rpartition(': ')[2]
      raise InputError(
        f'{self._directory}: a checkpoint could not be written: {reason}',
        allowed='room for it, and the right to write',
        cure='make room, then the same command again goes on',
      ) from error


def _place(array: np.ndarray | None, like: Any) -> jax.Array:
  """The array, or else `like`, on its devices, each process its own."""
  if array is None or not isinstance(like, jax.Array):
    return like if array is None else array
  shape, place = array.shape, like.sharding
  return jax.make_array_from_callback(shape, place, array.__getitem__)


def _describe(array: Any) -> str:
  return 'missing' if array is None else f'{array.dtype}{list(array.shape)}'


def check_space(directory: pathlib.Path, state: Any) -> None:
  """Raises InputError if the disk has no room for three of `state`."""
  leaves = jax.tree.leaves(state)
  need = _SPACE * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
  disk = shutil.disk_usage(existing(directory))
  if disk.total and disk.free < need:  # of 0 bytes, as /proc, it says nothing
    raise InputError(
      f'workdir = {directory.parent}: {disk.free / 1e6:,.1f} MB are free there',
      allowed=f'{need / 1e6:,.1f} MB or more, {_SPACE} times the state',
      cure='make room, or another --workdir',
    )
