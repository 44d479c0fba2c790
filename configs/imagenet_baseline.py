"""ImageNet: no label smoothing.

Row:      the usual recipe, arXiv:1706.02677
Command:  python main.py --config=configs/imagenet_baseline.py
Hardware: GPUs of 40 GB or more, or a Cloud TPU VM; 262 GB of disk
Hours:    not yet run
Expected: not yet run
Settings: see bases.py
"""

import ml_collections

from configs import bases


def get_config() -> ml_collections.ConfigDict:
  """The experiment as a config."""
  return bases.imagenet()
