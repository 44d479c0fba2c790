"""Runs stopped in either stage and at the switch, against one left alone."""

import json
import os
import pathlib
import signal
import sys
import tempfile
from unittest import mock

import jax
import numpy as np
from support import small_config, write_digits_npz

from tsla.training import loop
from tsla.training.checkpoint import Checkpoints
from tsla.training.interrupt import Interrupted
from tsla.training.reporter import Reporter

SWITCH = 8


def final_arrays(config, workdir, stop_after=None):
  """Trains to the end, or to SIGTERM in update `stop_after`; the last save."""
  saved, save, chunk = {}, Checkpoints.save, Reporter.chunk

  def note_save(self, step, state):
    # The caller donates the state: copy before it goes on.
    saved['state'] = jax.tree.map(lambda x: np.array(x, copy=True), state)
    save(self, step, state)

  def signal_at(self, before, step, row):
    chunk(self, before, step, row)
    if step == stop_after:
      os.kill(os.getpid(), signal.SIGTERM)

  with (
    mock.patch.object(Checkpoints, 'save', note_save),
    mock.patch.object(Reporter, 'chunk', signal_at),
  ):
    try:
      loop.train_and_evaluate(config, workdir)
    except Interrupted as stop:
      assert stop.exit_code == 143
      assert json.loads((workdir / 'status.json').read_text()) == {
        'state': 'interrupted',
        'step': stop_after,
      }
  return jax.tree.leaves(saved['state'])


def rows(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  parsed = [json.loads(line) for line in lines]
  for row in parsed:
    row.pop('images_per_second', None)
  return parsed


def main():
  # The number of cores a program sees changes its sums.
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  folder = pathlib.Path(tempfile.mkdtemp())
  # Eleven runs of one program: compile it once.
  jax.config.update('jax_enable_compilation_cache', True)
  jax.config.update('jax_compilation_cache_dir', str(folder / 'cache'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  config = small_config(write_digits_npz(folder / 'digits.npz'))
  whole = final_arrays(config, folder / 'whole')
  result = {}
  for stop_after in (5, SWITCH - 1, SWITCH, SWITCH + 1, 11):
    workdir = folder / f'stopped{stop_after}'
    stopped = final_arrays(config, workdir, stop_after)
    resumed = final_arrays(config, workdir)
    result[stop_after] = {
      'stopped_early': any(
        not np.array_equal(x, y) for x, y in zip(whole, stopped, strict=True)
      ),
      'equal': all(
        np.array_equal(x, y) for x, y in zip(whole, resumed, strict=True)
      ),
      'same_rows': rows(folder / 'whole') == rows(workdir),
    }
  print(json.dumps(result))


if __name__ == '__main__':
  sys.exit(main())
