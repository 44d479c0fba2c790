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

    Raises:
      ValueError: it is of another network.
    """
    step = self.latest_step if step is None else step
    # Orbax would notice too, but leave half-done reads behind.
    saved = self._manager.item_metadata(step).tree
    for part in ('params', 'batch_stats'):
      there, here = _shapes(saved[part]), _shapes(getattr(like, part))
      for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
          raise ValueError(
            f'{part}{name} is {there.get(name, "missing")} there and '
            f'{here.get(name, "missing")} here'
          )
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return self._manager.restore(step, args=ocp.args.StandardRestore(target))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


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
  with ocp.CheckpointManager(
    directory.absolute(),
    options=options,
    item_handlers=ocp.StandardCheckpointHandler(),
  ) as manager:
    yield Checkpoints(manager)
