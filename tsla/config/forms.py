"""A run's config: its defaults, its checks, its form on disk.

The table `tsla.config.schema.FIELDS` is the one place: defaults, validation,
`main.py --help` and the reader all take it from there. A config file under
`configs/` starts from `default_config()` and changes the few fields that make
its experiment.
"""

import ast
import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import ml_collections

from tsla.config.schema import FIELDS, Field
from tsla.errors import InputError


def default_config() -> ml_collections.ConfigDict:
  """All fields at their defaults, locked against unknown names.

  Example:
    >>> config = default_config()
    >>> config.smoothing.schedule, config.optimizer.momentum
    ('none', 0.9)
  """
  config = ml_collections.ConfigDict()
  for name, field in FIELDS.items():
    *section, leaf = name.split('.')
    place = config
    for part in section:
      if part not in place:
        place[part] = ml_collections.ConfigDict()
      place = place[part]
    place[leaf] = field.default
  return config.lock()


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as `{'section.field': value}`, JSON-ready."""
  flat: dict[str, Any] = {}
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      flat |= {f'{name}.{k}': v for k, v in flatten(value).items()}
    else:
      flat[name] = list(value) if isinstance(value, tuple) else value
  return flat


def unflatten(flat: Mapping[str, Any]) -> ml_collections.ConfigDict:
  """The config that `flatten` made `flat` of; what it lacks is the default.

  Raises:
    InputError: an unknown field, or a value that it may not hold.

  Example:
    >>> unflatten({'optimizer.milestone_epochs': [60, 120]}).optimizer.name
    'sgd'
  """
  config = default_config()
  for name, value in flat.items():
    check_field_name(name)
    _check_value(name, FIELDS[name], value)
  config.update_from_flattened_dict(
    {n: tuple(v) if isinstance(v, list) else v for n, v in flat.items()}
  )
  return config


def identity(flat: dict[str, Any]) -> dict[str, Any]:
  """The fields that make a run this run, where they differ from the default.

  So a field that a later version adds changes no run that does not use it.

  Args:
    flat: as from `flatten`, also one that an earlier version wrote.

  Example:
    >>> config = default_config()
    >>> config.seed, config.data.path = 3, 'elsewhere'
    >>> identity(flatten(config))
    {'seed': 3}
  """
  defaults = flatten(default_config())
  return {
    name: value
    for name, value in flat.items()
    if name not in FIELDS or (FIELDS[name].identity and value != defaults[name])
  }


def config_hash(config: ml_collections.ConfigDict) -> str:
  """Eight hex digits that name this config's `identity`, data and teacher.

  A TFDS set is known by its name. Before they are read, a folder, an .npz and
  a teacher are known by their paths only.
  """
  flat = flatten(config)
  fields = identity(flat)
  paths = ['teacher.run', 'teacher.weights']
  if config.data.name in ('folder', 'npz'):
    paths.append('data.path')
  fields |= {name: flat[name] for name in paths if flat[name]}
  text = json.dumps(fields, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def check_field_name(name: str) -> None:
  """Raises InputError, with the nearest known name, for an unknown field."""
  if name in FIELDS:
    return
  sections = {known.split('.')[0] for known in FIELDS if '.' in known}
  if name in sections:
    inside = [known for known in FIELDS if known.startswith(name + '.')]
    raise InputError(
      f'config.{name}: a section, not a field', allowed=', '.join(inside)
    )
  leaves = {known.split('.')[-1]: known for known in FIELDS}
  near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.6)
  near = near or [
    leaves[leaf]
    for leaf in difflib.get_close_matches(name.split('.')[-1], leaves, n=1)
  ]
  raise InputError(
    f'config.{name}: no such field',
    cure=f'--config.{near[0]}=…' if near else 'python main.py --help lists all',
  )


def set_text(config: ml_collections.ConfigDict, name: str, text: str) -> None:
  """Sets a field as `--config.NAME=TEXT` would; `validate` judges the value.

  Raises:
    InputError: there is no such field, or the text is not of its type.

  Example:
    >>> config = default_config()
    >>> set_text(config, 'optimizer.milestone_epochs', '(30, 60)')
    >>> config.optimizer.milestone_epochs
    (30, 60)
  """
  check_field_name(name)
  field = FIELDS[name]
  kind = type(field.default)
  try:
    if kind is not str:
      text = ast.literal_eval(text.title() if kind is bool else text)
    value = kind(text) if (kind, type(text)) == (float, int) else text
    if type(value) is not kind:
      raise ValueError
  except (SyntaxError, ValueError):
    raise InputError(
      f'config.{name} = {text!r}: not of type {kind.__name__}',
      allowed=field.allowed,
      cure=f'--config.{name}=…',
    ) from None
  *section, leaf = name.split('.')
  place = config[section[0]] if section else config
  place[leaf] = value


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks every field, and θ against its schedule, before anything runs.

  What depends on the data set is checked when that is known:
  `tsla.config.durations.resolve`, `tsla.training.build.check_fits`.

  Raises:
    InputError: an unknown or missing field, a wrong type, a value out of range,
      a θ that no schedule uses or a schedule without one.
  """
  flat = flatten(config)
  for name in flat:
    check_field_name(name)
  for name, field in FIELDS.items():
    if name not in flat:
      raise InputError(
        f'config.{name}: missing', cure='start from default_config()'
      )
    _check_value(name, field, flat[name])
  if config.model.weights and config.init.fork_from:
    raise InputError(
      f'config.model.weights = {config.model.weights!r} and init.fork_from = '
      f'{config.init.fork_from!r}: a run begins in one place',
      cure='--config.model.weights= or --config.init.fork_from=',
    )
  teachers = bool(config.teacher.run) + bool(config.teacher.weights)
  if teachers != (config.smoothing.target == 'teacher'):
    raise InputError(
      f'config.teacher.run = {config.teacher.run!r} and teacher.weights = '
      f'{config.teacher.weights!r} with smoothing.target = '
      f'{config.smoothing.target!r}',
      allowed='exactly one with target teacher, none with any other',
      cure='--config.teacher.run=WORKDIR_OF_A_FINISHED_RUN, or '
      '--config.teacher.weights=FILE',
    )
  theta, schedule = config.smoothing.theta, config.smoothing.schedule
  if (theta > 0) != (schedule != 'none'):
    raise InputError(
      f'config.smoothing.theta = {theta} with smoothing.schedule = '
      f'{schedule!r}',
      allowed='theta = 0 with schedule none, theta > 0 with any other',
      cure='--config.smoothing.theta=… or --config.smoothing.schedule=…',
    )
  _check_rule(config)


def _check_rule(config: ml_collections.ConfigDict) -> None:
  """Schedule auto has a rule, and the rule has what it looks at."""
  rule, schedule = config.smoothing.rule, config.smoothing.schedule
  if bool(rule) != (schedule == 'auto'):
    raise InputError(
      f'config.smoothing.rule = {rule!r} with smoothing.schedule = '
      f'{schedule!r}',
      allowed='a rule with schedule auto, none with any other',
      cure='--config.smoothing.rule=delta or --config.smoothing.schedule=…',
    )
  if rule and not config.variance.every_epochs:
    raise InputError(
      'config.variance.every_epochs = 0 with smoothing.schedule = '
      "'auto': the rule would see nothing",
      allowed='1 or more',
      cure='--config.variance.every_epochs=1',
    )
  if rule == 'plateau' and not config.data.held_out:
    raise InputError(
      "config.data.held_out = 0.0 with smoothing.rule = 'plateau'",
      allowed='more than 0: the rule looks at the loss there',
      cure='--config.data.held_out=0.1',
    )
  if rule and config.init.fork_from:
    raise InputError(
      f'config.init.fork_from = {config.init.fork_from!r} with '
      "smoothing.schedule = 'auto': another run's decisions are not this one's",
      allowed='a run of its own',
      cure='--config.init.fork_from=',
    )


def _check_value(name: str, field: Field, value: Any) -> None:
  value = tuple(value) if isinstance(value, list) else value
  if type(value) is not type(field.default) or not field.check(value):
    raise InputError(
      f'config.{name} = {value!r}: {field.meaning}',
      allowed=field.allowed,
      cure=f'--config.{name}=…',
    )


def help_text() -> str:
  """Every field with type, default and meaning, one a line."""
  return '\n'.join(
    f'  --config.{name}: {type(field.default).__name__} = {field.default!r}\n'
    f'      {field.meaning} ({field.allowed})'
    for name, field in FIELDS.items()
  )
