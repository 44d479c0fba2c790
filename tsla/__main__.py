"""`tsla COMMAND`: one door to every tool but training's main.py."""

import difflib
import importlib
import os
import sys

from tsla.commands.parser import Parser, command
from tsla.errors import InputError

# A module of `tsla.commands` each, with _ for -, imported when it is asked for.
COMMANDS = {
  'sweep': 'train a whole table, with a report',
  'advise': 'whether to smooth on your data, how strongly, until when',
  'report': 'report.html and report.md of finished runs',
  'evaluate': 'what a finished run is worth on a split, or on another set',
  'predict': 'the classes of images, by a finished run',
  'export': "a finished run as torchvision's weights, or as a program",
  'prepare': 'fetch and build a data set',
  'weights': "convert torchvision's or timm's weights to .safetensors",
  'check': "read a run's checkpoints back and say which are whole",
  'check-method': 'try a smoothing method before it trains a network',
  'theory': 'the steps that are proved for SGD, LSR and TSLA',
  'idx': 'make an .npz set of four files in the form of MNIST',
}


@command
def main(parser: Parser) -> int:
  """Runs the command that comes first; returns its exit code."""
  name, *rest = parser.argv or ['--help']
  if name in ('-h', '--help'):
    print('tsla COMMAND, or python -m tsla COMMAND:\n')
    print(*(f'  {known:<14}{COMMANDS[known]}' for known in COMMANDS), sep='\n')
    print('\n`tsla COMMAND --help` says more; training: python main.py --help')
    print("All need the training requirements: pip install 'tsla[train]'")
    return 0
  if name not in COMMANDS:
    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    problem, allowed = f'{name!r}: no such command', ', '.join(COMMANDS)
    cure = f'python -m tsla {(near or ["--help"])[0]}'
    raise InputError(problem, allowed=allowed, cure=cure)
  # As `python -m` does: a table's file imports from the folder it is run in.
  if not {'', os.getcwd()} & set(sys.path):
    sys.path.insert(0, os.getcwd())
  module = name.replace('-', '_')
  try:
    return importlib.import_module(f'tsla.commands.{module}').main(rest)
  except ModuleNotFoundError as error:
    missing = (error.name or 'tsla').split('.')[0]
    if missing in {'tsla', *sys.stdlib_module_names}:
      raise  # not a requirement, so a mistake of this package
    problem = f'{name!r} needs {missing}, which is not installed'
    allowed = 'tsla with the requirements of training'
    cure = "pip install 'tsla[train]', or pip install -r requirements.txt"
    raise InputError(problem, allowed=allowed, cure=cure) from error


if __name__ == '__main__':
  sys.exit(main())
