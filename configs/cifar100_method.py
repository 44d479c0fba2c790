"""CIFAR-100: a successor of label smoothing, to the end of the run.

Row:      the method's of the cifar100-methods table
Command:  python main.py --config=configs/cifar100_method.py[:METHOD]
          METHOD is a key of bases.THETAS, default max_suppression; with
          class_similarity first --config=configs/cifar100_baseline.py
Hardware: one GPU, or a Cloud TPU VM
Hours:    not yet run
Expected: not yet run
Settings: unverified transcription, see bases.py

In two stages: --config.smoothing.schedule=two_stage
--config.smoothing.drop_epochs=160.
"""

import ml_collections

from configs import bases


def get_config(name: str | None = None) -> ml_collections.ConfigDict:
  """The experiment as a config; `name` is the method's."""
  config = bases.cifar100()
  if name == 'class_similarity':
    bases.taught_by(config, 'cifar100_baseline', bases.cifar100())
  return bases.method(config, name or 'max_suppression')
