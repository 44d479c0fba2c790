"""From device metrics to log rows, one chunk late.

The row of a chunk is read while the next one runs, so the device never waits
for the host to write.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from tsla.config.durations import Durations
from tsla.runs.log import RunLog
from tsla.runs.progress import Progress
from tsla.training.probe import Probed
from tsla.training.start import Start
from tsla.training.step import NONE, TrainMetrics, TrainState


class Diverged(Exception):
  """A number is not finite any more; `main.py` exits with code 3.

  It was seen after `step` updates; the states before it are good.
  """

  status = 'diverged'
  exit_code = 3

  def __init__(self, what: str, step: int):
    self.step = step
    super().__init__(
      f'{what}: diverged; the checkpoints before it are kept\n'
      '  next: a lower --config.optimizer.learning_rate, in a new workdir'
    )


@dataclasses.dataclass
class Reporter:
  """Writes what a run does to its log and to the person watching."""

  log: RunLog
  progress: Progress
  durations: Durations
  end: int  # update from which on the schedule's θ stays 0, whatever rules say
  arrays: Sequence[str]  # their names in the state
  num_classes: int
  alive: Callable[[], None]  # called whenever something was done
  _pending: tuple[int, int, TrainMetrics, Future[float]] | None = None
  _has_probed: bool = False

  def __post_init__(self) -> None:
    # Waits for the device beside the main thread, to note when it was done.
    self._clock = ThreadPoolExecutor(1)

  def chunk(self, before: int, step: int, row: TrainMetrics) -> None:
    """Takes the metrics of updates `before` .. `step`; flushes those before."""
    self.flush()
    self._pending = before, step, row, self._clock.submit(_ready_at, row)

  def flush(self) -> None:
    """Writes the metrics taken last, once they are there; raises Diverged."""
    if self._pending is None:
      return
    before, step, metrics, ready = self._pending
    self._pending = None
    row = _shortest(metrics)
    self.alive()
    ends = before < self.end <= step and not self.log.decided
    row['stage'] = 2 if self.log.decided or step > self.end else 1
    rate = self.progress.update(step, row, ready.result(), stays=ends)
    if ends:
      self._switch(self.end)
    self._write('train', step, **row, images_per_second=rate)
    self._check_finite(before, step, metrics)

  def _check_finite(self, before: int, step: int, row: TrainMetrics) -> None:
    bad_losses = np.flatnonzero(~np.isfinite(row.loss))
    array = int(row.bad_array)
    if not bad_losses.size and array == NONE:
      return
    # A gradient that is not finite spoils the state, and then the next loss.
    what = f'a gradient of updates {before + 1} to {step} is not finite'
    if bad_losses.size:
      what = f'the loss of update {before + 1 + bad_losses[0]} is not finite'
    if array != NONE:
      what += f', and after update {step} {self.arrays[array]} is the first'
    raise Diverged(what, step)

  @property
  def top1(self) -> dict[int, float]:
    """On the validation split: what makes a checkpoint the best."""
    rows = self.log.evaluations['validation'].items()
    return {step: found['top1'] for step, found in rows}

  def copy_parent_log(self, start: Start) -> None:
    """Writes what another run logged, where this one begins in it."""
    for row in start.rows:
      if row['step'] == start.step:
        if row['kind'] == 'switch':
          continue  # of the other run's schedule
        if row['kind'] == 'train' and self.end == start.step:
          self._switch(start.step)  # where `flush` would have written it
      self.log.write(**row)

  def evaluation(self, kind: str, step: int, found: dict[str, float]) -> None:
    """Writes the evaluation after `step` updates; raises Diverged."""
    split = 'test' if kind == 'eval' else kind
    if not math.isfinite(nll := found['nll']):
      raise Diverged(f'NLL = {nll} in the {split} after update {step}', step)
    self.alive()
    self._write(kind, step, **found)
    figures = in_words(found, top5=self.num_classes > 5)
    self.progress.say(f'epoch {self._epoch(step):g}  {split}  {figures}')

  def probe(
    self,
    step: int,
    state: TrainState,
    probe: Callable[[TrainState], tuple[TrainState, Probed]],
  ) -> TrainState:
    """Probes the state after `step` updates and writes what is found."""
    start = time.monotonic()
    state, found = probe(state)
    row = _shortest(found)
    seconds = time.monotonic() - start
    self.alive()
    dropped = row.pop('dropped')
    # The first one of a process compiled.
    row['seconds'] = seconds if self._has_probed else None
    self._has_probed = True
    self._write('probe', step, **row)
    shown = {
      'delta': f'delta {row["delta"]:.3g} ± {row["delta_error"]:.2g}',
      'theta_star': f'theta* {row["theta_star"]:.3g}',
      'mse_ratio': f'MSE ratio {row["mse_ratio"]:.3g}',
      'cosine': f'cosine {row["cosine"]:.3g}',
    }
    known = [text for name, text in shown.items() if math.isfinite(row[name])]
    epoch = f'epoch {self._epoch(step):g}'
    self.progress.say('  '.join([epoch, 'probe', *known]))
    # A rule may also fire when the schedule has ended smoothing before.
    if dropped and step < self.end and not self.log.decided:
      self._switch(step, by_rule=True)
    return state

  def _switch(self, step: int, by_rule: bool = False) -> None:
    where = f'epoch {self._epoch(step):g}, update {step}'
    self.progress.say(f'{where}: smoothing is dropped, stage 2')
    self._write('switch', step, by_rule=float(by_rule))

  def _write(self, kind: str, step: int, **values: float | None) -> None:
    self.log.write(kind, step, epoch=self._epoch(step), **values)

  def _epoch(self, step: int) -> float:
    return step / self.durations.steps_per_epoch


def in_words(found: dict[str, float], *, top5: bool) -> str:
  """The figures of an evaluation in a line, with those of one's own."""
  texts = [f'top-1 {100 * found["top1"]:.2f} %']
  texts += [f'top-5 {100 * found["top5"]:.2f} %'] * top5
  texts += [f'NLL {found["nll"]:.4f}', f'ECE {100 * found["ece"]:.2f} %']
  others = ('top1', 'top5', 'nll', 'brier', 'ece', 'count', 'epoch')
  texts += [f'{n} {v:.4f}' for n, v in found.items() if n not in others]
  return '  '.join(texts)


def _ready_at(row: TrainMetrics) -> float:
  jax.block_until_ready(row)
  return time.monotonic()


def _shortest(found: TrainMetrics | Probed) -> dict[str, float]:
  """Floats that print as the float32 do: 0.1, not 0.10000000149."""
  values = found.compute().items()
  return {name: float(str(np.float32(value))) for name, value in values}
