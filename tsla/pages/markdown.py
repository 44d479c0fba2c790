"""Blocks → Markdown, as GitHub and Pandoc read it."""

import re
from collections.abc import Sequence

from tsla.pages import blocks as b

# What could begin or end markup anywhere in a line.
_SPECIAL = re.compile(r'([\\`*_{}\[\]|#~$!])')


def write(content: Sequence[b.Block]) -> str:
  r"""The whole file.

  Example:
    >>> print(write([b.HeadingBlock('a|b <i>', 1)]), end='')
    # a\|b &lt;i&gt;
  """
  parts, counts = [], {b.TableBlock: 0, b.FigureBlock: 0}
  for block in content:
    if type(block) in counts:
      counts[type(block)] += 1
    match block:
      case b.HeadingBlock(text, level):
        parts.append('#' * level + ' ' + escape(text))
      case b.ParagraphBlock(text):
        parts.append(escape(text))
      case b.NoticeBlock(text, items):
        lines = [f'> **{escape(text)}**']
        lines += [f'> - {escape(item)}' for item in items]
        parts.append('\n'.join(lines[:1] + ['>'] * bool(items) + lines[1:]))
      case b.CodeBlock(text):
        parts.append(_fenced(text))
      case b.TableBlock():
        parts.append(
          f'**Table {counts[b.TableBlock]}.** {escape(block.caption)}\n\n'
          + _table(block)
        )
      case b.FigureBlock(caption):
        parts.append(
          f'**Figure {counts[b.FigureBlock]}** '
          '(in [report.html](report.html)). ' + escape(caption)
        )
  return '\n\n'.join(parts) + '\n'


def escape(text: str) -> str:
  r"""Text on one line that no reader takes for markup.

  Example:
    >>> escape('<script>|x_1|')
    '&lt;script&gt;\\|x\\_1\\|'
  """
  text = ' '.join(b.printable(text).split())
  for character, name in (('&', '&amp;'), ('<', '&lt;'), ('>', '&gt;')):
    text = text.replace(character, name)
  return _SPECIAL.sub(r'\\\1', text)


def _fenced(text: str) -> str:
  text = b.printable(text)
  longest = max(map(len, re.findall('`+', text)), default=0)
  fence = '`' * max(3, longest + 1)
  return f'{fence}\n{text}\n{fence}'


def _table(table: b.TableBlock) -> str:
  rule = ['---:' if side == 'r' else ':---' for side in table.align]
  lines = [[_cell(cell) for cell in table.header], rule]
  lines += [[_cell(cell) for cell in row] for row in table.rows]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _cell(cell: str | b.Cell) -> str:
  text, note, _ = b.as_cell(cell)
  return escape(text) + (f' ({escape(note)})' if note else '')
