"""What a report is made of, before it is Markdown or HTML.

All text here is plain: escaping is the two writers' business, and theirs alone.
"""

import dataclasses
import unicodedata
from typing import NamedTuple


class Cell(NamedTuple):
  """A cell of a table; a plain string is one too."""

  text: str
  note: str = ''  # a remark below, small
  faint: bool = False  # what the eye may pass over


class Key(NamedTuple):
  """What a line of a figure stands for."""

  label: str
  colour: str  # #rrggbb
  dashes: tuple[float, ...]  # lengths in line widths; () for a whole line


class Picture(NamedTuple):
  """An image that was made here, so there is nothing to escape in it."""

  svg: str = ''
  png: bytes = b''
  width: int = 0  # of a png, in pixels of the page
  pixelated: bool = False  # enlarged without smoothing


@dataclasses.dataclass(frozen=True)
class HeadingBlock:
  """The title of a section; level 1 is the report's own."""

  text: str
  level: int = 2


@dataclasses.dataclass(frozen=True)
class ParagraphBlock:
  """A few sentences."""

  text: str


@dataclasses.dataclass(frozen=True)
class NoticeBlock:
  """What a reader must not miss."""

  text: str
  items: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class CodeBlock:
  """Text to copy into a terminal."""

  text: str


@dataclasses.dataclass(frozen=True)
class TableBlock:
  """A table, its rows as long as its header.

  Attributes:
    caption: what it shows.
    header: names of the columns.
    rows: the cells; the first of a row is its name.
    align: a letter a column, l or r.
  """

  caption: str
  header: tuple[str | Cell, ...]
  rows: tuple[tuple[str | Cell, ...], ...]
  align: str


@dataclasses.dataclass(frozen=True)
class FigureBlock:
  """A picture with its legend.

  Attributes:
    caption: what it shows.
    picture: the image.
    keys: one for each kind of line.
  """

  caption: str
  picture: Picture
  keys: tuple[Key, ...] = ()


Block = (
  HeadingBlock
  | ParagraphBlock
  | NoticeBlock
  | CodeBlock
  | TableBlock
  | FigureBlock
)


def as_cell(cell: str | Cell) -> Cell:
  """A cell of either form."""
  return Cell(cell) if isinstance(cell, str) else cell


def printable(text: str) -> str:
  """The text without control characters and halves of characters."""
  return ''.join(
    '\N{REPLACEMENT CHARACTER}'
    if unicodedata.category(c).startswith('C') and c != '\n'
    else c
    for c in text
  )
