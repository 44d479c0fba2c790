"""The network whose predictions are ŷ: of a finished run, or of a file."""

import functools
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tsla import smoothing
from tsla.data import array_cache
from tsla.data.datasets import Dataset
from tsla.data.pipeline import View, clean_view
from tsla.errors import InputError
from tsla.models import create_configured, pretrained
from tsla.runs.checkpoint import Checkpoints
from tsla.runs.directory import RunRecord, read_run

if TYPE_CHECKING:
  from tsla.config.schema import Section

_RUN, _WEIGHTS = 'config.teacher.run', 'config.teacher.weights'


class Teacher(NamedTuple):
  """A network that is trained no more, and how it is asked."""

  model: nn.Module
  variables: Any  # {'params': …, 'batch_stats': …}
  temperature: float = 1.0  # its logits are divided by it
  view: str = 'augmented'  # what it sees; 'clean': each image once, as it is

  def predict(self, variables: Any, images: jax.Array) -> jax.Array:
    """ŷ of what a network sees; the variables may be traced."""
    logits = self.model.apply(variables, images, train=False)
    return smoothing.teacher(logits, self.temperature)

  def fingerprint(self) -> str:
    """SHA-256 over the variables: names, shapes, types and bits."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
      array, name = np.asarray(leaf), jax.tree_util.keystr(path)
      digest.update(repr((name, array.shape, array.dtype.name)).encode())
      digest.update(array.tobytes())
    return digest.hexdigest()


def teacher_target(
  teacher: Teacher, dataset: Dataset, view: View, batch_size: int
) -> smoothing.Target:
  """ŷ is what the teacher predicts.

  With the view 'clean' it is asked now, `batch_size` images at a time, and what
  it says of each image is kept on the device.
  """
  if teacher.view == 'augmented':
    return smoothing.Target(
      lambda variables, state, seen: teacher.predict(variables, seen.images),
      teacher.variables,
    )
  facts = {  # all that ŷ of the clean images follows from, to the last bit
    **view._replace(pad=0, flip=False)._asdict(),
    'data': dataset.fingerprint,
    'batch': batch_size,
    'teacher': teacher.fingerprint(),
    'network': jnp.dtype(teacher.model.dtype).name,
    'temperature': teacher.temperature,
    'jax': jax.__version__,
    'device': jax.local_devices()[0].device_kind,
  }
  images = dataset.train.images
  rows = array_cache.cached_array(
    *('y_hat', facts),
    lambda: _on_clean_images(teacher, images, view, batch_size),
  )
  return smoothing.Target(
    lambda rows, state, seen: rows[seen.indices].astype(jnp.float32), rows
  )


def _on_clean_images(
  teacher: Teacher, images: np.ndarray, view: View, batch_size: int
) -> np.ndarray:
  """ŷ of every training image as it is, `f16[N, K]`."""

  @jax.jit
  def of_batch(variables: Any, images: jax.Array) -> jax.Array:
    y_hat = teacher.predict(variables, clean_view(view, images))
    return y_hat.astype(jnp.float16)

  size = min(batch_size, len(images))
  ask = functools.partial(of_batch, teacher.variables)
  return in_batches(ask, images, size)


def in_batches(
  function: Callable[[np.ndarray], jax.Array], images: np.ndarray, size: int
) -> np.ndarray:
  """What a function says of each image, asked for `size` at a time."""
  parts = []
  for first in range(0, len(images), size):
    # The last batch is filled up: another size would be compiled anew.
    picked = np.arange(first, first + size).clip(max=len(images) - 1)
    parts.append(np.asarray(function(images[picked])))
  return np.concatenate(parts)[: len(images)]


def load_teacher(
  options: 'Section', dataset: Dataset, view: View
) -> Teacher | None:
  """The teacher that the section `teacher` names; None where it names none.

  `view` is how the student sees its images. Raises InputError for one that is
  not there, not finished, or of other classes or other input.
  """
  if options.run:
    run = _finished_run(options.run, dataset.name, view)
    fits = f'does not fit the {dataset.num_classes} classes of {dataset.name}'
    model, variables = restore(
      *(run, dataset.num_classes, dataset.image_shape, view),
      where=f'{_RUN} = {options.run!r}: {fits}',
      allowed='a run on this data set',
      cure=f'--{_RUN}=ITS_WORKDIR',
    )
  elif options.weights:
    model, variables = _of_file(options, dataset, view)
  else:
    return None
  return Teacher(model, variables, options.temperature, options.view)


def check_source(options: 'Section', data_name: str, view: View) -> None:
  """Raises InputError if the teacher is of no use; reads no data set."""
  if options.run:
    _finished_run(options.run, data_name, view)
  elif options.weights:
    sha256 = options.weights_sha256
    pretrained.read_state_dict(options.weights, sha256, _WEIGHTS)


def _finished_run(path: str, data_name: str, view: View) -> RunRecord:
  where = f'{_RUN} = {path!r}'
  run = read_run(path, where)
  if run.status['state'] != 'done':
    raise InputError(
      f'{where}: that run is {run.status["state"]}, not done',
      allowed='the directory of a finished run',
      cure='train it first, then --config.teacher.run=ITS_WORKDIR',
    )
  data = run.config.data
  for name, there, here in (
    ('data.name', data.name, data_name),
    ('data.mean', data.mean, view.mean),
    ('data.std', data.std, view.std),
    ('augment.crop', run.config.augment.crop, view.crop),
  ):
    if there != here:
      problem = f'{where}: its {name} is {there}'
      raise InputError(problem, allowed=f'{here}, as here')
  return run


def restore(
  run: RunRecord,
  num_classes: int,
  shape: tuple[int, int, int],
  view: View,
  **misfit: str,
) -> tuple[nn.Module, Any]:
  """A run's network for stored images of this shape, and its last variables.

  `misfit` is what an InputError says of other classes or another input.
  """
  model = create_configured(run.config.model, num_classes)
  images = jnp.zeros((1, *view.input_shape(shape)), jnp.float32)
  init = functools.partial(model.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), images)
  with Checkpoints(run.checkpoints) as checkpoints:
    # By name: whatever optimiser trained it.
    step = run.status.get('step')
    variables = checkpoints.restore(dict(shapes), step, part=True, **misfit)
  return model, jax.device_put(variables)


def _of_file(
  options: 'Section', dataset: Dataset, view: View
) -> tuple[nn.Module, Any]:
  """The file says which network it is; its input is normalised as here."""
  model, variables, _ = pretrained.load_network(
    options.weights,
    sha256=options.weights_sha256,
    field=_WEIGHTS,
    dtype=jnp.dtype(view.dtype),
  )
  *_, channels, _ = variables['params']['conv1']['kernel'].shape
  there = model.num_classes, channels
  here = dataset.num_classes, dataset.image_shape[-1]
  if there != here:
    form = '{} classes, images of {} channels'
    raise InputError(
      f'{_WEIGHTS} = {options.weights!r}: a network for {form.format(*there)}',
      allowed=f'{form.format(*here)}, as of {dataset.name}',
      cure='fine-tune it on this data set with --config.model.weights, then '
      '--config.teacher.run=THAT_WORKDIR',
    )
  return model, variables
