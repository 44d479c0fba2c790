"""`results/*.jsonl` → the table of this folder's README, newest lines only.

python benchmarks/table.py
"""

import json
import pathlib
from typing import Any

import common

_HEAD = """# What was measured

The newest line of each benchmark and setting in `results/`, written by
`python benchmarks/table.py`; what a figure means is said by its script.
A ratio is a median over rounds in turn, with its 95 % bootstrap interval.

"""


def newest(folder: pathlib.Path) -> list[dict[str, Any]]:
  """The last line of each benchmark and setting, by name and setting."""
  lines = {}
  for path in sorted(folder.glob('*.jsonl')):
    for text in path.read_text().splitlines():
      line = json.loads(text)
      key = tuple(
        str(line[name])
        for name in ('device', 'size', 'dtype', 'batch', 'benchmark')
      )
      lines[key] = line
  return [lines[key] for key in sorted(lines)]


def in_words(value: Any) -> str:
  """A figure: a number, or several with their names."""
  if isinstance(value, dict):
    if 'ratio' in value:
      value = dict(value)
      low, high = value.pop('low'), value.pop('high')
      value['ratio'] = f'{value["ratio"]:.3g} ({low:.3g} to {high:.3g})'
    return ', '.join(
      f'{name.replace("_", " ")} {in_words(each)}'
      for name, each in value.items()
    )
  if isinstance(value, list):
    return ' '.join(map(in_words, value))
  return f'{value:,g}' if isinstance(value, int | float) else str(value)


def table(lines: list[dict[str, Any]]) -> str:
  """One row a benchmark and setting."""
  rows = [
    '| device | setting | benchmark | versions | figures |',
    '|' + 5 * '---|',
  ]
  for line in lines:
    setting = f'{line["size"]}, {line["dtype"]}, batch {line["batch"]}'
    versions = ', '.join(
      f'{name} {line["versions"][name]}'
      for name in ('python', 'jax', 'torch')
      if name in line['versions']
    )
    figures = '<br>'.join(
      f'{name.replace("_", " ")}: {in_words(value)}'
      for name, value in line['figures'].items()
    )
    rows.append(
      f'| {line["device"]}, {line["cores"]} cores | {setting} '
      f'| {line["benchmark"]} | {versions} | {figures} |'
    )
  return '\n'.join(rows) + '\n'


def main() -> None:
  """Writes the file anew."""
  text = _HEAD + table(newest(common.RESULTS))
  (common.RESULTS.parent / 'README.md').write_text(text)


if __name__ == '__main__':
  main()
