"""`results/*.jsonl` → the README's table, the newest line of each setting.

The README holds the two markers; what stands between them is replaced.

  python benchmarks/table.py
"""

import json
import pathlib
import sys
from typing import Any

import common

BEGIN, END = '<!-- benchmarks -->', '<!-- /benchmarks -->'


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
    return ' and '.join(map(in_words, value))
  return f'{value:,g}' if isinstance(value, int | float) else str(value)


def table(lines: list[dict[str, Any]]) -> str:
  """One row a figure."""
  rows = ['| device | setting | benchmark | figure |', '|---|---|---|---|']
  for line in lines:
    setting = f'{line["size"]}, {line["dtype"]}, batch {line["batch"]}'
    start = f'| {line["device"]} | {setting} | {line["benchmark"]} '
    for name, value in line['figures'].items():
      rows.append(f'{start}| {name.replace("_", " ")}: {in_words(value)} |')
  return '\n'.join(rows)


def main() -> None:
  """Replaces what stands between the markers."""
  readme = common.ROOT / 'README.md'
  text = readme.read_text()
  if not 0 <= text.find(BEGIN) < text.find(END):
    sys.exit(f'{readme}: no {BEGIN} … {END}')
  before, after = text.split(BEGIN)[0], text.split(END)[1]
  middle = f'{BEGIN}\n{table(newest(common.RESULTS))}\n{END}'
  readme.write_text(before + middle + after)


if __name__ == '__main__':
  main()
