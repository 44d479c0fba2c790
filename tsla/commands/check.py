"""Says how a run stands, reads all its checkpoints back and which are whole.

Exit codes: 0 all are whole, 1 one is damaged, 2 there are none.
"""

import pathlib
from collections.abc import Sequence

from tsla.commands.parser import Parser, command
from tsla.errors import InputError
from tsla.runs import checkpoint, manifest
from tsla.runs.directory import read_record


@command
def main(argv: Sequence[str]) -> int:
  """Runs the command line; returns the exit code."""
  parser = Parser('check', __doc__)
  parser.add_argument('workdir', type=pathlib.Path, help="the run's directory")
  run = read_record(parser.parse_args(argv).workdir)
  folder = run.checkpoints
  found = checkpoint.check(folder)
  if not found:
    raise InputError(f'{folder}: no checkpoints')
  print('run {} ({})'.format(*run.standing()).removesuffix(' ()'))
  damaged = False
  for step, saved in found.items():
    if isinstance(saved, manifest.Damaged):
      damaged, what = True, f'damaged: {saved.why}'
    else:
      what = f'whole: {len(saved.arrays)} arrays'
    print(f'update {step:>9,}  {what}')
  return int(damaged)
