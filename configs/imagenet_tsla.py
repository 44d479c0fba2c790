"""ImageNet: TSLA(s), label smoothing dropped at epoch s.

Row:      TSLA(s), default s = 60; no table of arXiv:2006.11653 has it
Command:  python main.py --config=configs/imagenet_tsla.py[:s]
Hardware: GPUs of 40 GB or more, or a Cloud TPU VM; 262 GB of disk
Hours:    not yet run
Expected: not yet run
Settings: see bases.py
"""

import ml_collections

from configs import bases


def get_config(drop_epoch: str | None = None) -> ml_collections.ConfigDict:
  """The experiment as a config; `drop_epoch` is the s of TSLA(s)."""
  return bases.tsla(bases.imagenet(), 0.1, drop_epoch, default=60)
