"""The words of a page, which stand in a .toml file beside its code."""

import pathlib
import tomllib
from collections.abc import Callable


def read_texts(module: str) -> Callable[..., str]:
  """What gives a text by its name, with values in place of its {fields}.

  Args:
    module: the path of `X.py`, whose texts are in `X.toml`; each becomes one
      line, whatever its lines in the file.
  """
  content = pathlib.Path(module).with_suffix('.toml').read_text('utf-8')
  texts = {
    name: ' '.join(text.strip().split('\n'))
    for name, text in tomllib.loads(content).items()
  }
  return lambda name, **values: texts[name].format(**values)
