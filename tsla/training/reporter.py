"""From device metrics to log rows, one chunk late.

The row of a chunk is read while the next one runs, so the device never waits
for the host to write.
"""

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from tsla.training.durations import Durations
from tsla.training.progress import Progress
from tsla.training.rundir import RunLog
from tsla.training.start import Start
from tsla.training.step import TrainMetrics


class Diverged(Exception):
  """A number is not finite any more; `main.py` exits with code 3."""

  status = 'diverged'
  exit_code = 3

  def __init__(self, what: str):
    super().__init__(
      f'{what}: diverged\n'
      '  next: a lower --config.optimizer.learning_rate, in a new workdir'
    )


class Reporter:
  """Writes what a run does to its log and to the person watching.

  Args:
    log: the run's log.
    progress: the line a person sees.
    durations: of the run.
  """

  def __init__(self, log: RunLog, progress: Progress, durations: Durations):
    self._log = log
    self._progress = progress
    self._durations = durations
    self._pending: tuple[int, int, TrainMetrics, Future[float]] | None = None
    # Waits for the device beside the main thread, to note when it was done.
    self._clock = ThreadPoolExecutor(1)

  def chunk(self, before: int, step: int, row: TrainMetrics) -> None:
    """Takes the metrics of updates `before` .. `step`; writes the ones before.

    Raises:
      Diverged: as `flush`.
    """
    self.flush()
    self._pending = before, step, row, self._clock.submit(_ready_at, row)

  def flush(self) -> None:
    """Writes the metrics that were taken last, waiting for the device.

    Raises:
      Diverged: their loss is not finite.
    """
    if self._pending is None:
      return
    before, step, metrics, ready = self._pending
    self._pending = None
    row = {name: _shortest(value) for name, value in metrics.compute().items()}
    row['stage'] = 1 if row['theta'] > 0 else 2
    smoothed = round(row.pop('smoothed') * (step - before))
    next_theta = row.pop('next_theta')
    if smoothed and not next_theta:
      self._switch(before + smoothed)
    rate = self._progress.update(step, row, ready.result())
    self._write('train', step, **row, images_per_second=rate)
    if not math.isfinite(row['loss']):
      raise Diverged(f'loss = {row["loss"]} in updates {before + 1} to {step}')

  def adopt(self, start: Start) -> None:
    """Writes what another run logged, where this one begins in it."""
    for row in start.rows:
      if start.drops and (row['kind'], row['step']) == ('train', start.step):
        self._switch(start.step)  # where `flush` would have written it
      self._log.write(**row)

  def evaluation(self, step: int, test: dict[str, float]) -> None:
    """Writes the evaluation after `step` updates.

    Raises:
      Diverged: its loss is not finite.
    """
    self._write('eval', step, **test)
    self._progress.say(
      f'epoch {step // self._durations.steps_per_epoch}  test '
      f'top-1 {test["top1"]:.2%}  top-5 {test["top5"]:.2%}  '
      f'NLL {test["nll"]:.4f}  ECE {test["ece"]:.2%}'
    )
    if not math.isfinite(test['nll']):
      raise Diverged(f'NLL = {test["nll"]} in the test after update {step}')

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
