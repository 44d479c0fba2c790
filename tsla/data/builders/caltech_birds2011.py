"""Caltech-UCSD Birds-200-2011 (CUB) with TFDS's name, version and split."""

import tensorflow_datasets as tfds

from tsla.data.builders import BUILDERS, archive

_FOLDER = 'CUB_200_2011/'
_LISTS = ('images', 'image_class_labels', 'train_test_split', 'classes')


class CaltechBirds2011(archive.ArchiveBuilder, skip_registration=True):
  """11,788 photographs of 200 species of birds, 5,994 of them to train on.

  Each list of the archive has lines `ID VALUE`: an image's file, its class
  (from 1), whether it is a training image, a class's name. Of TFDS's features
  these are `image` and `label`; TFDS knows no names of the classes.

  Reference:
    Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001.
  """

  VERSION = tfds.core.Version(BUILDERS['caltech_birds2011'])
  CLASSES = 200
  ARCHIVES = (
    archive.Archive(
      url='https://data.caltech.edu/records/65de6-vp158/files/'
      'CUB_200_2011.tgz?download=1',
      size=1150585339,
      sha256='0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081',
    ),
  )
  HOMEPAGE = 'https://www.vision.caltech.edu/datasets/cub_200_2011/'

  def _split_generators(self, dl_manager: archive.Downloads) -> archive.Splits:
    path = self.fetch(self.ARCHIVES[0], dl_manager)
    names = [f'{_FOLDER}{name}.txt' for name in _LISTS]
    files = archive.read_members(path, names)
    lines = [files[name].decode().splitlines() for name in names]
    images, class_of, trained_on, classes = (
      dict(line.split() for line in each) for each in lines
    )
    numbers = sorted(classes, key=int)
    self.info.features['label'].names = [classes[k] for k in numbers]
    labels = {'train': {}, 'test': {}}
    for image, file in images.items():
      split = 'train' if trained_on[image] == '1' else 'test'
      labels[split][file] = numbers.index(class_of[image])
    return {
      split: self._generate_examples(path, _FOLDER + 'images/', labels[split])
      for split in labels
    }
