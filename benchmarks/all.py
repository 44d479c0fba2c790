"""Every benchmark that the goals name, one after the other, on this device.

python benchmarks/all.py             # a GPU: about half an hour
python benchmarks/all.py --size=tiny # a check that all of them run
"""

import argparse
import pathlib
import subprocess
import sys

_HERE = pathlib.Path(__file__).resolve().parent

GPU = (
  'roofline.py --size=cifar --batch=256',
  'roofline.py --size=224',
  'compare.py --size=cifar --batch=128',
  'compare.py --size=cifar --batch=256',
  'compare.py --size=224 --forms=eager,compile',
  'step.py --size=cifar --batch=256',
  'probe.py --size=cifar --batch=256',
  'loss.py --batch=4096 --classes=32768 --dtype=bfloat16',
  'startup.py --size=cifar --batch=128',
  'sweep_time.py --size=cifar --batch=128 --epochs=200',
  'sweep_time.py --size=224 --epochs=90 --test-examples=8580',
)
TINY = tuple(
  f'{script} --size=tiny'
  for script in (
    'roofline.py',
    'epoch.py',
    'compare.py',
    'step.py',
    'probe.py',
    'loss.py',
    'startup.py',
    'sweep_time.py',
  )
)


def main() -> None:
  """Runs the list; one that fails is named at the end, the others run."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--size', choices=('gpu', 'tiny'), default='gpu')
  parser.add_argument('--torch-python', default=sys.executable)
  args = parser.parse_args()
  failed = []
  for command in TINY if args.size == 'tiny' else GPU:
    print(f'— {command}', flush=True)
    script, *options = command.split()
    if script == 'compare.py':
      options.append(f'--torch-python={args.torch_python}')
    done = subprocess.run([sys.executable, str(_HERE / script), *options])
    if done.returncode:
      failed.append(command)
  if failed:
    raise SystemExit('failed: ' + '; '.join(failed))


if __name__ == '__main__':
  main()
