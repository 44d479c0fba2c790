"""Blocks → Markdown, or one HTML page, through the templates beside this file.

Whatever `{{ … }}` prints in a template is escaped, unless it is marked `safe`.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from tsla.pages.blocks import Block

# What could begin or end markup anywhere in a line of Markdown.
_SPECIAL = re.compile(r'([\\`*_{}\[\]|#~$!])')


def render_html(blocks: Sequence[Block]) -> str:
  """One page that needs nothing but itself; its title is the first block's."""
  return _render('page.html.jinja', _printable, blocks=blocks)


def render_markdown(blocks: Sequence[Block], page: str) -> str:
  """Markdown as GitHub and Pandoc read it; its figures are those of `page`."""
  return _render('page.md.jinja', _escape_markdown, blocks=blocks, page=page)


def _escape_markdown(text: str) -> Markup:
  """Text on one line that no reader takes for markup."""
  text = html.escape(' '.join(_printable(text).split()), quote=False)
  return Markup(_SPECIAL.sub(r'\\\1', text))


def _render(template: str, escape: Callable[[str], str], **values: Any) -> str:
  def finalize(value: Any) -> str:
    return value if isinstance(value, Markup) else escape(str(value))

  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('tsla.pages'),
    autoescape=True,  # for HTML, of all that is not Markup after `finalize`
    finalize=finalize,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  environment.filters['fenced'] = _fenced
  return environment.get_template(template).render(**values)


def _printable(text: str) -> str:
  """The text without control characters and halves of characters."""
  odd = {c for c in text if unicodedata.category(c)[0] == 'C'} - {'\n'}
  return text.translate({ord(c): '\N{REPLACEMENT CHARACTER}' for c in odd})


def _fenced(text: str) -> Markup:
  """A block of code whose fence is longer than any in the text."""
  longest = max(['``', *re.findall('`+', text)], key=len)
  return Markup(f'{longest}`\n{_printable(text)}\n{longest}`')
