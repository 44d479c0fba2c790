"""The paper's tables: unverified transcription.

Every figure below was written down without the paper at hand. Compare them with
Xu, Xu, Qian, Li, Jin: Towards Understanding Label Smoothing, arXiv:2006.11653;
where one is wrong, this file is the only place to mend. Until somebody has
done so, whatever shows a figure says `LABEL` beside it.
"""

from typing import NamedTuple

LABEL = 'unverified transcription'
SOURCE = 'Xu et al., arXiv:2006.11653'


class Published(NamedTuple):
  """Test accuracies of a method in percent, mean and deviation over 5 seeds."""

  top1: float
  top1_std: float
  top5: float
  top5_std: float


# By the name of the table, then by that of the row. ResNet-18 in all of them.
TABLES: dict[str, dict[str, Published]] = {
  'cifar100': {
    'baseline': Published(76.87, 0.04, 93.47, 0.15),
    'LSR': Published(77.77, 0.18, 93.55, 0.11),
    'TSLA(120)': Published(77.92, 0.21, 94.13, 0.23),
    'TSLA(140)': Published(77.93, 0.19, 94.11, 0.22),
    'TSLA(160)': Published(77.96, 0.20, 94.19, 0.21),
    'TSLA(180)': Published(78.04, 0.27, 94.23, 0.15),
    'LSR-pre': Published(78.07, 0.31, 94.70, 0.14),
    'TSLA-pre(120)': Published(78.34, 0.31, 94.68, 0.14),
    'TSLA-pre(140)': Published(78.39, 0.25, 94.73, 0.11),
    'TSLA-pre(160)': Published(78.55, 0.28, 94.83, 0.08),
    'TSLA-pre(180)': Published(78.53, 0.23, 94.96, 0.23),
  },
  'stanford_dogs': {
    'baseline': Published(82.31, 0.18, 97.76, 0.06),
    'LSR': Published(82.80, 0.07, 97.41, 0.09),
    'TSLA(20)': Published(83.15, 0.02, 97.91, 0.08),
    'TSLA(30)': Published(83.89, 0.16, 98.05, 0.08),
    'TSLA(40)': Published(83.93, 0.13, 98.03, 0.05),
    'TSLA(50)': Published(83.91, 0.15, 98.07, 0.06),
    'TSLA(60)': Published(83.51, 0.11, 97.99, 0.06),
    'TSLA(70)': Published(83.38, 0.09, 97.90, 0.09),
    'TSLA(80)': Published(83.14, 0.09, 97.73, 0.07),
  },
  'cub2011': {
    'baseline': Published(75.31, 0.25, 93.14, 0.31),
    'LSR': Published(76.97, 0.19, 92.73, 0.12),
    'TSLA(20)': Published(76.62, 0.15, 93.60, 0.18),
    'TSLA(30)': Published(77.44, 0.19, 93.92, 0.16),
    'TSLA(40)': Published(77.50, 0.20, 93.99, 0.11),
    'TSLA(50)': Published(77.57, 0.21, 93.86, 0.14),
    'TSLA(60)': Published(77.25, 0.29, 94.43, 0.18),
    'TSLA(70)': Published(77.21, 0.15, 93.31, 0.12),
    'TSLA(80)': Published(77.05, 0.14, 93.05, 0.08),
  },
}
