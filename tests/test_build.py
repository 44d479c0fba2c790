"""Config, data set and device are checked against each other."""

import numpy as np
import pytest

from tsla.config.forms import default_config
from tsla.data.datasets import Dataset, Split
from tsla.errors import InputError
from tsla.training.build import check_fits


@pytest.fixture
def dataset():
  def split(number):
    images = np.zeros((number, 8, 8, 3), np.uint8)
    return Split(images, np.zeros(number, np.int32))

  return Dataset('set', split(100), split(20), ('a', 'b'), '')


def test_what_fits_is_taken(dataset):
  check_fits(default_config(), dataset, memory=None)
  check_fits(default_config(), dataset, memory=2 * 120 * 8 * 8 * 3)


@pytest.mark.parametrize(
  ('field', 'value', 'memory', 'message'),
  [
    ('batch_size', 101, None, 'allowed: 1 to 100'),
    ('augment.crop', 9, None, 'allowed: 0 to 8'),
    ('data.mean', (0.5, 0.5), None, 'allowed: 3, or 1 for all'),
    ('seed', 0, 2 * 120 * 8 * 8 * 3 - 1, 'half of the device'),
  ],
)
def test_what_does_not_fit_is_named(dataset, field, value, memory, message):
  config = default_config()
  config.update_from_flattened_dict({field: value})
  with pytest.raises(InputError) as error:
    check_fits(config, dataset, memory)
  assert message in str(error.value)
