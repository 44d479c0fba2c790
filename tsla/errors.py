"""The one exception for input that cannot be used."""

import contextlib

_WIDTH, _END = 400, 120  # of a line, and of what is kept of its end


class InputError(ValueError):
  """A value the user gave cannot be used; `main.py` exits with code 2.

  The text is at most three lines, whatever the parts hold: the `problem`, which
  begins with the field and its value; what would be `allowed`; and as `cure`
  the next command or the field to change.

  Example:
    >>> print(InputError("smoothing.theta = 1.2: not a probability",
    ...                  allowed='0 <= theta <= 1',
    ...                  cure='--config.smoothing.theta=0.1'))
    smoothing.theta = 1.2: not a probability
      allowed: 0 <= theta <= 1
      next: --config.smoothing.theta=0.1
  """

  def __init__(self, problem: str, *, allowed: str = '', cure: str = ''):
    self.problem, self.allowed, self.cure = problem, allowed, cure
    self.parts = [self]  # of several in one
    texts = {'': problem, '  allowed: ': allowed, '  next: ': cure}
    lines = [head + _one_line(text) for head, text in texts.items() if text]
    super().__init__('\n'.join(lines))


class Problems(contextlib.AbstractContextManager):
  """Takes the `InputError` of each `with`, to raise all of them at once.

  Several are a line each: three are shown, and the rest is counted.
  """

  def __init__(self) -> None:
    self._found: dict[str, InputError] = {}

  def __exit__(self, kind: object, error: object, trace: object) -> bool:
    if isinstance(error, InputError):
      self._found |= {str(part): part for part in error.parts}
    return isinstance(error, InputError)

  def note(self, problem: str, *, allowed: str = '', cure: str = '') -> None:
    """Takes the `InputError` of these."""
    with self:
      raise InputError(problem, allowed=allowed, cure=cure)

  def raise_all(self) -> None:
    """Raises what was found, if anything was."""
    parts = list(self._found.values())
    if len(parts) == 1:
      raise parts[0]
    if parts:
      whole = InputError('; '.join(part.problem for part in parts))
      lines = [
        _one_line(f'{part.problem} (allowed: {part.allowed or part.cure})')
        for part in parts[:3]
      ]
      lines[-1] += f' … and {len(parts) - 3} more' * (len(parts) > 3)
      whole.parts, whole.args = parts, ('\n'.join(lines),)
      raise whole


def _one_line(text: str) -> str:
  text = ' '.join(str(text).split())
  if len(text) <= _WIDTH:
    return text
  return text[: _WIDTH - _END - 1] + '…' + text[-_END:]
