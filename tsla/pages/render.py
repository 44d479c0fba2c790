"""Blocks → one HTML page, through the template beside this file.

Whatever `{{ … }}` prints there is escaped, unless it is marked `safe`.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from tsla.pages.blocks import Block


def render_html(blocks: Sequence[Block]) -> str:
  """One page that needs nothing but itself; its title is the first block's."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('tsla.pages'),
    autoescape=True,  # of all that is not Markup after `finalize`
    finalize=_printable,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  return environment.get_template('page.html.jinja').render(blocks=blocks)


def _printable(value: Any) -> str:
  """Text without control characters and halves of characters."""
  if isinstance(value, Markup):
    return value
  text = str(value)
  odd = {c for c in text if unicodedata.category(c)[0] == 'C'} - {'\n'}
  return text.translate({ord(c): '\N{REPLACEMENT CHARACTER}' for c in odd})
