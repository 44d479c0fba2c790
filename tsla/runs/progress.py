"""What a person sees of a run: lines on stderr."""

import shutil
import sys
import time

from tqdm import tqdm

from tsla.config.durations import Durations

_PIPED_SECONDS = 5.0


class Progress:
  """One line of progress: live on a terminal, every few seconds when piped."""

  def __init__(
    self,
    durations: Durations,
    batch_size: int,
    first_step: int,
    shown: bool = True,  # not in processes that leave it to the first
  ):
    self._total = durations.total_steps
    self._per_epoch = durations.steps_per_epoch
    self._batch_size = batch_size
    self._stream = sys.stderr if shown else None
    self._live = shown and sys.stderr.isatty()
    options = {'leave': False, 'bar_format': '{desc}'}
    self._line = tqdm(file=self._stream, disable=not self._live, **options)
    # Time and step of the first row: what came before was compilation.
    self._start: tuple[float, int] | None = None
    self._last = (time.monotonic(), first_step)
    self._shown = 0.0

  def update(
    self, step: int, row: dict[str, float], now: float
  ) -> float | None:
    """Shows a row done at `now`; its images/s, None if compiling was in it."""
    then, before = self._last
    self._last = now, step
    rate = (step - before) * self._batch_size / max(now - then, 1e-9)
    if self._start is None:
      self._start, rate = (now, step), None
    if self._live:
      width = shutil.get_terminal_size().columns - 1
      text = self._text(step, row, rate, now)[:width]
      self._line.set_description_str(text)
    elif now - self._shown > _PIPED_SECONDS or step == self._total:
      self._shown = now
      self.say(self._text(step, row, rate, now))
    return rate

  def skip_time(self) -> None:
    """What passed since the last row (evaluation, saving) was not training."""
    self._last = time.monotonic(), self._last[1]

  def say(self, text: str) -> None:
    """A line that stays."""
    if self._stream is not None:
      self._line.clear()
      print(text, file=self._stream, flush=True)

  def _text(
    self, step: int, row: dict[str, float], rate: float | None, now: float
  ) -> str:
    started, first = self._start
    speed, left = 'compiled', '--:--'
    if rate is not None:
      speed = f'{rate:,.0f} images/s'
      each = (now - started) / (step - first)
      left = tqdm.format_interval(each * (self._total - step))
    return (
      f'epoch {step / self._per_epoch:.1f}/{self._total // self._per_epoch}'
      f'  stage {row["stage"]:.0f}  theta {row["theta"]:.3g}'
      f'  loss {row["loss"]:.4f}  hard {row["hard_loss"]:.4f}'
      f'  acc {row["accuracy"]:.2%}  {speed}  ETA {left}'
    )
