"""Says how a run stands, reads all its checkpoints back and which are whole.

Exit codes: 0 all are whole, 1 one is damaged, 2 there are none.
"""

import pathlib

from tsla.commands.parser import Parser, command
from tsla.errors import InputError
from tsla.runs.checkpoint import Checkpoints
from tsla.runs.directory import read_record
from tsla.runs.manifest import Damaged


@command
def main(parser: Parser) -> int:
  """Runs the command line; returns the exit code."""
  parser.add_argument('workdir', type=pathlib.Path, help="the run's directory")
  run = read_record(parser.parse_args().workdir)
  folder = run.checkpoints
  damaged = False
  with Checkpoints(folder) as checkpoints:
    if not checkpoints.steps:
      raise InputError(f'{folder}: no checkpoints')
    print('run {} ({})'.format(*run.standing()).removesuffix(' ()'))
    for step in checkpoints.steps:
      try:
        what = f'whole: {len(checkpoints.confirm(step).arrays)} arrays'
      except Damaged as error:
        damaged, what = True, f'damaged: {error.why}'
      print(f'update {step:>9,}  {what}')
  return int(damaged)
