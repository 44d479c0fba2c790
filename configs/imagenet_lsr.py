"""ImageNet: label smoothing (LSR) to the end.

Row:      theta = 0.1, as Szegedy et al., arXiv:1512.00567
Command:  python main.py --config=configs/imagenet_lsr.py
Hardware: GPUs of 40 GB or more, or a Cloud TPU VM; 262 GB of disk
Hours:    not yet run
Expected: not yet run
Settings: see bases.py
"""

import ml_collections

from configs import bases


def get_config() -> ml_collections.ConfigDict:
  """The experiment as a config."""
  return bases.lsr(bases.imagenet(), theta=0.1)
