"""Stanford Dogs: TSLA(s), label smoothing dropped at epoch s.

Row:      "TSLA(s)", default s = 40 of Stanford Dogs table, arXiv:2006.11653
Command:  python main.py --config=configs/stanford_dogs_tsla.py[:s]
Hardware: one GPU, or a Cloud TPU VM
Hours:    not yet run
Expected: not yet run
Settings: unverified transcription, see bases.py
"""

import ml_collections

from configs import bases


def get_config(drop_epoch: str | None = None) -> ml_collections.ConfigDict:
  """The experiment as a config; `drop_epoch` is the s of TSLA(s)."""
  return bases.tsla(
    bases.fine_grained('stanford_dogs'), 0.4, drop_epoch, default=40
  )
