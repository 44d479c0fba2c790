"""Crop, flip and normalise: what they do, and what they depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsla.data import augment

augment_train = jax.jit(
  augment.augment_train, static_argnames=('pad', 'crop', 'flip')
)


def random_images(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def numbered_image(height, width):
  """An image without two equal pixels, none of them black."""
  pixels = np.arange(1, height * width + 1)
  return (
    np.stack([pixels % 251 + 1, pixels // 251 + 1], -1)
    .reshape(height, width, 2)
    .astype(np.uint8)
  )


def find_windows(crops, padded):
  """Returns (top, left) of each crop in `padded`, searching all places."""
  _, height, width, _ = crops.shape
  places = {
    padded[top : top + height, left : left + width].tobytes(): (top, left)
    for top in range(padded.shape[0] - height + 1)
    for left in range(padded.shape[1] - width + 1)
  }
  return np.array([places[crop.tobytes()] for crop in crops])


def keys_of(count):
  return augment.example_keys(0, 0, jnp.arange(count))


@pytest.mark.parametrize(
  ('shape', 'pad', 'crop', 'rows', 'columns'),
  [((8, 8), 2, 0, 5, 5), ((6, 9), 1, 0, 3, 3), ((9, 12), 0, 7, 3, 6),
   ((7, 7), 1, 5, 5, 5)],
)  # fmt: skip
def test_crops_are_windows_of_the_padded_image_at_uniform_places(
  shape, pad, crop, rows, columns
):
  image = numbered_image(*shape)
  count = 200 * rows * columns
  images = np.broadcast_to(image, (count, *image.shape))
  crops = augment_train(images, keys_of(count), pad=pad, crop=crop, flip=False)
  assert crops.dtype == jnp.uint8
  padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
  places = find_windows(np.asarray(crops), padded)

  counts = np.zeros((rows, columns))
  np.add.at(counts, tuple(places.T), 1)
  assert counts.min() > 0
  freedom = rows * columns - 1
  # Mean + 4 standard deviations of chi-square.
  bound = freedom + 4 * np.sqrt(2 * freedom)
  assert np.sum((counts - 200) ** 2 / 200) < bound


def test_half_of_the_images_are_mirrored_independently_of_the_crop():
  image, count = numbered_image(6, 6), 8_000
  images = np.broadcast_to(image, (count, *image.shape))
  both = np.asarray(
    augment_train(images, keys_of(count), pad=1, crop=0, flip=True)
  )
  crops = np.asarray(
    augment_train(images, keys_of(count), pad=1, crop=0, flip=False)
  )
  flips = np.asarray(
    augment_train(images, keys_of(count), pad=0, crop=0, flip=True)
  )
  flipped = (flips == image[:, ::-1]).all((1, 2, 3))
  assert ((flips == image).all((1, 2, 3)) ^ flipped).all()
  np.testing.assert_array_equal(
    both, np.where(flipped[:, None, None, None], crops[:, :, ::-1], crops)
  )

  # Within 4 standard deviations of 1/2, overall and at each place of the crop.
  assert abs(flipped.mean() - 0.5) < 4 * 0.5 / np.sqrt(count)
  places = find_windows(crops, np.pad(image, ((1, 1), (1, 1), (0, 0))))
  for place in np.unique(places, axis=0):
    here = flipped[(places == place).all(1)]
    assert abs(here.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(here))


def test_everything_off_keeps_the_images():
  images = random_images(5, 6, 7, 3)
  kept = augment_train(images, keys_of(5), pad=0, crop=0, flip=False)
  np.testing.assert_array_equal(kept, images)
  np.testing.assert_array_equal(augment.center_crop(images, 0), images)


def test_an_example_is_augmented_alike_in_every_batch():
  images = jnp.asarray(random_images(64, 8, 8, 3))

  @jax.jit
  def augmented(indices):
    keys = augment.example_keys(3, 5, indices)
    return augment_train(images[indices], keys, pad=2, crop=0, flip=True)

  whole = np.asarray(augmented(jnp.arange(64)))
  shuffled = np.random.default_rng(1).permutation(64)
  np.testing.assert_array_equal(augmented(shuffled), whole[shuffled])
  np.testing.assert_array_equal(
    augmented(jnp.array([41, 2, 41])), whole[[41, 2, 41]]
  )
  # One device's eighth of the batch at a time, and under another default key.
  parts = jax.lax.map(augmented, jnp.arange(64).reshape(8, 8))
  np.testing.assert_array_equal(parts.reshape(whole.shape), whole)
  with jax.default_prng_impl('rbg'):
    np.testing.assert_array_equal(augmented(jnp.array([41, 2])), whole[[41, 2]])


def test_keys_differ_between_examples_epochs_and_seeds():
  keys = [
    jax.random.key_data(augment.example_keys(seed, epoch, jnp.arange(50)))
    for seed in (0, 1)
    for epoch in (0, 1)
  ]
  assert len(np.unique(np.concatenate(keys), axis=0)) == 200


def test_no_key_is_used_twice():
  images, keys = random_images(2, 8, 8, 1), keys_of(2)

  @jax.jit
  def flipped_twice(images):
    return jax.vmap(augment.random_flip)(
      jax.vmap(augment.random_flip)(images, keys), keys
    )

  with jax.debug_key_reuse(True):
    jax.block_until_ready(augment_train(images, keys, pad=1, crop=0, flip=True))
    with pytest.raises(jax.errors.KeyReuseError):  # else it says nothing
      flipped_twice(images)


def test_too_large_a_window_is_an_error():
  image = jnp.zeros((4, 6, 1), jnp.uint8)
  with pytest.raises(TypeError):
    augment.random_crop(image, jax.random.key(0), size=5)
  with pytest.raises(TypeError):
    augment.center_crop(image[None], 5)


# Pixels left of what torchvision's center_crop takes, by those it leaves out.
CORNER = {0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 2, 6: 3, 7: 4, 8: 4, 10: 5, 11: 6}


@pytest.mark.parametrize('shape', [(8, 8), (9, 8), (7, 12), (11, 6)])
@pytest.mark.parametrize('size', [1, 4, 5, 6])
def test_center_crop_has_the_corner_of_torchvision(shape, size):
  images = random_images(2, *shape, 3)
  top, left = (CORNER[side - size] for side in shape)
  np.testing.assert_array_equal(
    augment.center_crop(images, size),
    images[:, top : top + size, left : left + size],
  )


def test_normalize_agrees_with_float64_and_casts_last():
  images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
  mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
  expected = (images / 255.0 - np.array(mean)) / np.array(std)

  single = jax.jit(lambda x: augment.normalize(x, mean, std))(images)
  assert single.dtype == jnp.float32
  np.testing.assert_allclose(single, expected, rtol=0, atol=5e-7)

  half = augment.normalize(images, mean, std, jnp.bfloat16)
  assert half.dtype == jnp.bfloat16
  # Rounded once, to 8 bits; the rest is float32's error near 0.
  wide = np.asarray(half).astype(np.float64)
  np.testing.assert_allclose(wide, expected, rtol=2**-8, atol=5e-7)
