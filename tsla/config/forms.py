"""The forms of a config: nested, flat for JSON, one field as text, a hash.

A config file under `configs/` starts from `default_config()` and changes the
few fields that make its experiment.
"""

import ast
import contextlib
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from flax import traverse_util

from tsla import programs
from tsla.config import schema, tables
from tsla.config.schema import FIELDS, Config, Section
from tsla.errors import InputError
from tsla.files import read_bytes


def default_config() -> Config:
  """All fields at their defaults, locked against unknown names."""
  flat = {name: field.default for name, field in FIELDS.items()}
  return Config(traverse_util.unflatten_dict(flat, sep='.')).lock()


def flatten(config: Section) -> dict[str, Any]:
  """A section, or a whole config, as `{'section.field': value}`, JSON-ready."""
  flat = traverse_util.flatten_dict(config.to_dict(), sep='.')
  return {n: list(v) if isinstance(v, tuple) else v for n, v in flat.items()}


def unflatten(flat: Mapping[str, Any]) -> Config:
  """The config that `flatten` made `flat` of; what it lacks is the default."""
  config = default_config()
  for name, value in flat.items():
    schema.check_value(name, value)
  config.update_from_flattened_dict(
    {n: tuple(v) if isinstance(v, list) else v for n, v in flat.items()}
  )
  return config


def keep_given(config: Config, names: Collection[str]) -> None:
  """Fields given by hand keep value and unit, whatever the data are."""
  config.from_data = tuple(n for n in config.from_data if n not in names)
  durations = {FIELDS[name].duration for name in names} - {''}
  for name, field in FIELDS.items():
    if field.duration in durations and name not in names:
      config.update_from_flattened_dict({name: field.default})


def unused(flat: Mapping[str, Any]) -> set[str]:
  """The fields that other choices use, and not those of `flat`, or defaults."""
  entries = tables.chosen(flatten(default_config()) | flat)
  used = {name for entry in entries.values() for name in entry.fields}
  idle = tables.USERS.keys() - used
  return {n for n, field in FIELDS.items() if (field.duration or n) in idle}


def identity(flat: dict[str, Any]) -> dict[str, Any]:
  """The fields that make a run this run, where they differ from the default.

  So a field that a later version adds changes no run that does not use it. Of
  `FILE.py:name` only ':name' counts: the content of the file makes the run.
  """
  defaults = flatten(default_config())
  idle, own = unused(flat), own_files(flat)
  return {
    name: ':' + value.rpartition(':')[2] if name in own else value
    for name, value in flat.items()
    if name not in FIELDS
    or (FIELDS[name].identity and value != defaults[name] and name not in idle)
  }


def own_files(flat: Mapping[str, Any]) -> dict[str, str]:
  """The fields that are used and hold `FILE.py:name`, with that."""
  idle = unused(flat)
  own = (n for n, table in tables.TABLES.items() if programs.FORM in table)
  texts = {n: str(flat.get(n, '')) for n in own if n not in idle}
  return {name: text for name, text in texts.items() if programs.is_own(text)}


def config_hash(config: Config) -> str:
  """Eight hex digits that name this config's `identity`, data and teacher.

  Before they are read, a folder, an .npz and a teacher are known by their paths
  only; a file of one's own is known by its content, and must be there, and a
  matrix too where it is there.
  """
  flat = flatten(config)
  fields = identity(flat)
  paths = {'teacher.run', 'teacher.weights', 'teacher.matrix'} - unused(flat)
  if config.data.name in ('folder', 'npz'):
    paths.add('data.path')
  fields |= {name: flat[name] for name in paths if flat[name]}
  for name, text in own_files(flat).items():
    fields[f'{name} SHA-256'] = programs.sha256(text)
  if matrix := fields.get('teacher.matrix'):
    with contextlib.suppress(OSError):  # which the run explains
      content = read_bytes(matrix)
      fields['teacher.matrix SHA-256'] = hashlib.sha256(content).hexdigest()
  text = json.dumps(fields, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def parse_text(name: str, text: str) -> Any:
  """The value that `--config.NAME=TEXT` means; `check_value` judges it."""
  schema.check_field_name(name)
  kind = type(FIELDS[name].default)
  if kind is str:
    return text
  try:
    value = ast.literal_eval(text.title() if kind is bool else text)
    value = kind(value) if (kind, type(value)) == (float, int) else value
    if type(value) is not kind:
      raise ValueError
  except programs.NO_LITERAL:
    problem = f'config.{name} = {text!r}: not of type {kind.__name__}'
    allowed, cure = FIELDS[name].allowed, f'--config.{name}=…'
    raise InputError(problem, allowed=allowed, cure=cure) from None
  return value
