"""CUB-2011: no label smoothing.

Row:      "baseline" of CUB-2011 table, arXiv:2006.11653
Command:  python main.py --config=configs/cub2011_baseline.py
Hardware: one GPU, or a Cloud TPU VM
Hours:    not yet run
Expected: not yet run
Settings: unverified transcription, see bases.py
"""

import ml_collections

from configs import bases


def get_config() -> ml_collections.ConfigDict:
  """The experiment as a config."""
  return bases.fine_grained('caltech_birds2011')
