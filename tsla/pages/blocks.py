"""What a page is made of; all text is plain, the templates escape it."""

import base64
import pathlib
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


class Cell(NamedTuple):
  """A cell of a table; a plain string is one too."""

  text: str
  note: str = ''  # a remark below, small
  faint: bool = False  # what the eye may pass over
  best: bool = False  # what it shall find


class Key(NamedTuple):
  """What a line of a figure stands for."""

  label: str
  colour: str  # #rrggbb
  dashes: tuple[float, ...] = ()  # lengths in line widths; () for a whole line
  marker: str = ''  # of `figures.MARKERS`


class Picture(NamedTuple):
  """An image that was made here, so there is nothing to escape in it."""

  svg: str = ''
  png: bytes = b''
  width: int = 0  # of a png, in pixels of the page
  pixelated: bool = False  # enlarged without smoothing
  files: tuple[tuple[str, bytes], ...] = ()  # as SVG and PDF, by suffix

  @property
  def url(self) -> str:
    """The png as the address of an <img>."""
    return 'data:image/png;base64,' + base64.b64encode(self.png).decode()


class HeadingBlock(NamedTuple):
  """The title of a section; level 1 is the page's own."""

  text: str
  level: int = 2
  page: bool = False  # whether it begins one in print


class ParagraphBlock(NamedTuple):
  """A few sentences."""

  text: str
  lead: bool = False  # what the page says, if one reads no more


class NoticeBlock(NamedTuple):
  """What a reader must not miss."""

  text: str
  items: Sequence[str] = ()


class CodeBlock(NamedTuple):
  """Text to copy into a terminal."""

  text: str


class TableBlock(NamedTuple):
  """A table with its caption; the first cell of a row is its name."""

  caption: str
  header: Sequence[str | Cell]
  rows: Sequence[Sequence[str | Cell]]
  align: str = ''  # a letter a column, l or r; '': all but the first r

  def cells(self, row: Sequence[str | Cell]) -> Iterator[tuple[Cell, str]]:
    """The cells of a row, or of the header, with the sides they align to."""
    sides = self.align or 'l' + 'r' * (len(self.header) - 1)
    for cell, side in zip(row, sides, strict=True):
      yield Cell(cell) if isinstance(cell, str) else cell, side


class FigureBlock(NamedTuple):
  """A picture with its caption and a key for each kind of line."""

  caption: str
  picture: Picture
  keys: Sequence[Key] = ()


_TextBlock = HeadingBlock | ParagraphBlock | NoticeBlock | CodeBlock
Block = _TextBlock | TableBlock | FigureBlock


def counted(number: int, noun: str) -> str:
  """Such as '1 seed' and '4 seeds'."""
  return f'{number:,} {noun}' + 's' * (number != 1)


def read_texts(module: str) -> Callable[..., str]:
  """What gives a text of `X.toml`, beside `X.py`, by its name.

  A text is one line, with values in place of its {fields}.
  """
  path = pathlib.Path(module).with_suffix('.toml')
  texts = tomllib.loads(path.read_text('utf-8'))

  def text(name: str, **values: Any) -> str:
    return texts[name].strip().replace('\n', ' ').format(**values)

  return text
