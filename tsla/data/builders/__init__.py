"""The project's own TFDS builders: they need no TensorFlow.

A new builder is a module of this package and one line of `BUILDERS`.
"""

import dataclasses
import importlib


@dataclasses.dataclass(frozen=True)
class Entry:
  """Where a builder is and what it builds, known without importing TFDS.

  Attributes:
    version: the set's version, as TFDS numbers it.
    path: MODULE:CLASS.
  """

  version: str
  path: str


BUILDERS = {
  'caltech_birds2011': Entry(
    '0.2.0', 'tsla.data.builders.caltech_birds2011:CaltechBirds2011'
  ),
  'cifar100': Entry('3.0.2', 'tsla.data.builders.cifar100:Cifar100'),
  'digits': Entry('1.0.0', 'tsla.data.builders.digits:Digits'),
  'stanford_dogs': Entry(
    '0.2.0', 'tsla.data.builders.stanford_dogs:StanfordDogs'
  ),
}


def builder_class(name: str) -> type:
  """Imports the builder of one of the project's own sets.

  Args:
    name: a key of `BUILDERS`.

  Returns:
    A subclass of `tsla.data.builders.archive.ArchiveBuilder`.

  Raises:
    KeyError: no builder has that name.

  Example:
    >>> builder_class('digits').VERSION
    Version('1.0.0')
  """
  module, cls = BUILDERS[name].path.split(':')
  return getattr(importlib.import_module(module), cls)
