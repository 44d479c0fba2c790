"""A folder of your own images: TSLA(s), smoothing dropped at epoch s.

Row:      "TSLA(s)", default s = 50; no published table has your set
Command:  python main.py --config=configs/folder_tsla.py[:s]
            --config.data.path=DIR, with images in DIR/{train,test}/CLASS
Weights:  --config.model.weights=FILE starts from ImageNet's; see the README
Hardware: one GPU, or a Cloud TPU VM
Hours:    not yet run
Expected: not yet run
Settings: those of the fine-grained sets, see bases.py
"""

import ml_collections

from configs import bases


def get_config(drop_epoch: str | None = None) -> ml_collections.ConfigDict:
  """The experiment as a config; `drop_epoch` is the s of TSLA(s)."""
  config = bases.fine_grained('folder')
  config.model.weights = ''
  return bases.tsla(config, 0.4, drop_epoch, default=50)
