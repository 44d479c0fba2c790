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


def kept(
  steps: Collection[int],
  keep_steps: Collection[int],
  scores: Mapping[int, float],
) -> set[int]:
  """Those of `steps` that stay: the newest two, the best, `keep_steps`.

  Of equal `scores` the first is the best, as it took the fewest updates.
  """
  steps = sorted(steps)
  keep = {*steps[-_NEWEST:], *(set(steps) & set(keep_steps))}
  if rated := [step for step in steps if step in scores]:
    keep.add(max(rated, key=scores.__getitem__))
  return keep


def tidy(
  directory: pathlib.Path,
  keep_steps: Collection[int],
  scores: Mapping[int, float],
  damaged: Collection[int],
) -> None:
  """Deletes the checkpoints that do not stay, and what kills left behind."""
  steps = set(saved_steps(directory)) - set(damaged)
  stay = kept(steps, keep_steps, scores)
  for step in saved_steps(directory):
    if step not in stay:
      remove(directory / str(step))
  clear(directory)


def clear(directory: pathlib.Path) -> None:
  """Deletes what kills left behind: `STEP.old`, `STEP.partial`."""
  for path in list(directory.glob('[0-9]*.*')):
    shutil.rmtree(path)


def remove(folder: pathlib.Path) -> None:
  """Deletes a folder; a kill in between leaves no half checkpoint."""
  if not folder.exists():
    return
  if folder.name.isdecimal():
    old = folder.with_name(folder.name + '.old')
    remove(old)
    folder = folder.rename(old)
  shutil.rmtree(folder)
