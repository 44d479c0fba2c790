"""Images of your own: TSLA(s), label smoothing dropped at epoch s.

Row:      "TSLA(s)", default s = 40 of 60; no published table has your set
Command:  python main.py --config=configs/own_tsla.py[:s]
            --config.data.path=DIR | FILE.csv | FILE.npz
          or --config.data.name=NAME of a prepared set
Weights:  --config.model.weights=FILE starts from ImageNet's; docs/own-data.md
Hardware: what your images ask for
Hours:    as they ask for
Expected: not yet run
Settings: what `from_data` names follows from the images; see bases.py
"""

import ml_collections

from configs import bases


def get_config(drop_epoch: str | None = None) -> ml_collections.ConfigDict:
  """The experiment as a config; `drop_epoch` is the s of TSLA(s)."""
  return bases.tsla(bases.own(), 0.1, drop_epoch, default=40)
