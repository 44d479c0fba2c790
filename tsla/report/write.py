"""Writes `report.md` and `report.html` of tables of runs.

The page opens offline and holds all it needs; the same directories give the
same bytes.
"""

import pathlib
from collections.abc import Sequence

from tsla.errors import InputError
from tsla.pages.blocks import Block, HeadingBlock
from tsla.pages.render import render_html, render_markdown
from tsla.report import sections
from tsla.report.results import Results, read_results


def write_report(
  workdirs: Sequence[pathlib.Path], out: pathlib.Path
) -> tuple[pathlib.Path, pathlib.Path]:
  """Writes the report of some directories into `out`; returns its two files.

  Raises:
    InputError: a directory cannot be used, or `out` cannot be written.
  """
  blocks = contents(read_results(workdirs))
  markdown, page = out / 'report.md', out / 'report.html'
  texts = render_markdown(blocks, page.name), render_html(blocks)
  try:
    out.mkdir(parents=True, exist_ok=True)
    for path, text in zip((markdown, page), texts, strict=True):
      path.write_text(text, encoding='utf-8')
  except OSError as error:
    raise InputError(
      f'--out={out}: {error}', allowed='a folder', cure='--out=DIR'
    ) from error
  return markdown, page


def contents(tables: Sequence[Results]) -> list[Block]:
  """The report's blocks; one table needs no chapters."""
  blocks = [HeadingBlock(', '.join(table.title for table in tables), 1)]
  for table in tables:
    if len(tables) > 1:
      blocks.append(HeadingBlock(table.title, 2))
    blocks += sections.of_results(table, 2 if len(tables) == 1 else 3)
  return blocks
