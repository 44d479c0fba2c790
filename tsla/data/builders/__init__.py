"""The project's own TFDS builders: they need no TensorFlow.

A new builder is a module here, with the set's name, and a line of `BUILDERS`.
"""

import importlib

# The sets' versions, as TFDS numbers them.
BUILDERS = {
  'caltech_birds2011': '0.2.0',
  'cifar100': '3.0.2',
  'digits': '1.0.0',
  'stanford_dogs': '0.2.0',
}


def builder_class(name: str) -> type:
  """Imports the builder of one of the project's own sets."""
  module = importlib.import_module(f'{__name__}.{name}')
  # TFDS, too, takes a set's name from the name of its class.
  return getattr(module, name.title().replace('_', ''))
