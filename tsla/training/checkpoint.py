"""Saving and restoring a run's state with Orbax.

A checkpoint holds the whole `TrainState` (step, parameters, BatchNorm
statistics, optimiser state with θ), so a restored run goes on with the same
bits, in whichever stage it was. It does not know how many devices wrote it.
"""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

_KEEP = 2


class Checkpoints:
  """The checkpoints of one run; made by `open_checkpoints`."""

  def __init__(self, manager: ocp.CheckpointManager):
    self._manager = manager

  @property
  def latest_step(self) -> int | None:
    """Updates done in the newest checkpoint; None where there is none."""
    return self._manager.latest_step()

  def save(self, step: int, state: Any) -> None:
    """Writes `state` in the background; the caller may donate it at once."""
    if self._manager.latest_step() == step:
      return  # an interruption right after a regular save
    if not self._manager.save(step, args=ocp.args.StandardSave(state)):
      raise RuntimeError(f'the checkpoint of step {step} was not written')

  @property
  def steps(self) -> list[int]:
    """All that are there, oldest first."""
    return sorted(self._manager.all_steps())

  def restore(self, like: Any, step: int | None = None) -> Any:
    """A checkpoint with the shapes, dtypes and placing of `like`.

    Args:
      like: what was saved, or a state of the same structure.
      step: which; None: the newest.
    """
    step = self.latest_step if step is None else step
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return self._manager.restore(step, args=ocp.args.StandardRestore(target))


@contextlib.contextmanager
def open_checkpoints(
  directory: pathlib.Path, keep_steps: Sequence[int] = ()
) -> Iterator[Checkpoints]:
  """The checkpoints under `directory`; leaving waits until all are on disk.

  Args:
    directory: made if missing.
    keep_steps: updates whose checkpoints are kept beside the newest two.
  """
  options = ocp.CheckpointManagerOptions(
    preservation_policy=checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(_KEEP),
        checkpoint_managers.CustomSteps(keep_steps),
      ]
    )
  )
  with ocp.CheckpointManager(directory.absolute(), options=options) as manager:
    yield Checkpoints(manager)
