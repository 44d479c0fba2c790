"""`python -m tsla check WORKDIR`: verifies all checkpoints of a run.

Exit codes: 0 all are whole, 1 one is damaged, 2 there are none.
"""

import pathlib
import sys
from collections.abc import Sequence

from tsla.errors import InputError
from tsla.runs import checkpoint, manifest
from tsla.runs.directory import RunRecord


def main(argv: Sequence[str]) -> int:
  """Runs the command line; returns the exit code."""
  if len(argv) != 1 or argv[0].startswith('-'):
    print(__doc__)
    return 0 if argv in (['-h'], ['--help']) else 2
  folder = RunRecord(pathlib.Path(argv[0])).checkpoints
  try:
    found = checkpoint.check(folder)
  except InputError as error:
    print(error, file=sys.stderr)
    return 2
  if not found:
    print(f'{folder}: no checkpoints', file=sys.stderr)
    return 2
  for step, saved in found.items():
    if isinstance(saved, manifest.Damaged):
      print(f'update {step:>9,}  damaged: {saved}')
    else:
      print(f'update {step:>9,}  whole: {len(saved.arrays)} arrays')
  return int(any(isinstance(s, manifest.Damaged) for s in found.values()))
