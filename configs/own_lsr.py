"""Images of your own: label smoothing (LSR) to the end.

Row:      "LSR"; no published table has your set
Command:  python main.py --config=configs/own_lsr.py
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


def get_config() -> ml_collections.ConfigDict:
  """The experiment as a config."""
  return bases.lsr(bases.own(), theta=0.1)
