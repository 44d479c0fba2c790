"""Config fields, durations, and every experiment file."""

import importlib
import json

import jax
import numpy as np
import pytest
from support import ROOT

from configs import bases
from tsla.commands import sweep
from tsla.config import checks, cli, durations, tables
from tsla.config import forms as config_lib
from tsla.config.checks import validate
from tsla.config.schema import FIELDS, check_field_name, check_value
from tsla.errors import InputError
from tsla.sweep import plan, table

EXPERIMENTS = sorted(
  path.stem for path in (ROOT / 'configs').glob('[a-z]*_*.py')
)


def changed(**fields):
  config = config_lib.default_config()
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in fields.items()}
  )
  return config


def test_the_twelve_experiments_are_there():
  sets = ('digits', 'cifar100', 'stanford_dogs', 'cub2011')
  methods = ('baseline', 'lsr', 'tsla')
  assert {f'{s}_{m}' for s in sets for m in methods} <= set(EXPERIMENTS)


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_experiment_loads_validates_and_is_a_lab_record(name):
  module = importlib.import_module(f'configs.{name}')
  config = module.get_config()
  validate(config)
  assert '@@' not in module.__doc__
  for word in ('Row:', 'Command:', 'Hardware:', 'Hours:', 'Expected:'):
    assert word in module.__doc__, word
  assert f'--config=configs/{name}.py' in module.__doc__
  with pytest.raises(AttributeError):  # locked
    config.smoothing.tetha = 0.1
  json.dumps(config_lib.flatten(config))


@pytest.mark.parametrize(
  ('name', 'theta', 'drop'),
  [
    ('cifar100_tsla', 0.1, 160),
    ('stanford_dogs_tsla', 0.4, 40),
    ('cub2011_tsla', 0.4, 50),
  ],
)
def test_the_drop_epoch_is_an_argument(name, theta, drop):
  module = importlib.import_module(f'configs.{name}')
  config = validate(module.get_config())
  assert config.smoothing.theta == theta
  assert config.smoothing.drop_epochs == drop
  config = module.get_config('70')
  steps = durations.resolve(config, steps_per_epoch=390)
  assert steps.at('smoothing.drop') == 70 * 390
  with pytest.raises(InputError, match="argument 'soon'"):
    module.get_config('soon')


def test_the_paper_s_schedules_in_updates():
  config = importlib.import_module('configs.cifar100_tsla').get_config()
  config = validate(config)
  steps = durations.resolve(config, steps_per_epoch=390)
  assert steps.total_steps == 78_000
  assert steps.steps == {
    'optimizer.milestone': (23_400, 46_800, 62_400),
    'smoothing.drop': (62_400,),
  }


@pytest.mark.parametrize(
  ('field', 'value', 'step'),
  [
    ('drop_epochs', 1.5, 66),
    ('drop_steps', 7, 7),
    ('drop_percent', 25.0, 110),
    ('drop_epochs', 0.0, 0),
    ('drop_epochs', 2.333333, 103),
    ('drop_percent', 0.5, 2),
  ],
)
def test_one_resolver_serves_every_unit(field, value, step):
  config = changed(
    epochs=10, smoothing__schedule='two_stage', smoothing__theta=0.1
  )
  config.smoothing[field] = value
  steps = durations.resolve(config, steps_per_epoch=44)
  assert steps.at('smoothing.drop') == step


def test_29_percent_of_100_updates_are_29():
  """0.29 × 100 is 28.999999999999996 in float64."""
  config = changed(
    epochs=1, smoothing__schedule='two_stage', smoothing__theta=0.1
  )
  config.smoothing.drop_epochs = 0.29
  steps = durations.resolve(config, steps_per_epoch=100)
  assert steps.at('smoothing.drop') == 29


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'smoothing.schedule': 'constant', 'smoothing.theta': 1.2},
      r'(?s)smoothing.theta = 1.2: .*label_smoothing.*-inf to 1\n',
    ),
    (
      {
        'smoothing.schedule': 'constant',
        'smoothing.theta': -0.1,
        'smoothing.method': 'online',
      },
      r"(?s)theta = -0.1: .*'online'.*0 to 1\n",
    ),
    ({'smoothing.theta': float('nan')}, r'smoothing.theta = nan'),
    ({'optimizer.learning_rate': -5.0}, r'(?s)rate = -5.0.*a number > 0'),
    ({'optimizer.name': 'sdg'}, r"optimizer.name = 'sdg'"),
    ({'epochs': 0}, r'epochs = 0'),
    ({'data.std': (0.0,)}, r'(?s)std = \(0.0,\).*one number > 0 per channel'),
    (
      {'smoothing.schedule': 'two_stage', 'smoothing.theta': 0.1},
      r'is not set',
    ),
    (
      {'smoothing.schedule': 'constant'},
      r"(?s)theta is not set, but smoothing.schedule = 'constant' needs it\n"
      r'.*--config.smoothing.theta=0.1',
    ),
    ({'seed': 2**40}, r'seed = 1099511627776'),
    ({'data.mean': ('a',)}, r'data.mean'),
    ({'data.path': 'gs://bucket/data'}, r'local or mounted'),
    ({'model.name': 'resnet9'}, r'resnet8'),
    ({'model.dtype': 'float16'}, r'one of float32, bfloat16\n'),
    (
      {
        'smoothing.schedule': 'linear',
        'smoothing.theta': 0.1,
        'smoothing.drop_epochs': 0.0,
      },
      r'decay_steps = 0 must be',
    ),
    (
      {
        'smoothing.schedule': 'two_stage',
        'smoothing.theta': 0.1,
        'smoothing.drop_epochs': 30.0,
      },
      r'after the end',
    ),
    (
      {
        'smoothing.schedule': 'two_stage',
        'smoothing.theta': 0.1,
        'smoothing.drop_epochs': 3.0,
        'smoothing.drop_percent': 3.0,
      },
      r'several units',
    ),
    (
      {'optimizer.schedule': 'step'},
      r'(?s)_percent. is not set, .*--config.optimizer.milestone_epochs=',
    ),
    (
      {
        'optimizer.schedule': 'step',
        'optimizer.milestone_epochs': (20, 10),
      },
      r'milestone_epochs = \(20, 10\)',
    ),
  ],
)
def test_bad_values_are_named_with_what_is_allowed(fields, message):
  config = config_lib.default_config()
  config.update_from_flattened_dict(fields)
  with pytest.raises(InputError, match=message) as error:
    validate(config)
  assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
  ('typo', 'near'),
  [
    ('smoothing.tetha', 'smoothing.theta'),
    ('learning_rate', 'optimizer.learning_rate'),
    ('epoch', 'epochs'),
    ('data.nmae', 'data.name'),
  ],
)
def test_an_unknown_field_names_the_nearest(typo, near):
  with pytest.raises(InputError) as error:
    check_field_name(typo)
  assert f'--config.{near}=' in str(error.value)


@pytest.mark.parametrize(
  ('name', 'value', 'cure'),
  [
    ('smoothing.method', 'max_supression', 'max_suppression'),
    ('optimizer.name', 'adamW', 'adamw'),
    ('smoothing.method', 'mine.py', 'mine.py:NAME'),
    ('smoothing.method', 'xyz', '…'),
    ('checkpoint_keep_epochs', (-160,), '…'),
  ],
)
def test_a_mistyped_choice_names_the_nearest(name, value, cure):
  with pytest.raises(InputError) as error:
    check_value(name, value)
  assert error.value.cure == f'--config.{name}={cure}'


def test_help_lists_every_field_with_type_and_default():
  text = cli.help_text()
  for name, field in FIELDS.items():
    assert f'--config.{name}: {type(field.default).__name__} =' in text


def test_help_lists_the_options_of_each_method_and_schedule():
  lines = list(map(str.strip, cli.help_text().splitlines()))
  assert 'method margin: m = 10.0' in lines
  assert 'schedule ramp: to = 0.2' in lines
  assert not [line for line in lines if line.startswith('method zipf')]


def with_method(method, theta=0.1, schedule='constant', **fields):
  return changed(
    smoothing__method=method,
    smoothing__theta=theta,
    smoothing__schedule=schedule,
    **fields,
  )


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'method': 'zipf', 'smoothing__options': 'm=5'},
      'method zipf, target uniform, schedule constant have no option '
      "'m'; they have: none",
    ),
    (
      {'method': 'margin', 'smoothing__options': 'gamma=2'},
      r"method margin has no option 'gamma'; it has: m = 10\.0",
    ),
    (
      {'method': 'margin', 'smoothing__options': 'to=0.3'},
      r"margin has no option 'to'; it has: m = 10\.0",
    ),
    (
      {'method': 'margin', 'smoothing__options': 'm=-1'},
      r"method = 'margin': m = -1\.0 must be at least 0",
    ),
    (
      {'method': 'negative'},
      r"(?s)theta = 0\.1: .*'negative'.*-inf to 0\n",
    ),
    ({'method': 'zipf', 'theta': -0.1}, r"(?s)'zipf'\n.*0 to inf\n"),
    (
      {'method': 'label_smoothing', 'smoothing__target': 'class_similarity'},
      r'(?s)exactly one.*teacher.matrix=FILE',
    ),
    (
      {
        **{'method': 'label_smoothing', 'teacher__run': 'a'},
        **{'smoothing__target': 'class_similarity', 'teacher__matrix': 'b'},
      },
      r'^config\.teacher\.run and config\.teacher\.matrix are set, but',
    ),
  ],
)
def test_a_method_s_options_and_bounds_are_its_own(fields, message):
  with pytest.raises(InputError, match=message) as error:
    validate(with_method(**fields))
  assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize('name', bases.THETAS)
def test_each_method_may_be_ended_by_every_rule_that_speaks_of_it(name):
  """delta asks about θ = 1, which is for mixtures of labels with θ > 0."""
  config = bases.method(bases.digits(), name)
  config.teacher.run = 'a'
  config.smoothing.schedule, config.variance.every_epochs = 'auto', 1
  mixes = name in ('label_smoothing', 'online', 'class_similarity')
  for rule in ('mse', 'floor', 'plateau', 'optimal', *['delta'] * mixes):
    config.smoothing.rule = rule
    assert validate(config).smoothing.rule == rule
  if not mixes:
    config.smoothing.rule = 'delta'
    with pytest.raises(InputError, match='rule=mse'):
      validate(config)


def test_a_config_of_a_method_takes_its_name():
  get_config = importlib.import_module('configs.cifar100_method').get_config
  assert get_config().smoothing.method == 'max_suppression'
  for name, theta in bases.THETAS.items():
    config = validate(get_config(name))
    assert (config.smoothing.theta, config.epochs) == (theta, 200)
    assert name in (config.smoothing.method, config.smoothing.target)
  assert config.teacher.run.startswith('runs/cifar100_baseline-')
  with pytest.raises(InputError, match="'ols': no method"):
    get_config('ols')


def test_the_hash_names_what_makes_the_run():
  plain = config_lib.config_hash(changed())
  assert config_lib.config_hash(changed(data__path='elsewhere')) == plain
  assert config_lib.config_hash(changed(parallel='jit')) == plain
  assert config_lib.config_hash(changed(seed=1)) != plain
  folder = changed(data__name='folder', data__path='a')
  other = changed(data__name='folder', data__path='b')
  assert config_lib.config_hash(folder) != config_lib.config_hash(other)
  taught, other = (
    changed(
      smoothing__schedule='constant',
      smoothing__theta=0.1,
      smoothing__target='teacher',
      teacher__run=run,
    )
    for run in 'ab'
  )
  assert config_lib.config_hash(taught) != config_lib.config_hash(other)
  # Once it has been read, its content is what counts.
  identities = (
    config_lib.identity(config_lib.flatten(c)) for c in (taught, other)
  )
  assert len({str(identity) for identity in identities}) == 1


def test_no_hash_changes_with_a_version():
  """They name the directories of runs: taken from version 0.1."""
  known = json.loads((ROOT / 'tests/golden/hashes.json').read_text())
  assert {path for path in known if '/' not in path} == {
    'default',
    *EXPERIMENTS,
  }
  for name, expected in known.items():
    if name == 'default':
      found = config_lib.config_hash(config_lib.default_config())
    elif name in EXPERIMENTS:
      module = importlib.import_module(f'configs.{name}')
      found = config_lib.config_hash(validate(module.get_config()))
    else:
      rows = table.load_table(ROOT / f'configs/{name}.py')
      runs = plan.plan(rows, [0], 'runs')
      found = sorted(run.directory for run in runs)
    assert found == expected, name


# What nothing uses: the choices that leave it out, the field, its value there,
# and who has a use for it.
IDLE = [
  ({'smoothing.schedule': 'none'}, 'smoothing.theta', 0.1, 'schedule'),
  ({'smoothing.schedule': 'none'}, 'smoothing.method', 'online', 'schedule'),
  ({'smoothing.schedule': 'none'}, 'smoothing.target', 'prior', 'schedule'),
  ({'smoothing.schedule': 'none'}, 'smoothing.options', 'm=5', 'schedule'),
  ({'smoothing.schedule': 'none'}, 'teacher.temperature', 2.0, 'schedule'),
  ({}, 'smoothing.drop_epochs', 20.0, 'schedule'),
  ({}, 'smoothing.drop_epochs', 2000.0, 'schedule'),
  ({}, 'smoothing.min_steps', 3, 'schedule'),
  ({}, 'smoothing.max_percent', 3.0, 'schedule'),
  ({}, 'smoothing.rule', 'delta', 'schedule'),
  ({}, 'smoothing.patience', 3, 'schedule'),
  ({}, 'smoothing.reset_momentum', True, 'schedule'),
  ({}, 'teacher.view', 'clean', 'smoothing.target'),
  ({'smoothing.method': 'online'}, 'smoothing.target', 'prior', 'method'),
  ({'smoothing.method': 'online'}, 'teacher.view', 'clean', 'method'),
  ({'smoothing.method': 'margin'}, 'smoothing.target', 'prior', 'method'),
  ({}, 'teacher.matrix', 'rows.csv', 'smoothing.target'),
  ({}, 'variance.num_batches', 5, 'every_epochs'),
  ({}, 'variance.augment', False, 'every_epochs'),
  ({}, 'variance.mode', 'last_layer', 'every_epochs'),
  ({}, 'data.label_noise_seed', 5, 'data.label_noise'),
  ({'optimizer.name': 'lamb'}, 'optimizer.momentum', 0.5, 'optimizer.name'),
  ({'optimizer.name': 'adamw'}, 'optimizer.nesterov', True, 'optimizer.name'),
  ({}, 'optimizer.decay_factor', 0.5, 'optimizer.schedule'),
  ({}, 'optimizer.milestone_steps', (5, 9), 'optimizer.schedule'),
]


@pytest.mark.parametrize(('choices', 'name', 'value', 'user'), IDLE)
def test_what_no_choice_uses_makes_no_other_run(choices, name, value, user):
  config = changed(smoothing__schedule='constant', smoothing__theta=0.1)
  if choices.get('smoothing.schedule') == 'none':
    config.smoothing.theta = 0.0
  config.update_from_flattened_dict(choices)
  plain = validate(config)
  config.update_from_flattened_dict({name: value})
  assert config_lib.config_hash(config) == config_lib.config_hash(plain)
  assert validate(config) == plain
  (notice,) = checks.notices([name, 'epochs'], [config])
  flat = config_lib.flatten(config)
  assert notice.startswith(f'config.{name} = {flat[name]!r} is not used: ')
  assert f'{user} is ' in notice and '\n' not in notice


@pytest.mark.parametrize(
  ('choices', 'name', 'value'),
  [
    ({}, 'smoothing.theta', 0.2),
    ({}, 'smoothing.method', 'max_suppression'),
    ({}, 'smoothing.target', 'prior'),
    ({'smoothing.schedule': 'linear'}, 'smoothing.reset_momentum', True),
    ({'smoothing.schedule': 'two_stage'}, 'smoothing.drop_epochs', 4.0),
    ({'variance.every_epochs': 1}, 'variance.mode', 'last_layer'),
    (
      {'smoothing.schedule': 'none', 'variance.every_epochs': 1},
      *('smoothing.method', 'max_suppression'),
    ),
    (
      {'smoothing.schedule': 'none', 'variance.every_epochs': 1},
      *('smoothing.target', 'prior'),
    ),
    ({'data.label_noise': 0.1}, 'data.label_noise_seed', 5),
    ({}, 'data.validation', 0.1),
    ({}, 'variance.every_epochs', 1),
    ({}, 'optimizer.nesterov', True),
    ({'optimizer.schedule': 'step'}, 'optimizer.decay_factor', 0.5),
    ({}, 'model.width', 32),
    ({}, 'model.stem', 'imagenet'),
  ],
)
def test_what_a_choice_uses_makes_another_run(choices, name, value):
  config = changed(
    smoothing__schedule='constant',
    smoothing__theta=0.1,
    smoothing__drop_epochs=5.0,
    optimizer__milestone_epochs=(5.0,),
  )
  config.update_from_flattened_dict(choices)
  plain = validate(config)
  config.update_from_flattened_dict({name: value})
  assert config_lib.config_hash(config) != config_lib.config_hash(plain)
  assert validate(config) != plain
  assert not list(checks.notices([name], [config]))


# Of ml_collections.
@pytest.mark.filterwarnings('ignore:the load_module')
def test_a_field_that_is_not_used_is_named_in_a_line(capsys):
  argv = ['main.py', '--config=configs/digits_lsr.py']
  cli.parse([*argv, '--config.epochs=3'])
  assert capsys.readouterr().err == ''
  command = cli.parse(
    [*argv, '--config.smoothing.drop_epochs=20', '--config.epochs=3']
  )
  assert capsys.readouterr().err == (
    'config.smoothing.drop_epochs = 20.0 is not used: smoothing.schedule is '
    "'constant'\n"
  )
  assert command.config.smoothing.drop_epochs == -1
  assert command.workdir == cli.parse([*argv, '--config.epochs=3']).workdir


def test_a_sweep_names_a_field_that_no_row_uses(capsys, tmp_path):
  flags = [
    '--table=configs/sweeps/digits.py',
    f'--workdir={tmp_path}',
    '--list',
  ]
  unused = '--config.variance.num_batches=4'
  used = '--config.teacher.temperature=2.0'  # by two of six rows
  assert sweep.main([*flags, unused, used]) == 0
  assert capsys.readouterr().err == (
    'config.variance.num_batches = 4 is not used: variance.every_epochs is 0\n'
  )


def test_a_run_of_an_earlier_version_keeps_its_identity():
  """A field that did not exist then had, in effect, its default."""
  flat = config_lib.flatten(changed(seed=1))
  earlier = {k: v for k, v in flat.items() if k != 'augment.crop'}
  assert config_lib.identity(earlier) == config_lib.identity(flat)
  assert config_lib.identity(earlier | {'gone': 3}) == {'seed': 1, 'gone': 3}


def test_a_default_stays_what_it_was():
  """It is what an earlier run's identity leaves out: a new one renames it."""
  known = json.loads((ROOT / 'tests/golden/fields.json').read_text())
  flat = config_lib.flatten(config_lib.default_config())
  for name, default, identity in known:
    assert (name, flat[name]) == (name, default)
    assert (name, config_lib.FIELDS[name].identity) == (name, identity)


def test_milestones_that_fall_on_one_update_are_refused():
  config = changed(optimizer__schedule='step')
  config.optimizer.milestone_percent = (10.0, 11.0)
  steps = durations.resolve(config, 100).steps
  assert steps['optimizer.milestone'] == (300, 330)
  with pytest.raises(InputError, match='fall on one update'):
    durations.resolve(config, 1)


def test_the_readme_is_filled_in():
  assert '@@' not in (ROOT / 'README.md').read_text()


@pytest.mark.parametrize('kind', ['linear', 'cosine', 'rising', 'reversed'])
def test_the_controls_have_the_area_of_two_stages(kind):
  config = bases.control(bases.digits(), kind, 0.1, 20.0)
  validate(config)
  steps = durations.resolve(config, steps_per_epoch=44)
  theta = tables.theta_schedule(config.smoothing, steps)
  area = float(jax.vmap(theta)(np.arange(steps.total_steps)).sum())
  # A sum over updates misses half a step of a slope: half of its height.
  assert area == pytest.approx(0.1 * 20 * 44, abs=0.11)
  if kind != 'reversed':
    assert area != pytest.approx(0.1 * 20 * 44, abs=1e-3)


def test_the_rules_table_has_each_rule_and_loads():
  rows = table.load_table(ROOT / 'configs/sweeps/digits_rules.py').rows
  for row in rows:
    validate(row.config)
    assert row.config.data.validation == 0.1
    probed = row.config.variance.every_epochs == 1
    assert probed == row.name.startswith('auto')
  names = [row.name for row in rows]
  assert [n for n in names if n.startswith('auto')] == [
    f'auto: {rule}' for rule in ('delta', 'mse', 'floor', 'plateau', 'optimal')
  ]
  assert len(set(names)) == len(rows) == 16


@pytest.mark.parametrize('name', EXPERIMENTS)
@pytest.mark.parametrize('epochs', [1, 2, 5, 12, 15, 300])
def test_every_experiment_has_another_length_with_one_flag(name, epochs):
  config = importlib.import_module(f'configs.{name}').get_config()
  whole = validate(config)
  config.epochs = epochs
  shorter = validate(config)
  steps = [durations.resolve(c, 40).steps for c in (whole, shorter)]
  assert steps[0].keys() == steps[1].keys()
  for field in steps[0]:
    for there, here in zip(steps[0][field], steps[1][field], strict=True):
      scaled = there / whole.epochs * epochs
      assert abs(here - scaled) <= 20.5
      if epochs >= 12:  # room for whole epochs
        assert here % 40 == 0


@pytest.mark.filterwarnings('ignore:the load_module')
def test_a_duration_that_is_given_replaces_that_of_the_experiment():
  argv = ['main.py', '--config=configs/digits_tsla.py', '--config.epochs=15']
  assert cli.parse(argv).config.smoothing.drop_epochs == 10  # 20 of 30
  given = cli.parse([*argv, '--config.smoothing.drop_steps=7']).config.smoothing
  assert given.drop_steps == 7
  assert given.drop_epochs == given.drop_percent == -1
  with pytest.raises(InputError, match='several units'):
    both = (
      '--config.smoothing.drop_steps=7',
      '--config.smoothing.drop_epochs=2',
    )
    cli.parse([*argv, *both])


@pytest.mark.filterwarnings('ignore:the load_module')
def test_what_is_given_does_not_follow_from_the_data():
  argv = ['main.py', '--config=configs/own_tsla.py', '--config.data.path=x']
  follows = cli.parse(argv).config.from_data
  given = cli.parse(
    [*argv, '--config.batch_size=32', '--noconfig.augment.flip']
  )
  left = set(follows) - set(given.config.from_data)
  assert left == {'batch_size', 'augment.flip'}


def test_all_problems_are_told_at_once():
  config = changed(
    epochs=0, batch_size=0, seed=-1, optimizer__learning_rate=-1.0
  )
  with pytest.raises(InputError) as error:
    validate(config)
  first, second, third = str(error.value).splitlines()
  assert 'config.batch_size = 0' in first and 'config.epochs = 0' in second
  assert 'allowed: ' in third and third.endswith(' … and 1 more')
  config = changed(smoothing__schedule='two_stage', optimizer__schedule='step')
  config.model.options = 'depth=2'
  with pytest.raises(InputError) as error:
    validate(config)
  first, second, third = str(error.value).splitlines()
  assert 'theta is not set' in first and 'drop_epochs' in second
  assert 'milestone_epochs' in third and third.endswith(' … and 1 more')
  config = changed(optimizer__schedule='step', smoothing__schedule='two_stage')
  config.smoothing.theta, config.smoothing.drop_epochs = 2.0, 40.0
  config.optimizer.milestone_steps = (2**31 - 1,)
  with pytest.raises(InputError) as error:
    validate(config)
  assert len(str(error.value).splitlines()) == 3


def test_unknown_flags_are_told_at_once():
  argv = ['main.py', '--config=configs/own_tsla.py', '--config.epoch=1']
  with pytest.raises(InputError) as error:
    cli.parse([*argv, '--config.data.held_out=0.1'])
  first, second = str(error.value).splitlines()
  assert 'config.epoch: ' in first
  assert 'data.held_out' in second and 'data.validation' in second
