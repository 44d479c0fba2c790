"""What a person sees of a run: lines on stderr."""

import contextlib
import sys
import time

from tqdm import tqdm

from tsla.config.durations import Durations
from tsla.runs.environment import compiling_alone

_PIPED_SECONDS = 5.0


class Progress:
  """On a terminal a bar and a row an epoch, piped a line every few seconds."""

  def __init__(
    self,
    durations: Durations,
    batch_size: int,
    first_step: int,
    program: str = '',  # what tells its compiled programs from others
    shown: bool = True,  # not in processes that leave it to the first
  ):
    self._total = durations.total_steps
    self._per_epoch = durations.steps_per_epoch
    self._batch_size = batch_size
    self._stream = sys.stderr if shown else None
    self._live = shown and sys.stderr.isatty()
    self._bar = tqdm(
      **{'total': self._total, 'initial': first_step, 'leave': False},
      **{'file': self._stream, 'disable': not self._live},
      dynamic_ncols=True,
      bar_format='{percentage:3.0f} % |{bar}| {elapsed}{postfix}',
    )
    self.close = self._bar.close
    self._compiled, self._program = set[str](), program
    # Time and step of the first row: what came before was compilation.
    self._start: tuple[float, int] | None = None
    self._last = (time.monotonic(), first_step)
    self._shown = 0.0

  def update(
    self, step: int, row: dict[str, float], now: float, stays: bool = False
  ) -> float | None:
    """Shows a row done at `now`; its images/s, None if compiling was in it."""
    then, before = self._last
    self._last = now, step
    rate = (step - before) * self._batch_size / max(now - then, 1e-9)
    if self._start is None:
      self._start, rate = (now, step), None
      speed = f'{now - then:.0f} s with compiling'
    else:
      started, first = self._start
      each = (now - started) / (step - first)
      left = tqdm.format_interval(each * (self._total - step))
      speed = f'{rate:,.0f} images/s  ETA {left}'
    text = (
      f'epoch {step / self._per_epoch:.1f}/{self._total // self._per_epoch}'
      f'  stage {row["stage"]:.0f}  theta {row["theta"]:.3g}'
      f'  loss {row["loss"]:.4f}  hard {row["hard_loss"]:.4f}'
      f'  acc {100 * row["accuracy"]:.2f} %'
    )
    if self._live:
      self._bar.n = step
      self._bar.set_postfix_str(speed)
      if stays or step % self._per_epoch == 0:
        self.say(text)
    elif stays or now - self._shown > _PIPED_SECONDS or step == self._total:
      self._shown = now
      self.say(f'{text}  {speed}')
    return rate

  def skip_time(self) -> None:
    """What passed since the last row (evaluation, saving) was not training."""
    self._last = time.monotonic(), self._last[1]

  def compiling(self, what: str) -> contextlib.AbstractContextManager[None]:
    """To be inside in a call that compiles the first time, and then says so."""
    if what in self._compiled:
      return contextlib.nullcontext()
    self._compiled.add(what)
    self.say(f'compiling the {what}, once')
    return compiling_alone(f'{what} {self._program}')

  def say(self, text: str) -> None:
    """A line that stays."""
    if self._stream is not None:
      with tqdm.external_write_mode(file=self._stream):
        print(text, file=self._stream, flush=True)
