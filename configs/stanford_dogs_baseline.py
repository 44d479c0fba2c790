"""Stanford Dogs: no label smoothing.

Row:      "baseline" of Stanford Dogs table, arXiv:2006.11653
Command:  python main.py --config=configs/stanford_dogs_baseline.py
Hardware: one GPU, or a Cloud TPU VM
Hours:    not yet run
Expected: not yet run
Settings: unverified transcription, see bases.py
"""

import ml_collections

from configs import bases


def get_config() -> ml_collections.ConfigDict:
  """The experiment as a config."""
  return bases.fine_grained('stanford_dogs')
