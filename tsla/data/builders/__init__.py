"""The project's own TFDS builders: they need no TensorFlow.

A new builder is a module here, with the set's name, and a line of `BUILDERS`.
"""

import importlib
from typing import NamedTuple


class Entry(NamedTuple):
  """What a module here builds, known without importing TFDS."""

  version: str  # of the set, as TFDS numbers it
  builder: str  # the module's subclass of `archive.ArchiveBuilder`


BUILDERS = {
  'caltech_birds2011': Entry('0.2.0', 'CaltechBirds2011'),
  'cifar100': Entry('3.0.2', 'Cifar100'),
  'digits': Entry('1.0.0', 'Digits'),
  'stanford_dogs': Entry('0.2.0', 'StanfordDogs'),
}


def builder_class(name: str) -> type:
  """Imports the builder of one of the project's own sets."""
  module = importlib.import_module(f'{__name__}.{name}')
  return getattr(module, BUILDERS[name].builder)
