"""What the runs of a table read: prepared and checked before the first one."""

import pathlib
from collections.abc import Sequence

from tsla.config import durations
from tsla.config.forms import flatten
from tsla.config.from_data import settle
from tsla.data import batches, datasets
from tsla.errors import InputError
from tsla.runs.directory import read_saved, state_of
from tsla.sweep.plan import PlannedRun
from tsla.training.build import check_fits
from tsla.training.start import read_weights
from tsla.training.teacher import class_rows_of


def check_inputs(runs: Sequence[PlannedRun], workdir: pathlib.Path) -> None:
  """Prepares missing sets and reads every file that a run will read.

  InputError is raised where data, weights and configs do not fit together, or
  a run that has begun did so on other data.
  """
  if all(state_of(workdir / run.directory) == 'done' for run in runs):
    return
  loaded = {}
  for run in runs:
    config = settle(run.config)
    for name in ('model', 'teacher'):
      path, sha256 = config[name].weights, config[name].weights_sha256
      if path and path not in loaded:
        field = f'config.{name}.weights'
        loaded[path] = read_weights(path, sha256, field)
    key = str(flatten(config.data))
    if key not in loaded:
      loaded[key] = datasets.load_dataset(config.data)
    dataset = loaded[key]
    path = config.teacher.matrix
    if path and (path, key) not in loaded:
      loaded[path, key] = class_rows_of(path, dataset)
    check_fits(config, dataset, memory=None)
    examples = len(dataset.train.labels)
    per_epoch = batches.steps_per_epoch(examples, config.batch_size)
    durations.resolve(config, per_epoch)
    begun = read_saved(workdir / run.directory)
    if begun and begun.fingerprint != dataset.fingerprint:
      problem = f'{workdir / run.directory}: was trained on other data'
      allowed = f'those of SHA-256 {begun.fingerprint[:12]}…'
      cure = 'another --workdir, or the data as they were'
      raise InputError(problem, allowed=allowed, cure=cure)
