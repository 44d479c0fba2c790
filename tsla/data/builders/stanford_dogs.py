"""Stanford Dogs with TFDS's name, version, classes and split."""

import io

import numpy as np
import tensorflow_datasets as tfds
from scipy.io import loadmat

from tsla.data.builders import BUILDERS, archive

_HOST = 'http://vision.stanford.edu/aditya86/ImageNetDogs/'
_LISTS = {'train': 'train_list.mat', 'test': 'test_list.mat'}


class StanfordDogs(archive.ArchiveBuilder, skip_registration=True):
  """20,580 photographs of 120 breeds of dogs, 12,000 of them to train on.

  The lists of the split name an image FOLDER/FILE.jpg. A class is a folder in
  lower case, such as n02085620-chihuahua. Of TFDS's features these are `image`
  and `label`.

  Reference:
    Khosla et al., Novel Dataset for Fine-Grained Image Categorization, 2011.
  """

  VERSION = tfds.core.Version(BUILDERS['stanford_dogs'])
  CLASSES = 120
  ARCHIVES = (
    archive.Archive(
      url=_HOST + 'images.tar',
      size=793579520,
      sha256='a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58',
    ),
    archive.Archive(
      url=_HOST + 'lists.tar',
      size=481280,
      sha256='34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c',
    ),
  )
  HOMEPAGE = _HOST + 'main.html'

  def _split_generators(self, dl_manager: archive.Downloads) -> archive.Splits:
    images, lists = (self.fetch(item, dl_manager) for item in self.ARCHIVES)
    files = archive.read_members(lists, _LISTS.values())
    labels = {}
    for split, file in _LISTS.items():
      content = loadmat(io.BytesIO(files[file]), squeeze_me=True)
      names = np.atleast_1d(content['file_list']).tolist()
      labels[split] = {name: name.split('/')[0].lower() for name in names}
    self.info.features['label'].names = sorted(set(labels['train'].values()))
    return {
      split: self._generate_examples(images, 'Images/', labels[split])
      for split in _LISTS
    }
