"""Writes what a table of runs shows: `report.md` and `report.html`.

  python -m tsla report WORKDIR… [--out=DIR]

WORKDIR is a sweep's, or that of a single run. The page opens offline and holds
all it needs; the same directories give the same bytes.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import jax

from tsla.errors import InputError
from tsla.pages import blocks as b
from tsla.pages import markdown, page
from tsla.report import sections
from tsla.report.results import Results, read_results


def write_report(
  workdirs: Sequence[pathlib.Path], out: pathlib.Path
) -> tuple[pathlib.Path, pathlib.Path]:
  """Reads directories and writes the report.

  Args:
    workdirs: as of `results.read_results`.
    out: the folder to write into; made if it is missing.

  Returns:
    The Markdown file and the HTML page.

  Raises:
    InputError: a directory cannot be used, or `out` cannot be written.
  """
  content = contents(read_results(workdirs))
  texts = {
    out / 'report.md': markdown.write(content),
    out / 'report.html': page.write(content),
  }
  try:
    out.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
      path.write_text(text, encoding='utf-8')
  except OSError as error:
    raise InputError(
      f'--out={out}: {error}', allowed='a folder', cure='--out=DIR'
    ) from error
  return tuple(texts)


def contents(tables: Sequence[Results]) -> list[b.Block]:
  """The report's blocks; one table needs no chapters."""
  if len(tables) == 1:
    return [b.Heading(tables[0].title, 1), *sections.of_table(tables[0], 2)]
  content: list[b.Block] = [
    b.Heading(', '.join(table.title for table in tables), 1)
  ]
  for table in tables:
    content += [b.Heading(table.title, 2), *sections.of_table(table, 3)]
  return content


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit status, 2 for bad input."""
  parser = argparse.ArgumentParser(
    prog='python -m tsla report',
    description='Write report.md and report.html of finished runs.',
  )
  parser.add_argument(
    'workdir', nargs='+', type=pathlib.Path, help="a sweep's, or a run's"
  )
  parser.add_argument(
    '--out',
    type=pathlib.Path,
    help='where to write; default: the first WORKDIR',
  )
  args = parser.parse_args(argv)
  # The accelerator may be training the runs that are still missing.
  jax.config.update('jax_platforms', 'cpu')
  try:
    paths = write_report(args.workdir, args.out or args.workdir[0])
  except InputError as error:
    print(error, file=sys.stderr)
    return 2
  for path in paths:
    print(path)
  return 0


if __name__ == '__main__':
  sys.exit(main())
