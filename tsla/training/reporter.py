"""From device metrics to log rows, one chunk late.

The row of a chunk is read while the next one runs, so the device never waits
for the host to write.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
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

  Attributes:
    step: updates done when it was seen; the states before it are good.
  """

  status = 'diverged'
  exit_code = 3

  def __init__(self, what: str, step: int):
    self.step = step
    super().__init__(
      f'{what}: diverged; the checkpoints before it are kept\n'
      '  next: a lower --config.optimizer.learning_rate, in a new workdir'
    )


class Reporter:
  """Writes what a run does to its log and to the person watching.

  `end` is the update from which on the schedule's θ stays 0, if no rule ends
  smoothing before. `alive` is called whenever something was done.
  """

  def __init__(
    self,
    log: RunLog,
    progress: Progress,
    durations: Durations,
    end: int,
    arrays: Sequence[str],  # their names in the state
    alive: Callable[[], None],
  ):
    self._log = log
    self._progress = progress
    self._durations = durations
    self._end = end
    self._arrays = arrays
    self._alive = alive
    self._pending: tuple[int, int, TrainMetrics, Future[float]] | None = None
    # Waits for the device beside the main thread, to note when it was done.
    self._clock = ThreadPoolExecutor(1)
    self._has_probed = False

  def chunk(self, before: int, step: int, row: TrainMetrics) -> None:
    """Takes the metrics of updates `before` .. `step`; flushes those before."""
    self.flush()
    self._pending = before, step, row, self._clock.submit(_ready_at, row)

  def flush(self) -> None:
    """Writes the metrics that were taken last, waiting for the device.

    Raises:
      Diverged: their loss, or the state after them, is not finite.
    """
    if self._pending is None:
      return
    before, step, metrics, ready = self._pending
    self._pending = None
    row = {name: _shortest(value) for name, value in metrics.compute().items()}
    self._alive()
    if before < self._end <= step and not self._log.decided:
      self._switch(self._end)
    row['stage'] = 2 if self._log.decided or step > self._end else 1
    rate = self._progress.update(step, row, ready.result())
    self._write('train', step, **row, images_per_second=rate)
    self._check_finite(before, step, metrics)

  def _check_finite(
    self, before: int, step: int, metrics: TrainMetrics
  ) -> None:
    bad_losses = np.flatnonzero(~np.isfinite(metrics.loss))
    array = int(metrics.bad_array)
    if not bad_losses.size and array == NONE:
      return
    # A gradient that is not finite spoils the state, and then the next loss.
    what = (
      f'the loss of update {before + 1 + bad_losses[0]} is not finite'
      if bad_losses.size
      else f'a gradient of updates {before + 1} to {step} is not finite'
    )
    if array != NONE:
      what += f', and after update {step} {self._arrays[array]} is the first'
    raise Diverged(what, step)

  @property
  def evaluations(self) -> Mapping[int, dict[str, float]]:
    """The evaluations on record, by the updates done before them."""
    return self._log.evaluations

  @property
  def top1(self) -> dict[int, float]:
    """Of the evaluations on record: what makes a checkpoint the best."""
    return {step: test['top1'] for step, test in self.evaluations.items()}

  @property
  def probes(self) -> AbstractSet[int]:
    """The probes on record, by the updates done before them."""
    return self._log.probes

  def copy_parent_log(self, start: Start) -> None:
    """Writes what another run logged, where this one begins in it."""
    for row in start.rows:
      if row['step'] == start.step:
        if row['kind'] == 'switch':
          continue  # of the other run's schedule
        if row['kind'] == 'train' and self._end == start.step:
          self._switch(start.step)  # where `flush` would have written it
      self._log.write(**row)

  def evaluation(self, step: int, test: dict[str, float]) -> None:
    """Writes the evaluation after `step` updates.

    Raises:
      Diverged: its loss is not finite.
    """
    if not math.isfinite(test['nll']):
      what = f'NLL = {test["nll"]} in the test after update {step}'
      raise Diverged(what, step)
    self._alive()
    self._write('eval', step, **test)
    self._progress.say(
      f'epoch {step // self._durations.steps_per_epoch}  test '
      f'top-1 {test["top1"]:.2%}  top-5 {test["top5"]:.2%}  '
      f'NLL {test["nll"]:.4f}  ECE {test["ece"]:.2%}'
    )

  def probe(
    self,
    step: int,
    state: TrainState,
    probe: Callable[[TrainState], tuple[TrainState, Probed]],
  ) -> TrainState:
    """Probes the state after `step` updates and writes what is found.

    The state that goes in is gone; the one that comes back holds what was
    decided.
    """
    start = time.monotonic()
    state, found = probe(state)
    row = {name: _shortest(value) for name, value in found.compute().items()}
    seconds = time.monotonic() - start
    self._alive()
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
    self._progress.say(
      '  '.join([f'epoch {self._epoch(step):g}  probe', *known])
    )
    # A rule may also fire when the schedule has ended smoothing before.
    if dropped and step < self._end and not self._log.decided:
      self._switch(step)
    return state

  def training_resumes(self) -> None:
    """What passed since the last row (evaluation, saving) was not training."""
    self._progress.skip_time()

  def _switch(self, step: int) -> None:
    self._progress.say(
      f'epoch {self._epoch(step):g}, update {step}: '
      'label smoothing is dropped, stage 2'
    )
    self._write('switch', step)

  def _write(self, kind: str, step: int, **values: float | None) -> None:
    self._log.write(kind, step, epoch=self._epoch(step), **values)

  def _epoch(self, step: int) -> float:
    return step / self._durations.steps_per_epoch


def _ready_at(row: TrainMetrics) -> float:
  jax.block_until_ready(row)
  return time.monotonic()


def _shortest(value: jax.Array) -> float:
  """The float that prints as the float32 does: 0.1, not 0.10000000149."""
  return float(str(np.float32(value)))
