"""The tables and figures of a page as files: CSV, LaTeX, SVG, PDF."""

import csv
import io
import itertools
import pathlib
import re
from collections.abc import Iterable

from tsla.files import write_whole
from tsla.pages.blocks import Block, FigureBlock, TableBlock

# Numbers of a cell, and what each is called in CSV; the last one is its note.
_NUMBERS = re.compile(r'([+-]?[\d.,]+)(?: ± ([\d.]+))?(?: \[(.+), (.+)\])?')
_PART = re.compile(r'(table|figure)-\d+\.(csv|tex|svg|pdf|png)')
_NAMES = ('', ' ±', ' from', ' to', ' note')
_LATEX = str.maketrans(
  {character: f'\\{character}' for character in '&%$#_{}'}
  | {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '[': '{[}'}
  | {'^': r'\textasciicircum{}', '−': '$-$', '<': '$<$', '>': '$>$'}
  | {'θ': r'$\theta$', 'δ': r'$\delta$', 'σ': r'$\sigma$'}
)


def write_parts(folder: pathlib.Path, page: Iterable[Block]) -> None:
  """Writes `table-1.csv` and so on, numbered as on the page; older ones go."""
  folder.mkdir(parents=True, exist_ok=True)
  tables, figures, new = itertools.count(1), itertools.count(1), set()
  for block in page:
    if isinstance(block, TableBlock):
      path = folder / f'table-{next(tables)}'
      parts = ('csv', _csv(block).encode()), ('tex', _latex(block).encode())
    elif isinstance(block, FigureBlock):
      path, picture = folder / f'figure-{next(figures)}', block.picture
      parts = picture.files or (('png', picture.png),)
    else:
      continue
    for suffix, content in parts:
      new.add(file := path.with_suffix(f'.{suffix}'))
      write_whole(file, content)
  for old in folder.iterdir():
    if _PART.fullmatch(old.name) and old not in new:
      old.unlink()


def _csv(table: TableBlock) -> str:
  """A number a cell: deviations, ends and notes have columns of their own."""
  header, rows = [cell.text for cell, _ in table.cells(table.header)], []
  for row in table.rows:
    values = {}
    for place, (cell, _) in enumerate(table.cells(row)):
      text = cell.text.replace('−', '-')
      if found := _NUMBERS.fullmatch(text):
        parts = [n.replace(',', '') for n in found.groups('')]
      else:
        parts = [text.strip('–'), '', '', '']
      values |= {(place, n): p for n, p in enumerate([*parts, cell.note]) if p}
    rows.append(values)
  columns = sorted({(n, 0) for n in range(len(header))}.union(*rows))
  names = [header[place] + _NAMES[n] for place, n in columns]
  lines = [[row.get(column, '') for column in columns] for row in rows]
  file = io.StringIO()
  csv.writer(file, lineterminator='\n').writerows([names, *lines])
  return file.getvalue()


def _latex(table: TableBlock) -> str:
  """A table for the package booktabs."""
  lines = []
  for row in (table.header, *table.rows):
    texts = []
    for cell, _ in table.cells(row):
      text, note = (x.translate(_LATEX) for x in (cell.text, cell.note))
      text = rf'\textbf{{{text}}}' if cell.best else text
      texts.append(text + rf' {{\scriptsize {note}}}' * bool(note))
    lines.append(' & '.join(texts) + r' \\')
  sides = ''.join(side for _, side in table.cells(table.header))
  return (
    '% \\usepackage{booktabs}\n\\begin{table}\n'
    f'\\caption{{{table.caption.translate(_LATEX)}}}\n'
    f'\\begin{{tabular}}{{{sides}}}\n\\toprule\n{lines[0]}\n\\midrule\n'
    + '\n'.join(lines[1:])
    + '\n\\bottomrule\n\\end{tabular}\n\\end{table}\n'
  )
