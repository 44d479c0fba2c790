"""Config, data set and device are checked against each other."""

import numpy as np
import pytest

from tsla.config import durations
from tsla.config.forms import default_config
from tsla.data.datasets import Dataset, Split
from tsla.errors import InputError
from tsla.training import parallel
from tsla.training.build import build, check_fits, tables_of
from tsla.training.feeds import choose_feed

SIZE = 2 * 120 * 8 * 8 * 3  # bytes of a device that just holds the set


@pytest.fixture
def dataset():
  def split(number):
    images = np.zeros((number, 8, 8, 3), np.uint8)
    return Split(images, np.zeros(number, np.int32))

  return Dataset('set', split(100), split(20), ('a', 'b'), '')


def test_what_fits_is_taken(dataset):
  """Nothing is raised at the limits; a byte more is, in the next test."""
  check_fits(default_config(), dataset, memory=None)
  config = default_config()
  config.data.feed = 'resident'
  check_fits(config, dataset, memory=SIZE)
  config.data.feed = 'auto'
  check_fits(config, dataset, memory=SIZE - 1)


@pytest.mark.parametrize(
  ('asked', 'memory', 'chosen'),
  [
    ('auto', SIZE, 'resident'),
    ('auto', SIZE - 1, 'mapped'),
    ('auto', None, 'resident'),
    ('mapped', None, 'mapped'),
    ('mapped', SIZE, 'mapped'),
    ('resident', None, 'resident'),
  ],
)
def test_the_memory_of_a_device_chooses_the_feed(
  dataset, asked, memory, chosen
):
  assert choose_feed(asked, dataset, memory) == chosen


def test_what_a_clean_teacher_says_of_a_mapped_set_must_fit(dataset):
  config = default_config()
  config.data.feed, config.smoothing.target = 'mapped', 'teacher'
  config.teacher.view = 'clean'
  check_fits(config, dataset, memory=4 * 2 * 100 * 2)  # f16[100, 2]
  with pytest.raises(InputError, match=r'teacher\.view=augmented'):
    check_fits(config, dataset, memory=4 * 2 * 100 * 2 - 1)
  config.teacher.view = 'augmented'
  check_fits(config, dataset, memory=1)


def test_each_of_several_devices_keeps_its_part_of_a_probe_s_batches(dataset):
  config = default_config()
  config.data.feed, config.variance.every_epochs = 'mapped', 1
  config.variance.num_batches = 3
  part = 3 * 32 // 4 * 8 * 8 * 3  # bytes, of a quarter of each batch
  check_fits(config, dataset, 4 * part, devices=4)
  with pytest.raises(InputError, match='a quarter of the device'):
    check_fits(config, dataset, 4 * part - 1, devices=4)
  with pytest.raises(InputError, match='a quarter of the device'):
    check_fits(config, dataset, 4 * part)


@pytest.mark.parametrize(
  ('field', 'value', 'memory', 'message'),
  [
    ('batch_size', 101, None, 'allowed: 1 to 100'),
    ('augment.crop', 9, None, 'allowed: 0 to 8'),
    ('data.mean', (0.5, 0.5), None, 'allowed: 3, or 1 for all'),
    ('data.feed', 'resident', SIZE - 1, 'half of the device'),
    ('variance.every_epochs', 1, SIZE - 1, 'a quarter of the device'),
  ],
)
def test_what_does_not_fit_is_named(dataset, field, value, memory, message):
  config = default_config()
  config.variance.num_batches = 3  # of 32 images: they are all to be kept
  config.update_from_flattened_dict({field: value})
  with pytest.raises(InputError) as error:
    check_fits(config, dataset, memory)
  assert message in str(error.value)


@pytest.mark.parametrize(
  ('method', 'value', 'allowed'),
  [
    ('label_smoothing', '1.5', '-inf to 1 with'),
    ('label_smoothing', 'float("nan")', '-inf to 1 with'),
    ('max_suppression', '-0.1', '0 to inf with'),
  ],
)
def test_a_schedule_that_leaves_the_method_s_bounds_is_refused(
  dataset, tmp_path, method, value, allowed
):
  path = tmp_path / 'mine.py'
  path.write_text(f"""
import jax.numpy as jnp

def wild(theta, durations):
  return lambda count: jnp.where(count > 3, {value}, theta)
""")
  config = default_config()
  config.smoothing.schedule, config.smoothing.theta = f'{path}:wild', 0.1
  config.smoothing.method = method
  config.batch_size = 50
  steps = durations.resolve(config, steps_per_epoch=2)
  with pytest.raises(InputError, match='theta from') as error:
    build(config, dataset, steps, parallel.choose('jit', 50))
  assert f'allowed: {allowed}' in str(error.value)
  assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
  ('network', 'mode', 'message'),
  [
    ('wide', 'exact', r'gives float32\[2, 4\] for 2 images of 2 classes'),
    ('plain', 'last_layer', 'sows no features'),
    ('plain', 'exact', None),
    ('deaf', 'exact', "TypeError: .* unexpected keyword argument 'train'"),
    ('dropout', 'exact', r'line \d+: InvalidRngError: .* needs PRNG'),
  ],
)
def test_a_network_that_does_not_fit_is_refused_before_it_trains(
  dataset, tmp_path, network, mode, message
):
  path = tmp_path / 'mine.py'
  path.write_text("""
import flax.linen as nn

class Net(nn.Module):
  classes: int

  @nn.compact
  def __call__(self, images, train):
    return nn.Dense(self.classes)(images.reshape(len(images), -1))

def wide(num_classes):
  return Net(2 * num_classes)

def plain(num_classes):
  return Net(num_classes)

def deaf(num_classes):
  return nn.Dense(num_classes)

class Dropping(nn.Module):
  @nn.compact
  def __call__(self, images, train):
    x = images.reshape(len(images), -1)
    return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x))

def dropout(num_classes):
  return Dropping()
""")
  config = default_config()
  config.model.name = f'{path}:{network}'
  config.variance.every_epochs, config.variance.mode = 1, mode
  config.variance.num_batches = 3
  config.batch_size = 25
  steps = durations.resolve(config, steps_per_epoch=4)
  if message is None:
    build(config, dataset, steps, parallel.choose('jit', 25))
    return
  with pytest.raises(InputError, match=message) as error:
    build(config, dataset, steps, parallel.choose('jit', 25))
  assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    ('jnp.full(3, theta)', r'theta is of shape \(3,\) at a count'),
    ('theta if count < 3 else 0.0', 'line 5: .*\n  next: jnp.where'),
  ],
)
def test_a_schedule_of_one_s_own_is_one_number_at_each_update(
  tmp_path, value, message
):
  path = tmp_path / 'mine.py'
  path.write_text(f"""
import jax.numpy as jnp

def mine(theta, durations):
  return lambda count: {value}
""")
  config = default_config()
  config.smoothing.schedule = f'{path}:mine'
  steps = durations.resolve(config, steps_per_epoch=4)
  with pytest.raises(InputError, match=message) as error:
    tables_of(config, steps)
  assert str(error.value).startswith('config.smoothing.schedule = ')
  assert len(str(error.value).splitlines()) <= 3
