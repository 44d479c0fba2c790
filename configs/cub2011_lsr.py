"""CUB-2011: label smoothing (LSR) to the end.

Row:      "LSR" of CUB-2011 table, arXiv:2006.11653
Command:  python main.py --config=configs/cub2011_lsr.py
Hardware: one GPU, or a Cloud TPU VM
Hours:    not yet run
Expected: not yet run
Settings: unverified transcription, see bases.py
"""

import ml_collections

from configs import bases


def get_config() -> ml_collections.ConfigDict:
  """The experiment as a config."""
  return bases.lsr(bases.fine_grained('caltech_birds2011'), theta=0.4)
