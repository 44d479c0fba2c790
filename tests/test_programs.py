"""Functions of one's own files, and their options."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import tsla
from tsla import models, programs
from tsla.config import cli, forms, tables
from tsla.config.checks import check_own_method, validate
from tsla.config.durations import Durations
from tsla.config.forms import default_config
from tsla.errors import InputError
from tsla.smoothing.method import Seen, Task

MINE = """
import dataclasses
import jax.numpy as jnp
from flax import linen as nn
import tsla
from tsla.smoothing.method import Target

runs = []
runs.append(1)


@dataclasses.dataclass
class Unused:
  x: 'int' = 1


def soft(temperature: float = 1.0, kind: str = 'a', on: bool = False):
  def penalty(z, labels, y_hat, kept):
    return temperature * z.max(-1)
  return tsla.Method(tsla.penalised(penalty), highest=2.0)


def waves(theta, durations, periods=2):
  return lambda count: theta * (count % periods)


def rows(task, sharpness=3.0):
  prior = jnp.full(task.num_classes, sharpness)
  return Target(lambda arrays, state, seen: arrays, prior)


def early(seen, memory, *, least=0.5):
  return seen.statistics.delta.value > least


class Net(nn.Module):
  classes: int
  depth: int

  @nn.compact
  def __call__(self, x, *, train):
    for i in range(self.depth):
      x = nn.Dense(3)(x)
    return nn.Dense(self.classes)(x.reshape(len(x), -1))


def net(num_classes, *, dtype, width, depth=2):
  return Net(num_classes, depth)
"""


@pytest.fixture
def mine(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(MINE)
  return str(path)


def refused(message, call, *args):
  with pytest.raises(InputError, match=message) as error:
    call(*args)
  assert len(str(error.value).splitlines()) <= 3
  return str(error.value)


@pytest.mark.parametrize(
  ('text', 'own'),
  [
    ('margin', False),
    ('mine.py', False),
    ('mine.py:', False),
    ('mine:f', False),
    ('/a b/c.d/mine.py:f_1', True),
    ('a.py:20', True),
    ('', False),
  ],
)
def test_a_file_of_one_s_own_is_known_by_its_form(text, own):
  assert programs.is_own(text) == own


def test_a_file_runs_once_until_it_is_edited(mine, tmp_path):
  first = programs.load(f'{mine}:soft', 'w')
  other = programs.load(f'{mine}:waves', 'w')
  assert first is programs.load(f'{mine}:soft', 'w')
  assert first.__globals__ is other.__globals__
  assert first.__globals__['runs'] == [1]
  digest = programs.sha256(f'{mine}:soft')
  (tmp_path / 'mine.py').write_text(MINE + '\n# edited\n')
  assert programs.sha256(f'{mine}:soft') != digest
  assert programs.load(f'{mine}:soft', 'w') is not first


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (None, r'where: .*mine.py: No such file(?s:.*)other.py'),
    ('def f(:', 'where: SyntaxError'),
    ('x = 1\n\n1 / 0', 'where: line 3: ZeroDivisionError'),
    ('import sys; sys.exit(3)', 'where: line 1: SystemExit: 3'),
    ('import nothing_of_that_name', 'line 1: ModuleNotFoundError'),
    ('f = 3', "no function 'f'"),
    (
      'from math import sin\ndef g(): ...\ndef ff(): ...',
      r"no function 'f' in .*\n  allowed: g, ff\n  next: .*mine.py:ff",
    ),
  ],
)
def test_a_file_that_cannot_be_used_is_explained(tmp_path, text, message):
  (tmp_path / 'other.py').touch()
  path = tmp_path / 'mine.py'
  if text is not None:
    path.write_text(text)
  refused(message, programs.load, f'{path}:f', 'where')
  if text is not None:  # the next time, too
    refused(message, programs.load, f'{path}:f', 'where')


@pytest.mark.parametrize(
  ('text', 'options'),
  [
    ('', {}),
    ('m=5', {'m': 5}),
    ('m=-5.5,  on=true', {'m': -5.5, 'on': 'true'}),
    ("a=soft, b='x, y=2', c=None", {'a': 'soft', 'b': 'x, y=2', 'c': None}),
    ('sizes=(1, 2), pairs=[(1, 2)]', {'sizes': (1, 2), 'pairs': [(1, 2)]}),
  ],
)
def test_options_are_literals_or_words(text, options):
  assert programs.parse_options(text, 'where') == options


@pytest.mark.parametrize(
  'text',
  [
    *('m', 'm=', '=5', '5', 'm=5 n=3', 'm=5, m=6', '**x', 'm=f(3)', '*x'),
    *('m=5) + _(n=3', 'm=5)(n=3', '(m=5)', 'm=__import__("os")', 'a.b=3'),
  ],
)
def test_what_is_no_list_of_options_is_explained(text):
  refused('where: no list of options', programs.parse_options, text, 'where')


PARTS = {'margin': {'m': 10.0, 'on': False}, 'step': {'n': 3, 'any': None}}


def test_all_spellings_of_options_have_one_form():
  def normal(text):
    given = programs.dispatch(text, 'where', PARTS)
    return programs.normal_form(*given.values())

  for spelt in ('m=5', 'm=5.0', 'n=3, m=5', 'on=False, m=5', 'm=5, on=false'):
    assert normal(spelt) == 'm=5.0'
  assert normal('n=4, on=true, m=2') == 'm=2.0, n=4, on=True'
  assert normal('any=x') == "any='x'"
  assert normal(normal('n=4, any=(1, 2)')) == 'any=(1, 2), n=4'
  assert normal('m=10, n=3') == ''


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (
      'tau=3',
      "margin, step have no option 'tau'; they have: m = 10.0, on = False, "
      'n = 3, any = None',
    ),
    ('n=3.5', 'n = 3.5 of step\n  allowed: what its default is, int 3'),
    ('m=x', "m = 'x' of margin"),
    ('m=true', "m = 'true' of margin"),
    ('n=True', 'n = True of step'),
    ('on=1', 'on = 1 of margin'),
    ('m=1e999', 'm = inf of margin'),
    ('m=1' + 400 * '0', 'm = 1000'),
    ('on=[1]', 'on = [1] of margin'),
  ],
)
def test_options_that_nobody_has_are_explained(text, message):
  message = f'where: {re.escape(message)}'
  refused(message, programs.dispatch, text, 'where', PARTS)


def test_an_option_of_two_is_refused_and_one_has_its_own():
  both = {'margin': {'m': 10.0}, 'mine.py:waves': {'m': 2}}
  message = "margin and mine.py:waves both have an option 'm'"
  refused(message, programs.dispatch, 'm=3', 'where', both)
  assert programs.dispatch('', 'where', both) == {part: {} for part in both}
  one = {'margin': {'m': 10.0}, 'uniform': {}}
  message = "margin has no option 'tau'; it has: m = 10.0"
  refused(message, programs.dispatch, 'tau=3', 'where', one)
  message = "uniform has no option 'tau'; it has: none"
  refused(message, programs.dispatch, 'tau=3', 'where', {'uniform': {}})


def of_mine(mine):
  config = default_config()
  config.smoothing.theta = 1.5
  for field, name in (
    ('method', 'soft'),
    ('schedule', 'waves'),
    ('target', 'rows'),
  ):
    config.smoothing[field] = f'{mine}:{name}'
  config.model.name = f'{mine}:net'
  return config


def test_each_part_of_a_run_may_be_one_s_own(mine):
  config = of_mine(mine)
  options = 'temperature=3, periods=5, sharpness=2, least=0.25'
  config.smoothing.options, config.model.options = options, 'depth=3'
  config.smoothing.rule = f'{mine}:early'
  smoothing = config.smoothing
  method = tables.method_of(smoothing)
  logits = jnp.array([[1.0, 2.0]])
  hard, soft = (
    float(method.loss(logits, jnp.array([0]), t)[0]) for t in (0.0, 0.5)
  )
  assert soft - hard == pytest.approx(0.5 * 3 * 2, rel=1e-6)
  theta = tables.theta_schedule(smoothing, Durations(1, 10))
  assert [theta(count) for count in (0, 4, 5)] == [0, 6, 0]
  task = Task(num_classes=4, num_examples=2, labels=np.zeros(2, np.int32))
  target = tables.target_of(smoothing, method, task, teacher=None)
  y_hat = target.y_hat(target.arrays, target.state, Seen(None, None))
  np.testing.assert_array_equal(y_hat, [2, 2, 2, 2])
  statistics = types.SimpleNamespace(delta=tsla.Estimate(0.3, 0.0))
  rules = tables.rules_of(smoothing)
  assert list(rules) == ['delta', 'mse', 'floor', 'plateau', 'early']
  assert rules['early'](tsla.Observation(statistics), None)
  network = models.create_configured(config.model, 7)
  variables = network.init(jax.random.key(0), jnp.ones((2, 4)), train=False)
  assert len(variables['params']) == 4
  assert network.apply(variables, jnp.ones((2, 4)), train=False).shape == (2, 7)


def test_a_rule_of_the_table_gets_its_options(monkeypatch):
  entry = tables.Entry(lambda seen, memory, least=1.0: seen > least)
  monkeypatch.setitem(tables.TABLES['smoothing.rule'], 'mse', entry)
  smoothing = default_config().smoothing
  smoothing.rule, smoothing.options = 'mse', 'least=3'
  found = tables.rules_of(smoothing)
  assert list(found) == ['delta', 'mse', 'floor', 'plateau']
  assert [found['mse'](seen, None) for seen in (2, 4)] == [False, True]
  smoothing.rule, smoothing.options = 'optimal', ''
  assert tables.rules_of(smoothing) == tsla.smoothing.rules.RULES


def test_a_config_with_parts_of_one_s_own_has_one_normal_form(mine):
  config = of_mine(mine)
  config.smoothing.options = 'sharpness=3, temperature=2, on=false'
  config.model.options = 'depth=2'
  normal = validate(config)
  assert normal.smoothing.options == 'temperature=2.0'
  assert normal.model.options == ''
  assert validate(normal) == normal
  config.smoothing.theta = 2.5
  refused(r'theta = 2.5: out of the bounds(?s:.*)0 to 2', validate, config)
  config = of_mine(mine)
  config.smoothing.options = 'least=0.25'
  refused("no option 'least'", validate, config)  # of a rule, and there is none


def test_the_content_of_a_file_is_who_it_is_and_not_its_path(mine, tmp_path):
  here = validate(of_mine(mine))
  (tmp_path / 'elsewhere').mkdir()
  other = tmp_path / 'elsewhere' / 'yours.py'
  other.write_text(MINE)
  there = validate(of_mine(str(other)))
  assert forms.config_hash(there) == forms.config_hash(here)
  flat = forms.identity(forms.flatten(here))
  assert flat['smoothing.method'] == ':soft' and flat['model.name'] == ':net'
  other.write_text(MINE + '# edited\n')
  assert forms.config_hash(there) != forms.config_hash(here)
  baseline = here.copy_and_resolve_references()
  baseline.smoothing.schedule = 'none'
  baseline.smoothing.method = 'nowhere.py:soft'  # nobody asks for it
  baseline.model.name = 'resnet8'
  validate(baseline)
  other.unlink()
  refused('No such file', forms.config_hash, there)
  forms.identity(forms.flatten(there))  # runs nothing


@pytest.mark.parametrize(
  ('field', 'text', 'message'),
  [
    ('smoothing.method', 'def f(m): ...', "missing 1 required .* 'm'"),
    ('smoothing.method', 'def f(): return 3', 'returned int'),
    ('smoothing.rule', 'def delta(seen, memory): ...', 'delta is another'),
    ('model.name', 'def f(): ...', 'f.. takes 0 positional'),
    ('model.name', 'def f(num_classes): return 3', 'returned int'),
  ],
)
def test_a_function_that_cannot_be_used_is_explained(
  tmp_path, field, text, message
):
  (tmp_path / 'mine.py').write_text(text)
  config = default_config()
  config.variance.every_epochs, config.smoothing.theta = 1, 0.1
  config.smoothing.schedule, config.smoothing.rule = 'auto', 'mse'
  section, leaf = field.split('.')
  name = 'delta' if 'delta' in text else 'f'
  config[section][leaf] = f'{tmp_path}/mine.py:{name}'

  def use():
    models.create_configured(validate(config).model, 10)

  error = refused(message, use)
  assert error.startswith(f'config.{field} = ')


def test_help_shows_the_options_of_each_method_and_network(monkeypatch):
  def margin(m: float = 10.0, p: int = 1) -> tsla.Method:
    return tsla.Method(tsla.penalised(lambda z, *_: m * z.max(-1) ** p))

  def vit(num_classes, *, dtype, width=3, patch=4) -> nn.Module:
    return nn.Dense(num_classes)

  monkeypatch.setitem(
    tables.TABLES['smoothing.method'], 'margin', tables.Entry(margin)
  )
  monkeypatch.setitem(tables.TABLES['model.name'], 'vit', tables.Entry(vit))
  text = cli.help_text()
  assert '      method margin: m = 10.0, p = 1\n' in text
  assert '      name vit: patch = 4\n' in text


def test_the_value_error_of_a_table_s_function_is_explained():
  config = default_config()
  config.smoothing.method = 'online'
  task = Task(num_classes=32_000, num_examples=2, labels=())
  method = tables.method_of(config.smoothing)
  message = "smoothing.method = 'online': 32,000 classes"
  refused(message, tables.target_of, config.smoothing, method, task, None)


def test_an_own_target_is_the_method_s(mine):
  config = default_config()
  config.smoothing.method, config.smoothing.target = 'online', f'{mine}:rows'
  task = Task(num_classes=2, num_examples=2, labels=np.array([0, 1]))
  method = tables.method_of(config.smoothing)
  target = tables.target_of(config.smoothing, method, task, None)
  assert target.update is not None
  config.smoothing.target = 'prior'
  method = method._replace(target=None)
  target = tables.target_of(config.smoothing, method, task, None)
  np.testing.assert_allclose(target.y_hat(target.arrays, (), None), [0.5, 0.5])
  config.smoothing.target = 'teacher'
  made = tables.target_of(config.smoothing, method, task, lambda: target)
  assert made is target


@pytest.mark.parametrize(
  ('loss', 'message'),
  [
    ('lambda z, labels, y_hat, kept: z.mean(-1)', 'not cross-entropy'),
    ('lambda *args: tsla.hard_cross_entropy(*args[:2]).mean()', r'shape \(\)'),
    ('tsla.penalised(lambda z, labels: z.mean(-1))', 'TypeError: .* takes 2'),
    ('tsla.penalised(lambda z, *rest: z.mean())', 'one value an example'),
    (
      'lambda z, labels, theta, y_hat=None, where=None: '
      'tsla.hard_cross_entropy(z, labels) + theta**2 * z.mean(-1)',
      'a factor of R',
    ),
  ],
)
def test_a_method_that_breaks_its_promise_is_refused(tmp_path, loss, message):
  path = tmp_path / 'mine.py'
  path.write_text(f'import tsla\ndef f(): return tsla.Method({loss})\n')
  config = default_config()
  config.smoothing.schedule, config.smoothing.theta = 'constant', 0.1
  config.smoothing.method = f'{path}:f'
  options = validate(config).smoothing
  error = refused(message, check_own_method, options)
  assert error.startswith('config.smoothing.method = ')
  assert f'tsla check-method {path}:f' in error


def test_a_file_without_a_name_is_asked_for_one():
  config = default_config()
  config.smoothing.method = 'mine.py'
  error = refused('config.smoothing.method', validate, config)
  assert '  next: --config.smoothing.method=mine.py:NAME' in error
