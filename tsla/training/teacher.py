"""The network that ŷ follows from: of a finished run, or of a file.

ŷ are its predictions, or how alike it finds the classes, which a file may say
in its place.
"""

import functools
import hashlib
import io
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
from tsla.files import read_bytes, untrusted
from tsla.models import create_configured, pretrained
from tsla.runs.checkpoint import Checkpoints
from tsla.runs.directory import MODEL, RunRecord, read_run

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


class ClassRows(NamedTuple):
  """ŷ of each class, as a file has it."""

  y_hat: np.ndarray  # f32[K, K], rows of sum 1

  def fingerprint(self) -> str:
    """SHA-256 of the numbers."""
    return hashlib.sha256(self.y_hat.tobytes()).hexdigest()


def teacher_target(
  teacher: Teacher | ClassRows,
  dataset: Dataset,
  view: View,
  batch_size: int,
  by_class: bool = False,
) -> smoothing.Target:
  """ŷ is what the teacher predicts, or `by_class` how alike it finds them.

  With the view 'clean', and by class, it is asked now, `batch_size` images at a
  time, and what it says of each image or class is kept on the device.
  """
  if isinstance(teacher, ClassRows):
    return _of_classes(teacher.y_hat)
  if teacher.view == 'augmented' and not by_class:
    return smoothing.Target(
      lambda variables, state, seen: teacher.predict(variables, seen.images),
      teacher.variables,
    )
  facts = {  # all that ŷ of the clean images follows from, to the last bit
    **view._replace(pad=0, flip=False)._asdict(),
    'data': dataset.fingerprint,
    'batch': batch_size,
    'teacher': teacher.fingerprint(),
    'network': jnp.dtype(getattr(teacher.model, 'dtype', 'float32')).name,
    'temperature': teacher.temperature,
    'jax': jax.__version__,
    'device': jax.local_devices()[0].device_kind,
  }
  del facts['crop_area']  # as flips: it is of training
  function = _class_rows if by_class else _on_clean_images
  compute = functools.partial(function, teacher, dataset, view, batch_size)
  if by_class:
    rows = array_cache.cached_array('class_similarity', facts, compute)
    return _of_classes(rows)
  rows = array_cache.cached_array('y_hat', facts, compute)
  return smoothing.Target(
    lambda rows, state, seen: rows[seen.indices].astype(jnp.float32), rows
  )


def _of_classes(rows: np.ndarray) -> smoothing.Target:
  rows = jnp.asarray(rows)
  return smoothing.Target(lambda rows, state, seen: rows[seen.labels], rows)


def _class_rows(
  teacher: Teacher, dataset: Dataset, view: View, batch_size: int
) -> np.ndarray:
  """By the cosines of mean features, the last layer's input, f32[K, K]."""

  @jax.jit
  def of_batch(variables: Any, images: jax.Array) -> jax.Array:
    images = clean_view(view, images)
    _, sown = teacher.model.apply(
      variables, images, train=False, mutable=['intermediates']
    )
    if 'features' not in sown.get('intermediates', {}):
      problem = "smoothing.target = 'class_similarity': config.teacher"
      allowed = 'a network that sows its features, or a file of teacher.matrix'
      raise InputError(f'{problem} sows no features', allowed=allowed)
    return sown['intermediates']['features'][0].astype(jnp.float32)

  images, labels = dataset.train.images, dataset.train.labels
  ask = functools.partial(of_batch, teacher.variables)
  features = in_batches(ask, images, min(batch_size, len(images)))
  means = np.zeros((dataset.num_classes, features.shape[1]))
  for label in np.unique(labels):
    means[label] = features[labels == label].mean(0, dtype=np.float64)
  return np.asarray(smoothing.class_similarity(means))


def _on_clean_images(
  teacher: Teacher, dataset: Dataset, view: View, batch_size: int
) -> np.ndarray:
  """ŷ of every training image as it is, `f16[N, K]`."""

  @jax.jit
  def of_batch(variables: Any, images: jax.Array) -> jax.Array:
    y_hat = teacher.predict(variables, clean_view(view, images))
    return y_hat.astype(jnp.float16)

  ask = functools.partial(of_batch, teacher.variables)
  images = dataset.train.images
  return in_batches(ask, images, min(batch_size, len(images)))


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
) -> Teacher | ClassRows | None:
  """What the section `teacher` names; None where it names nothing.

  `view` is how the student sees its images. Raises InputError for one that is
  not there, not finished, or of other classes or other input.
  """
  if options.matrix:
    return class_rows_of(options.matrix, dataset)
  if options.run:
    run = _finished_run(options.run, dataset.name, view, dataset)
    model, variables = restore(
      *(run, dataset.num_classes, dataset.image_shape, view),
      where=f'{_RUN} = {options.run!r}: does not fit {dataset.name}',
      allowed=f'a run on its {dataset.num_classes} classes',
      cure=f'--{_RUN}=ITS_WORKDIR',
    )
  elif options.weights:
    model, variables = _of_file(options, dataset, view)
  else:
    return None
  return Teacher(model, variables, options.temperature, options.view)


def class_rows_of(path: str, dataset: Dataset) -> ClassRows:
  """ŷ of each class out of a file; InputError for one that is of no use."""
  where, k = f'config.teacher.matrix = {path!r}', dataset.num_classes
  allowed = f'a .csv file of {k} rows of {k} numbers >= 0, each row of sum 1'
  with untrusted(where, allowed=allowed):
    text = io.StringIO(read_bytes(path).decode())
    rows = np.loadtxt(text, delimiter=',', ndmin=2)
    if rows.shape != (k, k):
      raise ValueError(f'{rows.shape[0]} rows of {rows.shape[1]} numbers')
    sums, least = rows.sum(1, keepdims=True), rows.min()
    if not (least >= 0 and np.allclose(sums, 1, rtol=0, atol=1e-3)):
      ends = f'{sums.min():g} to {sums.max():g}'
      raise ValueError(f'its rows sum to {ends}, the least number is {least:g}')
  return ClassRows((rows / sums).astype(np.float32))


def check_source(options: 'Section', data_name: str, view: View) -> None:
  """Raises InputError if the teacher is of no use; reads no data set."""
  if options.run:
    _finished_run(options.run, data_name, view)
  elif options.weights:
    sha256 = options.weights_sha256
    pretrained.read_state_dict(options.weights, sha256, _WEIGHTS)


def _finished_run(
  path: str, data_name: str, view: View, dataset: Dataset | None = None
) -> RunRecord:
  where = f'{_RUN} = {path!r}'
  run = read_run(path, where)
  if (state := run.status['state']) != 'done':
    problem = f'{where}: that run is {state}, not done'
    cure = f'train it first, then --{_RUN}=ITS_WORKDIR'
    raise InputError(problem, allowed='a finished run', cure=cure)
  data = run.config.data
  facts = [
    ('data.name', data.name, data_name),
    ('data.mean', data.mean, view.mean),
    ('data.std', data.std, view.std),
    ('augment.crop', run.config.augment.crop, view.crop),
  ]
  if dataset and (run.path / MODEL).exists():  # an earlier version's lacks it
    about, shape = run.network(where), [*dataset.image_shape]
    names = zip(about['class_names'], dataset.class_names, strict=False)
    facts += [('image_shape', about['image_shape'], shape)]
    facts += [(f'class {k}', *both) for k, both in enumerate(names)]
  for name, there, here in facts:
    if there != here:
      problem, allowed = f'{where}: its {name} is {there}', f'{here}, as here'
      cure = f'train a teacher on this set, then --{_RUN}=ITS_WORKDIR'
      raise InputError(problem, allowed=allowed, cure=cure)
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
