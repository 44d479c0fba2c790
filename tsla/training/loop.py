"""The sequence of a run, on one page.

config → data → model and optimiser → restore → (train a chunk → log → probe →
save → evaluate)*. What each word means stands in the file of that name.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
from clu.parameter_overview import get_parameter_overview

import tsla
from tsla.config.checks import check_own_method, validate
from tsla.config.durations import Durations, resolve
from tsla.config.forms import flatten, own_files
from tsla.config.from_data import said, settle
from tsla.data import batches, datasets
from tsla.errors import InputError
from tsla.programs import sha256
from tsla.runs.checkpoint import Checkpoints, check_space
from tsla.runs.directory import RunDirectory
from tsla.runs.environment import compiling_alone
from tsla.runs.lifecycle import Interrupted, watch_progress, watch_signals
from tsla.runs.log import RunLog
from tsla.runs.manifest import digests, host_copy, named
from tsla.runs.progress import Progress
from tsla.training import build as build_lib
from tsla.training import finished, parallel
from tsla.training import teacher as teacher_lib
from tsla.training.announcement import announcement
from tsla.training.build import Compiled, build, check_fits, view_of
from tsla.training.feeds import length_at
from tsla.training.optimizer import end_of_smoothing
from tsla.training.reporter import Diverged, Reporter
from tsla.training.start import Start, check_origin, find_start
from tsla.training.step import TrainState

# Where things lie may differ between processes: what lies there is compared.
_PLACES = {
  *('data.path', 'model.weights'),
  *('teacher.run', 'teacher.weights', 'teacher.matrix'),
}


def train_and_evaluate(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike,
  *,
  allow_changed_config: bool = False,
  overview: bool = False,
) -> dict[str, float]:
  """Trains what `config` says, from the newest checkpoint in `workdir` if any.

  The run is a function of (config, data): one that was interrupted, and is
  started again with the same arguments, ends with the same bits on the CPU; one
  that is finished returns at once. `allow_changed_config` goes on with a run of
  another config, as far as the shapes of its state fit; `overview` lists the
  parameters of the network.

  Returns the last evaluation on the test set, as `metrics.finalize`. Raises
  InputError, Diverged where a loss or the state is not finite (checkpoints
  before it are kept), and Interrupted after a signal and a save.

  Reference:
    Xu et al., arXiv:2006.11653, the TSLA algorithm.
  """
  config = validate(config)
  parallel.check_platform()
  with parallel.agreement() as facts:
    asked, config = config, settle(config)
    facts |= _facts(config)
    directory = RunDirectory(
      workdir, config, allow_changed_config=allow_changed_config
    )
    devices = parallel.choose(config.parallel, config.batch_size)
    if not directory.has_begun:
      check_origin(config.model, config.init.fork_from, config.epochs)
    view = view_of(config)
    teacher_lib.check_source(config.teacher, config.data.name, view)
    check_own_method(config.smoothing)
    try:
      dataset = datasets.load_dataset(config.data)
    except InputError as error:
      if directory.result is None:
        raise
      print(f'{directory.path}: this run is finished, but its data cannot be')
      print(f'compared with what is there now: {error.problem}')
      return directory.result
    if config.data.feed == 'auto' and directory.result is None:  # it stays
      config.data.feed = directory.feed or 'auto'
    facts['feed'] = config.data.feed
    check_fits(config, dataset, devices.memory(), devices.mesh.size)
    teacher = teacher_lib.load_teacher(config.teacher, dataset, view)
    taught_by = teacher.fingerprint() if teacher else ''
    facts |= {'data set': dataset.fingerprint, 'teacher': taught_by}
    examples = len(dataset.train.labels)
    per_epoch = batches.steps_per_epoch(examples, config.batch_size)
    durations = resolve(config, per_epoch)
    shapes = jax.eval_shape(
      lambda: build_lib.first_state(
        *(config, dataset, durations), build_lib.tables_of(config, durations)
      )
    )
    check_space(directory.checkpoints, shapes)

  claim = directory.claim(dataset.fingerprint, taught_by)
  with (
    parallel.claimed(directory.path, claim),
    watch_signals(lambda: directory.give_up('interrupted')) as requested,
    watch_progress(
      *(config.watchdog_minutes, directory.stacks),
      give_up=lambda: directory.give_up('stuck'),
    ) as alive,
    Checkpoints(
      directory.checkpoints, durations.keep_steps, directory.identity
    ) as checkpoints,
  ):
    if directory.result is not None:
      checkpoints.confirm(durations.total_steps)
      print(f'{directory.path}: this run is finished')
      return directory.result
    name = f'{config.model} {config.batch_size} {config.smoothing.target}'
    with compiling_alone(f'state {name}'):
      run = build(config, dataset, durations, devices, teacher)
    start = find_start(
      *(config, run.state, run.tables, checkpoints, durations),
      *(dataset.fingerprint, taught_by, dataset.class_names),
    )
    directory.refuse_another(start.saved)
    if jax.process_count() > 1:
      # Of weights, of another run, or what lies on a disk of one machine.
      same = digests(host_copy(start.state)) | {'feed': run.feed}
      parallel.check_same(same)
    directory.begin(
      *(start.step, durations.total_steps),
      **{'notes': dataset.notes, 'left_out': dataset.left_out},
      feed=run.feed,
    )
    kept, shown = 0 if start.rows else start.step, jax.process_index() == 0
    name += f' {config.smoothing.method}'  # its programs, but not its state
    progress = Progress(durations, config.batch_size, start.step, name, shown)
    with (
      contextlib.closing(progress),
      directory.log(kept, start.saved.get('log')) as log,
      _noted(directory, checkpoints),
    ):
      if overview:
        progress.say(get_parameter_overview(start.state.params))
      if found := said(asked, config):
        progress.say(found)
      progress.say(announcement(config, dataset, durations, start))
      progress.say(f'devices    {devices.describe()}')
      progress.say(f'feed       {run.feed}')
      progress.say(f'directory  {directory.path}')
      reporter = Reporter(
        *(log, progress, durations, end_of_smoothing(run.tables)),
        *(list(named(start.state)), dataset.num_classes, alive),
      )
      reporter.copy_parent_log(start)
      state, test = _train(
        *(run, start, durations, config.eval_test_curve),
        *(reporter, checkpoints, log),
        stop_signal=lambda s: parallel.max_over_processes(requested.signum, s),
      )
    checkpoints.confirm(durations.total_steps)
    result = finished.describe_and_predict(config, dataset, state)
    directory.finish(*result, durations.total_steps)
  directory.write_status('done', durations.total_steps, test=test)
  return test


def _facts(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """What all processes of a run agree on before they read anything."""
  flat = flatten(config)
  for name, text in own_files(flat).items():
    flat[name] = text.rpartition(':')[2], sha256(text)
  facts = {f'config.{name}': flat[name] for name in flat.keys() - _PLACES}
  return facts | {'versions': (tsla.__version__, jax.__version__, sys.version)}


@contextlib.contextmanager
def _noted(directory: RunDirectory, checkpoints: Checkpoints) -> Iterator[None]:
  """Says in the directory how a run ended that did not come to its end."""
  try:
    yield
  except (Diverged, Interrupted) as stop:
    if isinstance(stop, Diverged):
      checkpoints.discard(stop.step)
    directory.write_status(stop.status, checkpoints.latest_step or 0)
    raise
  finally:
    checkpoints.wait()  # before the log, which a save syncs, is closed


def _train(
  run: Compiled,
  start: Start,
  durations: Durations,
  test_curve: bool,
  reporter: Reporter,
  checkpoints: Checkpoints,
  log: RunLog,
  stop_signal: Callable[[TrainState], int],
) -> tuple[TrainState, dict[str, float]]:
  """Goes on from `start` to the end of the run; its state and evaluation.

  Each way through does one thing, and asks again whether to stop. A state is
  saved before it is evaluated, so that a stop in the evaluation loses nothing;
  but after it is probed, because it holds what the probe decided.
  """
  per_epoch, total = durations.steps_per_epoch, durations.total_steps
  state, step, progress = start.state, start.step, reporter.progress
  while True:
    if step not in log.probes and _due(step, durations.probe_every):
      reporter.flush()
      with progress.compiling('probe'):
        state = reporter.probe(step, state, run.probe)
    signum = stop_signal(state)
    at_end = step == total
    to_save = _due(step, durations.save_every) or step in durations.keep_steps
    if step > start.step and (signum or at_end or to_save):
      reporter.flush()  # a state that is not finite is not saved
      checkpoints.save(step, state, reporter.top1, log)
    if signum:
      raise Interrupted(signum)
    due = at_end or (step > 0 and _due(step, durations.eval_every))
    kinds = [k for k in run.evaluate if at_end or test_curve or k != 'eval']
    kinds = [k for k in kinds if due and step not in log.evaluations[k]]
    if kinds:
      reporter.flush()
      with progress.compiling(f'{kinds[0]} metrics'.replace('eval', 'test')):
        found = run.evaluate[kinds[0]](state)
      reporter.evaluation(kinds[0], step, found)
      continue
    if at_end:
      return state, log.evaluations['eval'][step]

    if step % per_epoch == 0:
      progress.skip_time()
    length = length_at(step, per_epoch, run.longest)
    with progress.compiling('update'):
      state, row = run.train_chunk(state, length, step)
    reporter.chunk(step, step + length, row)
    step += length


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0
