"""The project's own TFDS builders: they need no TensorFlow.

A new builder is a module of this package and one line of `BUILDERS`.
"""

import importlib

# Paths, not classes: TFDS is imported only by who builds a set.
BUILDERS = {
  'cifar100': 'tsla.data.builders.cifar100:Cifar100',
  'digits': 'tsla.data.builders.digits:Digits',
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
  module, cls = BUILDERS[name].split(':')
  return getattr(importlib.import_module(module), cls)
