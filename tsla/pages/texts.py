"""The words of a page, which stand in a .toml file beside its code."""

import pathlib
import tomllib
from collections.abc import Callable
from typing import Any


def read_texts(module: str) -> Callable[..., str]:
  """What gives a text of `X.toml`, beside `X.py`, by its name.

  A text is one line, with values in place of its {fields}.
  """
  path = pathlib.Path(module).with_suffix('.toml')
  texts = tomllib.loads(path.read_text('utf-8'))

  def text(name: str, **values: Any) -> str:
    return texts[name].strip().replace('\n', ' ').format(**values)

  return text
