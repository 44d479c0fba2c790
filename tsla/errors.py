"""The one exception for input that cannot be used."""

_WIDTH, _END = 400, 120  # of a line, and of what is kept of its end


class InputError(ValueError):
  """A value the user gave cannot be used; `main.py` exits with code 2.

  The text is at most three lines, whatever the parts hold: what is wrong, what
  is allowed, what to do next.

  Args, kept as attributes:
    problem: the field and its value, then what is wrong with it.
    allowed: what would be accepted.
    cure: the next command or the field to change.

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
    lines = [_one_line(problem)]
    if allowed:
      lines.append('  allowed: ' + _one_line(allowed))
    if cure:
      lines.append('  next: ' + _one_line(cure))
    super().__init__('\n'.join(lines))


def _one_line(text: str) -> str:
  text = ' '.join(str(text).split())
  if len(text) <= _WIDTH:
    return text
  return text[: _WIDTH - _END - 1] + '…' + text[-_END:]
