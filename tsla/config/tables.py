"""What the fields of a config choose from: one table each.

An entry says how it is made and which fields it has a use for. A new one is a
line here, and one in `schema` for a field of its own.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tsla import models, programs, smoothing
from tsla.errors import InputError
from tsla.evaluation.metrics import EvalSums, Metrics
from tsla.programs import FORM
from tsla.smoothing import rules
from tsla.smoothing.method import UNIFORM, Method, Target, Task
from tsla.smoothing.methods import METHODS

if TYPE_CHECKING:  # else jax, flax and optax suffice for a step of training
  from tsla.config.durations import Durations
  from tsla.config.schema import Section


class Entry(NamedTuple):
  """What a name in a table stands for."""

  make: programs.Function | None = None  # None: in a file, or made elsewhere
  # Must be set; durations without their unit, and of a tuple exactly one.
  needs: tuple[str | tuple[str, ...], ...] = ()
  takes: tuple[str, ...] = ()  # fields that it uses besides

  @property
  def fields(self) -> Iterator[str]:
    """All that it has a use for."""
    for need in (*self.needs, *self.takes):
      yield from (need,) if isinstance(need, str) else need


def _auto(theta: float, durations: 'Durations') -> optax.Schedule:
  """θ until a rule decides."""
  most = durations.at('smoothing.max')
  if most is None:
    return smoothing.constant(theta)
  if most <= durations.at('smoothing.min', 0):
    raise ValueError('max_* is not after min_*: nothing could be decided.')
  return smoothing.two_stage(theta, most)


_METHOD = ('smoothing.method', 'smoothing.options')
_ENDS = (*_METHOD, 'smoothing.reset_momentum')  # of schedules that end at θ = 0
_THETA, _DROP = ('smoothing.theta',), ('smoothing.theta', 'smoothing.drop')


def _until(make: programs.Function, takes: tuple[str, ...] = _ENDS) -> Entry:
  """A schedule of θ and the update of `smoothing.drop`."""
  return Entry(lambda t, d: make(t, d.at('smoothing.drop')), _DROP, takes)


# θ over time, from (theta, durations).
SCHEDULES = {
  'none': Entry(lambda t, d: smoothing.none()),
  'constant': Entry(lambda t, d: smoothing.constant(t), _THETA, _METHOD),
  'two_stage': _until(smoothing.two_stage),
  'linear': _until(smoothing.linear_decay),
  'cosine': _until(smoothing.cosine_decay),
  'reversed': _until(lambda t, s: smoothing.piecewise((0.0, t), (s,)), _METHOD),
  'rising': Entry(
    lambda t, d: smoothing.linear_ramp(0.0, t, d.total_steps), _THETA, _METHOD
  ),
  'ramp': Entry(
    lambda t, d, to=0.2: smoothing.linear_ramp(t, to, d.total_steps),
    *(_THETA, _METHOD),
  ),
  'auto': Entry(
    _auto,
    (*_THETA, 'smoothing.rule', 'variance.every_epochs'),
    (*_ENDS, 'smoothing.patience', 'smoothing.min', 'smoothing.max'),
  ),
  FORM: Entry(takes=(*_DROP, *_ENDS)),
}
# A method with a target of its own has no use for another one, nor has one
# that mixes no labels.
_METHODS = {
  name: Entry(
    make,
    takes=('smoothing.target',) * (method.mixture and method.target is None),
  )
  for name, make in METHODS.items()
  for method in [make()]
}


def _prior(task: Task) -> Target:
  prior = smoothing.class_prior(task.labels, task.num_classes)
  return Target(lambda prior, state, seen: prior, prior)


# ŷ, from (task).
TARGETS = {
  'uniform': Entry(lambda task: UNIFORM),
  'prior': Entry(_prior),
  'teacher': Entry(
    needs=(('teacher.run', 'teacher.weights'),),
    takes=('teacher.weights_sha256', 'teacher.view', 'teacher.temperature'),
  ),
  'class_similarity': Entry(
    needs=(('teacher.run', 'teacher.weights', 'teacher.matrix'),),
    takes=('teacher.weights_sha256',),
  ),
  FORM: Entry(),
}
# What ends the smoothing under schedule auto; optimal moves θ, and is no rule.
RULES = {name: Entry(rules.RULES.get(name)) for name in rules.NAMES} | {
  'plateau': Entry(rules.plateau, ('data.validation',)),
  FORM: Entry(),
}
_NETWORK = {'stem': 'model.stem', 'width': 'model.width'}  # by parameter
_NETWORKS = {
  name: Entry(make, takes=tuple(_NETWORK[n] for n in _NETWORK.keys() & known))
  for name, make in models.NETWORKS.items()
  if (known := inspect.signature(make).parameters)
}
# The base optimiser, from (its section, the learning rate).
OPTIMIZERS = {
  'sgd': Entry(
    lambda options, rate: optax.chain(
      optax.add_decayed_weights(options.weight_decay),
      optax.sgd(rate, options.momentum, options.nesterov),
    ),
    takes=('optimizer.momentum', 'optimizer.nesterov'),
  ),
  'adamw': Entry(lambda o, r: optax.adamw(r, weight_decay=o.weight_decay)),
  'lamb': Entry(lambda o, r: optax.lamb(r, weight_decay=o.weight_decay)),
}
# The learning rate over time, from (the optimiser's section, durations).
LEARNING_RATES = {
  'constant': Entry(lambda o, _: optax.constant_schedule(o.learning_rate)),
  'step': Entry(
    lambda o, durations: optax.piecewise_constant_schedule(
      o.learning_rate,
      dict.fromkeys(durations.steps['optimizer.milestone'], o.decay_factor),
    ),
    ('optimizer.milestone',),
    ('optimizer.decay_factor',),
  ),
  'cosine': Entry(
    lambda o, d: optax.cosine_decay_schedule(o.learning_rate, d.total_steps)
  ),
}
_ON = 'on'  # the entry of a field that is neither 0 nor ''
_PROBE = ('variance.num_batches', 'variance.augment', 'variance.mode')
TABLES: dict[str, Mapping[str, Entry]] = {
  'smoothing.schedule': SCHEDULES,
  'smoothing.method': _METHODS | {FORM: Entry(takes=('smoothing.target',))},
  'smoothing.target': TARGETS,
  'smoothing.rule': RULES,
  'model.name': _NETWORKS | {FORM: Entry(takes=(*_NETWORK.values(),))},
  'optimizer.name': OPTIMIZERS,
  'optimizer.schedule': LEARNING_RATES,
  'variance.every_epochs': {_ON: Entry(takes=(*_PROBE, *_METHOD))},
  'data.label_noise': {_ON: Entry(takes=('data.label_noise_seed',))},
  'eval_metrics': {FORM: Entry()},
  'model.weights': {_ON: Entry(takes=('model.weights_sha256',))},
}
# Fields that always count, whoever else needs them.
_CHOSEN = ('smoothing.method', 'smoothing.target', 'smoothing.rule')
_ALWAYS = ('data.validation', *(name for name in TABLES if name not in _CHOSEN))
# By each other field that has users the first of those who may be one.
USERS: dict[str, str] = {
  name: field
  for field, table in reversed(TABLES.items())
  for entry in table.values()
  for name in entry.fields
  if name not in _ALWAYS
}


def chosen(flat: Mapping[str, Any]) -> dict[str, Entry]:
  """The entries that take part in a flat config, by the field that chooses."""
  entries: dict[str, Entry] = {}
  fields = list(_ALWAYS)
  for field in fields:
    table, value = TABLES.get(field, {}), flat.get(field)
    name = _ON if value and _ON in table else str(value)
    entry = table.get(FORM if programs.is_own(name) else name)
    if entry is not None and field not in entries:
      entries[field] = entry
      fields += entry.fields
  return entries


def method_of(smoothing: 'Section') -> Method:
  """The method that the section `smoothing` names, with its options."""
  return _made(smoothing, 'method', Method)


def theta_schedule(
  smoothing: 'Section', durations: 'Durations'
) -> optax.Schedule:
  """θ as a function of the update count."""
  return _made(smoothing, 'schedule', Callable, smoothing.theta, durations)


def target_of(
  options: 'Section', method: Method, task: Task, teacher: Callable[[], Target]
) -> Target:
  """The method's own target, else the one that the section names."""
  if method.target is not None:
    where = f'config.smoothing.method = {options.method!r}'
    return programs.make(method.target, options.method, where, Target, task)
  if options.target in ('teacher', 'class_similarity'):
    return teacher()
  return _made(options, 'target', Target, task)


def rules_of(smoothing: 'Section') -> Mapping[str, programs.Function]:
  """The rules by name; the one in force with its options, or of one's own."""
  text = smoothing.rule
  name = text.rpartition(':')[2]
  if programs.is_own(text) and name in rules.NAMES:
    problem = f'config.smoothing.rule = {text!r}: {name} is another'
    raise InputError(problem, cure='rename the function')
  given = options_given(smoothing)
  if f'rule {text}' not in given:  # none, or optimal, which is none
    return rules.RULES
  function, options = given[f'rule {text}']
  return rules.RULES | {name: functools.partial(function, **options)}


def metrics_of(text: str, num_classes: int) -> Metrics | None:
  """The metrics of one's own that `eval_metrics` names, asked once; or None."""
  if not text:
    return None
  where = f'config.eval_metrics = {text!r}'
  own = programs.load(text, where)
  logits = jax.ShapeDtypeStruct((3, num_classes), jnp.float32)
  labels = jax.ShapeDtypeStruct((3,), jnp.int32)
  made = programs.make(
    jax.eval_shape, text, where, Mapping, own, logits, labels
  )
  taken = {'kind', 'step', 'epoch', 'ece', *EvalSums._fields}
  for name, value in made.items():
    if name in taken or value.shape != (3,):
      problem = f'{where}: gives {name!r} of shape {value.shape} for 3 examples'
      allowed = 'one value an example, under a name that is not one of '
      raise InputError(problem, allowed=allowed + ', '.join(sorted(taken)))
  return own


def learning_rate(
  optimizer: 'Section', durations: 'Durations'
) -> optax.Schedule:
  """The learning rate as a function of the update count."""
  main = LEARNING_RATES[optimizer.schedule].make(optimizer, durations)
  warmup = durations.at('optimizer.warmup', 0)
  if not warmup:
    return main
  # So the first update already moves, and milestones keep their place.
  return lambda count: main(count) * jnp.minimum(1.0, (count + 1) / warmup)


def options_given(
  smoothing: 'Section',
) -> dict[str, tuple[programs.Function, programs.Options]]:
  """The functions that it names, as 'method margin', with their options."""
  functions = {}
  for field in ('method', 'target', 'schedule', 'rule'):
    name, full = smoothing[field], f'smoothing.{field}'
    function = TABLES[full].get(name, Entry()).make
    if programs.is_own(name):
      function = programs.load(name, f'config.{full} = {name!r}')
    if function:
      functions[f'{field} {name}'] = function
  where = f'config.smoothing.options = {smoothing.options!r}'
  known = {name: programs.options_of(f) for name, f in functions.items()}
  given = programs.dispatch(smoothing.options, where, known)
  return {name: (functions[name], given[name]) for name in functions}


def help_on_options(field: str) -> Iterator[str]:
  """What `model.options` or `smoothing.options` may hold: a line a name."""
  for chooser, table in TABLES.items():
    section, _, leaf = chooser.partition('.')
    if field != f'{section}.options':
      continue
    for name, entry in table.items():
      known = entry.make and programs.options_of(entry.make, models.GIVEN)
      if known:
        text = ', '.join(f'{n} = {value!r}' for n, value in known.items())
        yield f'{leaf} {name}: {text}'


def _made(smoothing: 'Section', field: str, kind: Any, *arguments: Any) -> Any:
  """What the function that a field names makes, of the right kind."""
  name = smoothing[field]
  make, options = options_given(smoothing)[f'{field} {name}']
  where = f'config.smoothing.{field} = {name!r}'
  return programs.make(make, name, where, kind, *arguments, **options)
