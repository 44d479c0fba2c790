"""scikit-learn's handwritten digits: a set that needs no network."""

import numpy as np
import tensorflow_datasets as tfds
from sklearn import datasets

from tsla.data.builders import BUILDERS, archive


class Digits(archive.ArchiveBuilder, skip_registration=True):
  """1,797 grey images of 8×8 pixels in 10 classes, 1,437 of them to train on.

  The values 0 to 16 become round(255 · value / 16). Ordered by class, then as
  scikit-learn has them, every fifth image is a test image: that is stratified
  and needs no random generator.

  Reference:
    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
  """

  VERSION = tfds.core.Version(BUILDERS['digits'])
  SHAPE = (8, 8, 1)
  CLASSES = 10
  HOMEPAGE = 'https://archive.ics.uci.edu/dataset/80'

  def _split_generators(self, dl_manager: archive.Downloads) -> archive.Splits:
    digits = datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    examples = [
      (i, {'image': archive.png(image), 'label': int(digits.target[i])})
      for i, image in enumerate(images)
    ]
    by_class = np.argsort(digits.target, kind='stable')
    test = by_class[::5]
    parts = {'train': np.setdiff1d(by_class, test), 'test': test}
    return {s: (examples[i] for i in part) for s, part in parts.items()}
