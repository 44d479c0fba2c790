"""CIFAR-100: label smoothing towards the baseline network's predictions.

Row:      "LSR-pre" of CIFAR-100 table, arXiv:2006.11653
Command:  python main.py --config=configs/cifar100_baseline.py
          python main.py --config=configs/cifar100_lsr_pre.py
Hardware: one GPU, or a Cloud TPU VM
Hours:    not yet run
Expected: not yet run
Settings: unverified transcription, see bases.py
"""

import ml_collections

from configs import bases


def get_config() -> ml_collections.ConfigDict:
  """The experiment as a config."""
  config = bases.lsr(bases.cifar100(), theta=0.1)
  return bases.taught_by(config, 'cifar100_baseline', bases.cifar100())
