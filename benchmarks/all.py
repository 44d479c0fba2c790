"""Every benchmark that the goals name, one after the other, on this device.

python benchmarks/all.py             # a GPU, about half an hour; or a CPU
python benchmarks/all.py --size=tiny # a check that all of them run
"""

import argparse
import pathlib
import subprocess
import sys

from compare import device_name

_HERE = pathlib.Path(__file__).resolve().parent

GPU = (
  'roofline.py --size=cifar --batch=256',
  'roofline.py --size=224',
  'compare.py --size=cifar --batch=128',
  'compare.py --size=cifar --batch=256',
  'compare.py --size=224 --forms=eager,compile',
  'step.py --size=cifar --batch=256',
  'norm.py --size=cifar --batch=256',
  'norm.py --size=224',
  'probe.py --size=cifar --batch=256',
  'loss.py --batch=4096 --classes=32768 --dtype=bfloat16',
  'augment.py --size=224',
  'feed.py --size=imagenet --device-memory=16000000000',
  'startup.py --size=cifar --batch=128',
  'sweep_time.py --size=cifar --batch=128 --epochs=200',
  'scale.py --size=cifar --epochs=50',
  'sweep_time.py --size=224 --epochs=90 --test-examples=8580',
)
_CPU_CIFAR = '--size=cifar --dtype=float32 --examples=2000'
CPU = (
  f'compare.py {_CPU_CIFAR} --batch=64 --steps=2 --rounds=3 --forms=eager '
  '--cpus=1',
  f'compare.py {_CPU_CIFAR} --batch=128 --steps=1 --rounds=3 --forms=eager '
  '--cpus=1',
  'compare.py --size=digits --forms=eager --cpus=2',
  'convolutions.py --batch=32',
  f'epoch.py {_CPU_CIFAR} --batch=64 --steps=8 --rounds=2',
  'feed.py --size=feed --dtype=float32',
  'augment.py --size=224 --batch=64 --dtype=float32',
  'step.py --size=digits',
  f'norm.py {_CPU_CIFAR} --batch=64 --steps=1',
  f'norm.py {_CPU_CIFAR} --batch=128 --steps=1',
  'probe.py --size=digits',
  'loss.py --batch=512 --classes=32768 --dtype=bfloat16',
  'loss.py --batch=512 --classes=32768 --dtype=float32',
  'startup.py --size=digits',
  'sweep_time.py --size=digits --epochs=30 --test-examples=360',
  'scale.py --size=digits',
)
TINY = tuple(
  f'{script} --size=tiny'
  for script in (
    'roofline.py',
    'epoch.py',
    'feed.py',
    'augment.py',
    'compare.py',
    'convolutions.py',
    'step.py',
    'probe.py',
    'norm.py',
    'loss.py',
    'startup.py',
    'sweep_time.py',
    'scale.py',
  )
)

LISTS = {'gpu': GPU, 'cpu': CPU, 'tiny': TINY}


def main() -> None:
  """Runs the list; one that fails is named at the end, the others run."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--size', choices=LISTS, help='default: this machine')
  parser.add_argument('--torch-python', default=sys.executable)
  args = parser.parse_args()
  size = args.size or ('cpu' if '(cpu)' in device_name() else 'gpu')
  failed = []
  for command in LISTS[size]:
    print(f'— {command}', flush=True)
    script, *options = command.split()
    if script in ('compare.py', 'convolutions.py'):
      options.append(f'--torch-python={args.torch_python}')
    done = subprocess.run([sys.executable, str(_HERE / script), *options])
    if done.returncode:
      failed.append(command)
  if failed:
    raise SystemExit('failed: ' + '; '.join(failed))


if __name__ == '__main__':
  main()
