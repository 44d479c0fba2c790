"""TSLA beside its peers, in turn, in one call.

Each script holds its contenders in a process of its own; this one lets them
run one after the other, there and back: A B C, C B A, … It says nothing where
other processes keep the machine busy.

  python benchmarks/compare.py --size=cifar --batch=256
  python benchmarks/compare.py --size=cifar --dtype=float32 --batch=64 \
    --steps=2 --examples=2000 --forms=eager --cpus=1 \
    --torch-python=OTHER/bin/python
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import common

_HERE = pathlib.Path(__file__).resolve().parent


@contextlib.contextmanager
def contenders_of(
  script: str, args: argparse.Namespace, *more: str, python: str, cpus: int = 0
) -> Iterator[tuple[common.Contenders, dict[str, Any]]]:
  """Contenders of a script and what it says of itself, while inside."""
  command = [
    python,
    str(_HERE / script),
    '--serve',
    f'--size={args.size}',
    f'--batch={args.batch}',
    f'--steps={args.steps}',
    f'--examples={args.examples}',
    f'--dtype={args.dtype}',
    *more,
  ]
  # They share the device's memory, and the cores where one of them waits.
  env = os.environ | {
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    'OMP_WAIT_POLICY': 'passive',
  }
  if cpus:
    env['XLA_FLAGS'] = f'--xla_force_host_platform_device_count={cpus}'
  with subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
  ) as process:
    hello = process.stdout.readline()
    if not hello:
      raise SystemExit(f'{script}: ended before it was ready')

    def ask(name: str) -> None:
      process.stdin.write(name + '\n')
      process.stdin.flush()
      if not process.stdout.readline():
        raise SystemExit(f'{script}: ended while {name} ran')

    here = json.loads(hello)
    contenders = {
      name: lambda name=name: ask(name) for name in here['contenders']
    }
    yield contenders, here
    process.stdin.close()


def main() -> None:
  """Starts all, takes turns, records images per second and ratios."""
  parser = common.arguments(
    __doc__, forms='eager,compile,dataloader', torch_python=sys.executable
  )
  parser.add_argument(
    '--cpus', type=int, default=0, help='also on so many CPU devices'
  )
  parser.add_argument(
    '--max-busy', type=float, default=0.25, help='cores others may use'
  )
  args = common.parse(parser)
  busy = common.busy_cores()
  if busy > args.max_busy and args.size != 'tiny':
    raise SystemExit(
      f'{busy:.2f} cores are busy with something else\n'
      f'  allowed: {args.max_busy:g}\n'
      '  next: wait, or --max-busy=… for numbers that mean little'
    )
  python, peers, devices = sys.executable, {}, []
  with contextlib.ExitStack() as stack:

    def enter(*command: str, python: str = python, cpus: int = 0) -> dict:
      script, *more = command
      contenders, here = stack.enter_context(
        contenders_of(script, args, *more, python=python, cpus=cpus)
      )
      if script == 'peer_torch.py':
        peers['torch'] = here['versions']['torch']
      devices.append(here['device'])
      return contenders

    all_of_them = enter('epoch.py') | enter('peer_flax_loop.py')
    if args.cpus:
      other = enter('epoch.py', cpus=args.cpus)
      all_of_them[f'real_on_{args.cpus}'] = other['real']
    if args.forms:
      all_of_them |= enter(
        'peer_torch.py', f'--forms={args.forms}', python=args.torch_python
      )
    seconds = common.in_turn(all_of_them, args.rounds)
  images, figures = 2 * args.steps * args.batch, {}
  for name, times in seconds.items():
    speed = images / float(np.median(times))
    figures[name] = {'images_per_second': round(speed, 1)}
    if name != 'real':  # how many times as fast this project is
      figures[name] |= common.ratio(times, seconds['real'])
  figures['busy_cores'] = [round(busy, 2), round(common.busy_cores(), 2)]
  # The first is this project's; others may use fewer devices.
  common.record('compare', args, devices[0], figures, **peers)


def device_name() -> str:
  """The accelerator or the processor, asked in a process of its own."""
  code = (
    'import jax; d = jax.devices(); '
    "print(len(d), '×', d[0].device_kind, f'({d[0].platform})')"
  )
  result = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  return result.stdout.strip()


if __name__ == '__main__':
  main()
