"""Whether cost grows as the work: ten times the data, ten times the epochs.

`data` is an epoch over ten times the examples against ten epochs over them
once: as many updates, in turn. `epochs` is the last tenth of a long run against
its second tenth; `memory` the process's at its end against that after a tenth.

  python benchmarks/scale.py --size=digits --epochs=300
"""

import argparse
import pathlib

import common
import ours


def resident() -> int:
  """Bytes of memory that this process holds."""
  pages = pathlib.Path('/proc/self/statm').read_text().split()[1]
  return int(pages) * 4096


def main() -> None:
  """Measures both, records ratios whose goal is 1."""
  args = common.parse(common.arguments(__doc__, epochs=300))
  if args.size == 'tiny':
    args.epochs = 20
  ten = argparse.Namespace(**vars(args) | {'examples': 10 * args.examples})
  # Full batches only: the ten epochs must hold as many as the one.
  ten.examples = 10 * (args.examples // args.batch) * args.batch
  one_path, ten_path = ours.Ours(args), ours.Ours(ten)
  seconds = common.in_turn(
    {
      'ten_epochs': lambda: [one_path.epoch() for _ in range(10)],
      'ten_times_the_data': ten_path.epoch,
    },
    args.rounds,
  )
  tenth, held = args.epochs // 10, []
  contenders = {'epoch': one_path.epoch}
  times = common.in_turn(contenders, tenth)['epoch']
  held.append(resident())
  times += common.in_turn(contenders, args.epochs - tenth)['epoch']
  held.append(resident())
  figures = {
    'data': common.ratio(seconds['ten_times_the_data'], seconds['ten_epochs']),
    'epochs': common.ratio(times[-tenth:], times[tenth : 2 * tenth]),
    'memory': round(held[1] / held[0], 4),
    'memory_megabytes': round(held[1] / 1e6),
  }
  common.record('scale', args, one_path.device, figures)


if __name__ == '__main__':
  main()
