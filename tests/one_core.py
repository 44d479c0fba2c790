"""Runs Python on one core: `python tests/one_core.py ARGUMENTS OF PYTHON`.

The number of cores that a program sees changes its sums.
"""

import os
import sys

if __name__ == '__main__':
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
