"""Blocks → one HTML page that needs nothing but itself."""

import base64
import html
from collections.abc import Sequence

from tsla.pages import blocks as b

_STYLE = """\
:root { color-scheme: light; }
* { box-sizing: border-box; }
body {
  margin: 0; background: #fff; color: #1b1f24;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
    "DejaVu Sans", sans-serif;
}
main { max-width: 62rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 1rem;
  letter-spacing: -0.015em; }
h2 { font-size: 1.3rem; margin: 3rem 0 0.75rem; letter-spacing: -0.01em; }
h3 { font-size: 1.05rem; margin: 2.25rem 0 0.5rem; }
h1, h2, h3, p, td, th, figcaption { overflow-wrap: anywhere; }
p { margin: 0.75rem 0; max-width: 46rem; }
figure { margin: 1.75rem 0; }
figcaption { font-size: 0.875rem; color: #48515c; max-width: 46rem;
  margin: 0.6rem 0; }
figcaption b { color: #1b1f24; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem;
  font-variant-numeric: tabular-nums;
  border-top: 2px solid #1b1f24; border-bottom: 2px solid #1b1f24; }
th, td { padding: 0.4rem 0.75rem; text-align: left; vertical-align: top;
  font-weight: 400; overflow-wrap: normal; }
th:first-child, td:first-child { padding-left: 0.25rem; }
th:last-child, td:last-child { padding-right: 0.25rem; }
thead th { font-weight: 600; vertical-align: bottom;
  border-bottom: 1px solid #1b1f24; }
tbody tr + tr > * { border-top: 1px solid #e6e9ed; }
tbody th { font-weight: 600; min-width: 8rem; overflow-wrap: break-word; }
.r { text-align: right; white-space: nowrap; }
thead .r { white-space: normal; }
td:not(.r) { overflow-wrap: anywhere; }
small { display: block; font-size: 0.78rem; font-weight: 400;
  color: #68727d; white-space: normal; }
.faint { color: #68727d; }
.notice { border-left: 4px solid #d55e00; background: #fdf3ec;
  padding: 0.75rem 1rem; margin: 1.25rem 0; max-width: 46rem; }
.notice p { margin: 0; font-weight: 600; }
.notice ul { margin: 0.4rem 0 0; padding-left: 1.2rem; }
pre { background: #f5f6f8; border-radius: 6px; padding: 0.9rem 1rem;
  overflow-x: auto; font: 0.82rem/1.5 ui-monospace, SFMono-Regular, Menlo,
    Consolas, "DejaVu Sans Mono", monospace; }
.keys { display: flex; flex-wrap: wrap; gap: 0.3rem 1.4rem; font-size: 0.875rem;
  list-style: none; margin: 0 0 0.5rem; padding: 0; }
.keys svg { vertical-align: middle; margin-right: 0.45rem; }
.plot svg { display: block; width: 100%; height: auto; }
.plot svg text { font-family: inherit !important; }
img { display: block; max-width: 100%; height: auto; }
.pixelated { image-rendering: pixelated; }
@media print {
  main { max-width: none; padding: 0; }
  figure, tr, pre { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""

# Whatever a string might smuggle in, the browser loads and runs nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write(content: Sequence[b.Block]) -> str:
  """The whole page; its title is the first heading's.

  Example:
    >>> page = write([b.HeadingBlock('<script>', 1)])
    >>> '<h1>&lt;script&gt;</h1>' in page, '<script>' in page
    (True, False)
  """
  parts, counts = [], {b.TableBlock: 0, b.FigureBlock: 0}
  for block in content:
    if type(block) in counts:
      counts[type(block)] += 1
    match block:
      case b.HeadingBlock(text, level):
        parts.append(f'<h{level}>{escape(text)}</h{level}>')
      case b.ParagraphBlock(text):
        parts.append(f'<p>{escape(text)}</p>')
      case b.NoticeBlock(text, items):
        parts.append(_notice(text, items))
      case b.CodeBlock(text):
        parts.append(f'<pre><code>{escape(text)}</code></pre>')
      case b.TableBlock():
        parts.append(_table(block, counts[b.TableBlock]))
      case b.FigureBlock():
        parts.append(_figure(block, counts[b.FigureBlock]))
  title = next(
    block.text for block in content if isinstance(block, b.HeadingBlock)
  )
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{escape(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n'
    '<body>\n<main>\n' + '\n'.join(parts) + '\n</main>\n</body>\n</html>\n'
  )


def escape(text: str) -> str:
  """Text that no browser takes for markup, in an attribute too."""
  return html.escape(b.printable(text))


def _notice(text: str, items: Sequence[str]) -> str:
  lines = ''.join(f'<li>{escape(item)}</li>' for item in items)
  return (
    f'<div class="notice"><p>{escape(text)}</p>'
    + (f'<ul>{lines}</ul>' if items else '')
    + '</div>'
  )


def _table(table: b.TableBlock, number: int) -> str:
  head = ''.join(
    _cell('th scope="col"', cell, side)
    for cell, side in zip(table.header, table.align, strict=True)
  )
  body = ''.join(
    '<tr>'
    + ''.join(
      _cell('td' if column else 'th scope="row"', cell, side)
      for column, (cell, side) in enumerate(zip(row, table.align, strict=True))
    )
    + '</tr>\n'
    for row in table.rows
  )
  return (
    f'<figure>\n<figcaption><b>Table {number}.</b> {escape(table.caption)}'
    f'</figcaption>\n<div class="scroll"><table>\n<thead><tr>{head}</tr>'
    f'</thead>\n<tbody>\n{body}</tbody>\n</table></div>\n</figure>'
  )


def _cell(tag: str, cell: str | b.Cell, side: str) -> str:
  text, note, faint = b.as_cell(cell)
  classes = ' '.join(['r'] * (side == 'r') + ['faint'] * faint)
  return (
    f'<{tag}'
    + (f' class="{classes}"' if classes else '')
    + f'>{escape(text)}'
    + (f'<small>{escape(note)}</small>' if note else '')
    + f'</{tag.split()[0]}>'
  )


def _figure(figure: b.FigureBlock, number: int) -> str:
  keys = ''.join(f'<li>{_swatch(k)}{escape(k.label)}</li>' for k in figure.keys)
  return (
    '<figure>\n'
    + (f'<ul class="keys">{keys}</ul>\n' if keys else '')
    + _picture(figure)
    + f'\n<figcaption><b>Figure {number}.</b> {escape(figure.caption)}'
    '</figcaption>\n</figure>'
  )


def _swatch(key: b.Key) -> str:
  dashes = ' '.join(f'{2.5 * length:g}' for length in key.dashes)
  return (
    '<svg width="30" height="10" aria-hidden="true"><line x1="0" y1="5" '
    f'x2="30" y2="5" stroke="{key.colour}" stroke-width="2.5"'
    + (f' stroke-dasharray="{dashes}"' if dashes else '')
    + '/></svg>'
  )


def _picture(figure: b.FigureBlock) -> str:
  picture, alt = figure.picture, escape(figure.caption)
  if picture.svg:
    return (
      f'<div class="plot" role="img" aria-label="{alt}">{picture.svg}</div>'
    )
  data = base64.b64encode(picture.png).decode()
  return (
    f'<img src="data:image/png;base64,{data}" alt="{alt}" '
    f'style="width: {picture.width}px"'
    + (' class="pixelated"' if picture.pixelated else '')
    + '>'
  )
