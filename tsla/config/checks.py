"""The checks of a whole config that need neither data nor devices."""

import difflib
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tsla import models, programs
from tsla.config import durations, forms, tables
from tsla.config.forms import flatten
from tsla.config.schema import FIELDS, Config, Section, check_value
from tsla.errors import InputError, Problems
from tsla.smoothing import method_checks

# Fields of which one may be set, and why.
_ONE_OF_TWO = {
  ('model.weights', 'init.fork_from'): (
    "one of the two, '' the other: a run begins in one place"
  ),
  ('smoothing.rule', 'init.fork_from'): (
    "'', a run of its own: another run's decisions are not this one's"
  ),
  ('augment.pad', 'augment.crop_area'): (
    'one of the two, 0 the other: an image is cropped in one way'
  ),
}


def check_file(path: pathlib.Path, flag: str, others: str) -> None:
  """Raises InputError unless `path` is there; `others` is a pattern."""
  if os.path.isfile(path):
    return
  folder, _, pattern = others.rpartition('/')
  known = sorted(map(str, pathlib.Path(folder).glob(pattern)))
  near = difflib.get_close_matches(str(path), known, n=1, cutoff=0.0)
  problem = f'--{flag}={path}: no such file'
  cure = f'--{flag}={near[0]}' if near else 'run in the folder of main.py'
  raise InputError(problem, allowed=', '.join(known), cure=cure)


def validate(config: Config) -> Config:
  """The normal form of a config whose fields, alone and together, are allowed.

  There a field that nothing uses has its default, and options are spelt in the
  one way. `tsla.training.build.check_fits` checks what depends on the data.
  """
  flat, problems = flatten(config), Problems()
  for name, value in flat.items():
    with problems:
      check_value(name, value)
  for name in FIELDS:
    if name not in flat:
      problem = f'config.{name}: missing'
      raise InputError(problem, cure='start from default_config()')
  problems.raise_all()
  for name in ('model.weights', 'teacher.weights'):
    if flat[f'{name}_sha256'] and not flat[name]:
      problem = f'config.{name}_sha256 = {flat[f"{name}_sha256"]!r}'
      allowed = 'the SHA-256 of a file that is named'
      cure = f'--config.{name}=FILE'
      raise InputError(f'{problem} without {name}', allowed=allowed, cure=cure)
  config = config.copy_and_resolve_references()
  reset = {name: FIELDS[name].default for name in forms.unused(flat)}
  config.update_from_flattened_dict(reset)
  durations.round_percents(config)
  flat = flatten(config)
  _check_needs(flat, problems)
  for names, allowed in _ONE_OF_TWO.items():
    if all(flat[name] for name in names):
      texts = [f'config.{name} = {flat[name]!r}' for name in names]
      cures = [f'--config.{name}={FIELDS[name].default}' for name in names]
      cure = ' or '.join(cures)
      problems.note(' with '.join(texts), allowed=allowed, cure=cure)
  with problems:
    _, own = models.options_given(config.model)
    config.model.options = programs.normal_form(own)
  with problems:
    given = tables.options_given(config.smoothing).values()
    config.smoothing.options = programs.normal_form(*(own for _, own in given))
    _check_theta(config.smoothing)
  with problems:
    steps = durations.resolve(config)
  problems.raise_all()
  if not programs.is_own(config.smoothing.schedule):  # it may make an array
    tables.theta_schedule(config.smoothing, steps)
  tables.rules_of(config.smoothing)
  return config


def _check_needs(flat: Mapping[str, Any], problems: Problems) -> None:
  """Finds fields that are not set, and one that is chosen needs them."""
  defaults = flatten(forms.default_config())
  for field, entry in tables.chosen(flat).items():
    for need in entry.needs:
      names = (need,) if isinstance(need, str) else need
      fields = [n for n in FIELDS if {n, FIELDS[n].duration} & {*names}]
      given = [name for name in fields if flat[name] != defaults[name]]
      if given and (len(given) == 1 or need in names):
        continue  # several units of a duration are refused with their values
      fields = given or fields[: len(names)]  # of a duration the first unit
      units = ' (or _steps, _percent)' * bool(FIELDS[fields[0]].duration)
      them, are = ('it', 'is') if need in names else ('exactly one', 'are')
      flags = [f'config.{name}' for name in fields]
      known = [FIELDS[name] for name in fields]
      cures = (f'--{n}={f.example}' for n, f in zip(flags, known, strict=True))
      problems.note(
        f'{" and ".join(flags)}{units} {are} {"" if given else "not "}set, '
        f'but {field} = {flat[field]!r} needs {them}',
        allowed='; '.join(f'{f.meaning} ({f.allowed})' for f in known),
        cure=' or '.join(cures),
      )


def _check_theta(smoothing: Section) -> None:
  """Raises InputError for a θ or a rule that the method has no sense of."""
  method, theta = tables.method_of(smoothing), smoothing.theta
  if not method.lowest <= theta <= method.highest:
    problem = f'config.smoothing.theta = {theta!r}: out of the bounds of '
    problem += f'smoothing.method = {smoothing.method!r}'
    allowed = f'{method.lowest:g} to {method.highest:g}'
    cure = '--config.smoothing.theta=…'
    raise InputError(problem, allowed=allowed, cure=cure)
  if smoothing.rule == 'delta' and not (method.mixture and theta > 0):
    raise InputError(
      f"config.smoothing.rule = 'delta' with {smoothing.method} and theta = "
      f'{theta!r}: delta asks about a mixture of labels at theta = 1',
      allowed='a rule that compares the gradients at the theta in use',
      cure='--config.smoothing.rule=mse',
    )


def check_own_method(smoothing: Section) -> None:
  """Tries a method of one's own; computes, so after `parallel.join`."""
  if programs.is_own(name := smoothing.method):
    cure = f'python -m tsla check-method {name} says more'
    with programs.explained(f'config.smoothing.method = {name!r}', name, cure):
      method_checks.check_value(tables.method_of(smoothing))


def notices(names: Iterable[str], configs: Sequence[Config]) -> Iterator[str]:
  """A line a field that is set, not to its default, and no config uses."""
  idle = set.intersection(*(forms.unused(flatten(c)) for c in configs))
  flat = flatten(configs[0])
  for name in sorted(idle.intersection(names)):
    if flat[name] != flatten(forms.default_config())[name]:
      user = tables.USERS[FIELDS[name].duration or name]
      while user in idle:
        user = tables.USERS[user]
      not_used = f'is not used: {user} is {flat[user]!r}'
      yield f'config.{name} = {flat[name]!r} {not_used}'
