"""Blocks → Markdown, or one HTML page, through the templates beside this file.

Whatever `{{ … }}` prints in a template is escaped, unless it is marked `safe`.
"""

import collections
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from tsla.pages.blocks import Block

# What could begin or end markup anywhere in a line of Markdown.
_SPECIAL = re.compile(r'([\\`*_{}\[\]|#~$!])')


def render_html(blocks: Sequence[Block]) -> str:
  """One page that needs nothing but itself; its title is the first block's.

  Example:
    >>> from tsla.pages.blocks import HeadingBlock
    >>> page = render_html([HeadingBlock('<script>', 1)])
    >>> '<h1>&lt;script&gt;</h1>' in page, '<script>' in page
    (True, False)
  """
  template = _environment(_printable).get_template('page.html.jinja')
  return template.render(title=blocks[0].text, blocks=_numbered(blocks))


def render_markdown(blocks: Sequence[Block], html: str) -> str:
  r"""Markdown as GitHub and Pandoc read it; its figures are those of `html`.

  Example:
    >>> from tsla.pages.blocks import HeadingBlock
    >>> print(render_markdown([HeadingBlock('a|b <i>', 1)], 'a.html'), end='')
    # a\|b &lt;i&gt;
  """
  environment = _environment(escape_markdown)
  environment.filters['fenced'] = _fenced
  template = environment.get_template('page.md.jinja')
  return template.render(html=html, blocks=_numbered(blocks))


def escape_markdown(text: str) -> Markup:
  r"""Text on one line that no reader takes for markup.

  Example:
    >>> print(escape_markdown('<script>|x_1|'))
    &lt;script&gt;\|x\_1\|
  """
  text = ' '.join(_printable(text).split())
  for character, name in (('&', '&amp;'), ('<', '&lt;'), ('>', '&gt;')):
    text = text.replace(character, name)
  return Markup(_SPECIAL.sub(r'\\\1', text))


def _environment(escape: Callable[[str], str]) -> jinja2.Environment:
  def finalize(value: Any) -> str:
    return value if isinstance(value, Markup) else escape(str(value))

  return jinja2.Environment(
    loader=jinja2.PackageLoader('tsla.pages'),
    autoescape=True,  # for HTML, of all that is not Markup after `finalize`
    finalize=finalize,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )


def _numbered(blocks: Sequence[Block]) -> Iterator[tuple[str, int, Block]]:
  """Each block with its kind and its number among those of the kind."""
  counts = collections.Counter()
  for block in blocks:
    kind = type(block).__name__
    counts[kind] += 1
    yield kind, counts[kind], block


def _printable(text: str) -> str:
  """The text without control characters and halves of characters."""
  return ''.join(
    '\N{REPLACEMENT CHARACTER}'
    if unicodedata.category(c).startswith('C') and c != '\n'
    else c
    for c in text
  )


def _fenced(text: str) -> Markup:
  """A block of code whose fence is longer than any in the text."""
  longest = max(map(len, re.findall('`+', text)), default=0)
  fence = '`' * max(3, longest + 1)
  return Markup(f'{fence}\n{_printable(text)}\n{fence}')
