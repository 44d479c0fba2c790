"""Images of your own: no smoothing.

Row:      "baseline"; no published table has your set
Command:  python main.py --config=configs/own_baseline.py
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
  return bases.own()
