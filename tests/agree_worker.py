"""main.py, for one of several processes; 'old' is of another version."""

import sys

import main as training
import tsla

if __name__ == '__main__':
  version, *arguments = sys.argv[1:]
  if version == 'old':
    tsla.__version__ = '0.0'
  sys.exit(training.main(['main.py', *arguments]))
