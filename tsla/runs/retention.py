"""Which checkpoints stay on the disk, and how the others go."""

import pathlib
import shutil
from collections.abc import Collection, Mapping

_NEWEST = 2


def saved_steps(directory: pathlib.Path) -> list[int]:
  """The updates of the checkpoints in `directory`, oldest first."""
  if not directory.exists():
    return []
  names = (path.name for path in directory.iterdir())
  return sorted(int(name) for name in names if name.isdecimal())


def tidy(
  directory: pathlib.Path,
  keep_steps: Collection[int],
  scores: Mapping[int, float],
  damaged: Collection[int],
) -> None:
  """Leaves the newest two checkpoints, the best, and those of `keep_steps`.

  Of equal `scores` the first is the best, as it took the fewest updates. What
  is damaged goes, and what kills left behind.
  """
  steps = sorted(set(saved_steps(directory)) - set(damaged))
  stay = {*steps[-_NEWEST:], *(set(steps) & set(keep_steps))}
  if rated := [step for step in steps if step in scores]:
    stay.add(max(rated, key=scores.__getitem__))
  for step in saved_steps(directory):
    if step not in stay:
      remove(directory / str(step))
  clear(directory)


def clear(directory: pathlib.Path) -> None:
  """Deletes what kills left behind: `STEP.old`, `STEP.partial`."""
  for path in list(directory.glob('[0-9]*.*')):
    shutil.rmtree(path)


def remove(folder: pathlib.Path) -> None:
  """Deletes a checkpoint, if it is there; a kill leaves no half of it."""
  if folder.exists():
    old = folder.with_name(folder.name + '.old')
    if old.exists():
      shutil.rmtree(old)
    shutil.rmtree(folder.rename(old))
