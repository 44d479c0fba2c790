"""Writes the tables of `config.md`: every field of a config, from the schema.

  python -m docs.fields

What stands before the first table is kept.
"""

import itertools
import pathlib
from collections.abc import Iterator

from tsla.config.schema import FIELDS
from tsla.config.tables import help_on_options

PAGE = pathlib.Path(__file__).parent / 'config.md'
_FIRST = '\n## `config`'


def page() -> str:
  """The page's text."""
  return '\n'.join([PAGE.read_text().partition(_FIRST)[0], *_tables()])


def _tables() -> Iterator[str]:
  sections = itertools.groupby(FIELDS, lambda name: name.rpartition('.')[0])
  for section, names in sections:
    yield f'## `{".".join(filter(None, ["config", section]))}`\n'
    yield '| field | default | meaning | allowed |\n|---|---|---|---|'
    for name in names:
      field = FIELDS[name]
      notes = [field.meaning, *help_on_options(name)]
      notes += ['identity: no'] * (not field.identity)
      cells = f'`{name}`', f'`{field.default!r}`', '; '.join(notes)
      row = ' | '.join([*cells, field.allowed])
      yield f'| {row} |'
    yield ''


if __name__ == '__main__':
  PAGE.write_text(page())
