"""What a run's network predicted of each image of a split, on the disk.

`SPLIT.npz` holds plain arrays, an image a row: `ids` (places in the split),
`labels` and `logits`; above 1,000 classes for these the `Scores` by their
names, as trained, and as `calibrated_NAME` with the run's temperature.
`manifest.json` is as a checkpoint's.
"""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from tsla import files
from tsla.data import npz
from tsla.evaluation import calibration
from tsla.evaluation.calibration import Scores
from tsla.runs import manifest, retention

MOST_LOGITS = 1000  # of an image
Predictions = Mapping[str, np.ndarray]

_SCORES = [
  f'{way}{name}' for way in ('', 'calibrated_') for name in Scores._fields
]


def scores(predicted: Predictions, temperature: float = 1.0) -> Scores:
  """Of each image; another temperature than 1 is that of the run."""
  if 'logits' in predicted:
    logits, labels = predicted['logits'], predicted['labels']
    return calibration.scores(logits, labels, temperature)
  way = '' if temperature == 1 else 'calibrated_'
  return Scores(*(predicted[way + name] for name in Scores._fields))


def write(
  folder: pathlib.Path,
  splits: Mapping[str, Predictions],
  temperature: float,
  run: dict[str, Any],
) -> None:
  """Writes all splits of a run or none; `run` is as of `Manifest`."""
  partial = folder.with_name(f'{folder.name}.partial')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir()
  arrays = {}
  for split, predicted in splits.items():
    own = {**predicted}
    if predicted['logits'].shape[1] > MOST_LOGITS:
      del own['logits']
      values = (*scores(predicted), *scores(predicted, temperature))
      own |= zip(_SCORES, values, strict=True)
    np.savez(partial / f'{split}.npz', **own)
    arrays |= {f'{split}/{name}': array for name, array in own.items()}
  manifest.write(partial, manifest.digests(arrays), run)
  retention.remove(folder)
  partial.rename(folder)
  files.sync(folder.parent)


def read(folder: pathlib.Path, split: str, step: int) -> Predictions | None:
  """Those after update `step`, None if they are not kept; raises Damaged."""
  path = folder / f'{split}.npz'
  if not folder.exists():
    return None
  saved = manifest.read(folder)
  if saved.run.get('step') != step or path.name not in saved.files:
    return None
  saved.check_files()
  return npz.read_arrays(path, ['ids', 'labels', 'logits', *_SCORES], str(path))
