"""CIFAR-100: TSLA(s) towards the baseline network's predictions.

Row:      "TSLA-pre(s)", default s = 160 of CIFAR-100 table, arXiv:2006.11653
Command:  python main.py --config=configs/cifar100_baseline.py
          python main.py --config=configs/cifar100_tsla_pre.py[:s]
Hardware: one GPU, or a Cloud TPU VM
Hours:    not yet run
Expected: not yet run
Settings: unverified transcription, see bases.py
"""

import ml_collections

from configs import bases


def get_config(drop_epoch: str | None = None) -> ml_collections.ConfigDict:
  """The experiment as a config; `drop_epoch` is the s of TSLA(s)."""
  config = bases.tsla(bases.cifar100(), 0.1, drop_epoch, default=160)
  return bases.taught_by(config, 'cifar100_baseline', bases.cifar100())
