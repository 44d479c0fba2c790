"""`python -m tsla COMMAND`: one door to every tool but training's main.py."""

import importlib
import sys

COMMANDS = {
  'sweep': 'tsla.commands.sweep',
  'report': 'tsla.report.report',
  'prepare': 'tsla.data.prepare',
  'weights': 'tsla.models.pretrained',
  'check': 'tsla.commands.check',
  'theory': 'tsla.commands.theory',
  'idx': 'tsla.data.idx',
}


def main(argv: list[str]) -> int:
  """Runs a command."""
  return importlib.import_module(COMMANDS[argv[0]]).main(argv[1:])


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
