"""Crop, flip and normalise: what they do, and what they depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tsla.data import augment
from tsla.data.pipeline import View, augmented, clean_view


@functools.partial(
  jax.jit, static_argnames=('pad', 'crop', 'flip', 'crop_area')
)
def augment_train(images, keys, aspects=None, *, pad, crop, flip, crop_area=0):
  view = View(pad, crop, flip, (0,), (1,), 'float32', crop_area)
  return augmented(view, images, keys, aspects)


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
  def seen(indices):
    keys = augment.example_keys(3, 5, indices)
    return augment_train(images[indices], keys, pad=2, crop=0, flip=True)

  whole = np.asarray(seen(jnp.arange(64)))
  shuffled = np.random.default_rng(1).permutation(64)
  np.testing.assert_array_equal(seen(shuffled), whole[shuffled])
  np.testing.assert_array_equal(
    seen(jnp.array([41, 2, 41])), whole[[41, 2, 41]]
  )
  # One device's eighth of the batch at a time, and under another default key.
  parts = jax.lax.map(seen, jnp.arange(64).reshape(8, 8))
  np.testing.assert_array_equal(parts.reshape(whole.shape), whole)
  with jax.default_prng_impl('rbg'):
    np.testing.assert_array_equal(seen(jnp.array([41, 2])), whole[[41, 2]])


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

  view = View(0, 0, False, mean, std, 'float32')
  single = jax.jit(lambda images: clean_view(view, images))(images)
  assert single.dtype == jnp.float32
  np.testing.assert_allclose(single, expected, rtol=0, atol=5e-7)

  half = clean_view(view._replace(dtype='bfloat16'), images)
  assert half.dtype == jnp.bfloat16
  # Rounded once, to 8 bits; the rest is float32's error near 0.
  wide = np.asarray(half).astype(np.float64)
  np.testing.assert_allclose(wide, expected, rtol=2**-8, atol=5e-7)


def published_window(rng, width, height, smallest):
  """RandomResizedCrop.get_params of torchvision, with NumPy's numbers.

  Returns top, left, height, width, and whether none of ten draws fitted.
  """
  for _ in range(10):
    area = width * height * rng.uniform(smallest, 1)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    w = round(np.sqrt(area * aspect))
    h = round(np.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      top = rng.integers(0, height - h + 1)
      return top, rng.integers(0, width - w + 1), h, w, False
  w, h = width, height
  if width / height < 3 / 4:
    h = round(w / (3 / 4))
  elif width / height > 4 / 3:
    w = round(h * (4 / 3))
  return (height - h) // 2, (width - w) // 2, h, w, True


def windows(aspect, smallest, count):
  """Ours, `f64[N]` each: top, left, height, width in parts of the image."""
  draw = jax.jit(
    lambda keys: jax.vmap(
      lambda key: augment.area_window(key, aspect, smallest)
    )(keys)
  )
  corners, sizes = draw(keys_of(count))
  return np.concatenate([corners, sizes], axis=1).T.astype(np.float64)


@pytest.mark.parametrize(
  ('aspect', 'smallest', 'fallbacks'),
  [
    *((0.5, 0.08, (0.0, 0.01)), (1.0, 0.08, (0.0, 0.001))),
    *((2.0, 0.08, (0.0, 0.01)), (2.0, 0.5, (0.05, 0.9))),
    *((0.5, 0.9, (1, 1)), (2.0, 0.9, (1, 1)), (1.0, 1.0, (0.99, 1))),
  ],
)
def test_windows_of_random_area_are_distributed_as_torchvision_s(
  aspect, smallest, fallbacks
):
  """Moments and distribution functions, within four standard errors."""
  count, height = 10_000, 4_000  # so large that whole pixels do not matter
  width, rng = round(aspect * height), np.random.default_rng(0)
  drawn = [published_window(rng, width, height, smallest) for _ in range(count)]
  *right, fell = np.array(drawn, float).T
  sides = np.array([height, width, height, width])[:, None]
  right = np.array(right) / sides
  ours = windows(aspect, smallest, count)
  low, high = fallbacks
  assert low <= fell.mean() <= high
  assert (ours >= 0).all() and (ours[:2] + ours[2:] <= 1 + 1e-6).all()

  def shown(top, left, h, w):
    """What is compared: area, aspect, and the place by the room for it."""
    room = np.maximum(1 - np.array([h, w]), 1e-3)
    return h * w, np.log(w / h * aspect), *(np.array([top, left]) / room)

  for name, a, b in zip(
    *(('area', 'aspect', 'top', 'left'), shown(*right), shown(*ours)),
    strict=True,
  ):
    for power in (1, 2):
      one, other = a**power, b**power
      error = np.sqrt((one.var() + other.var()) / count)
      close = 4 * error + 2e-3  # and what whole pixels change
      assert abs(one.mean() - other.mean()) < close, (name, power)
    # At places off the atoms, which whole pixels move by a part of a pixel.
    at = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()), 61) + 3e-3
    one, other = ((values[:, None] <= at).mean(0) for values in (a, b))
    error = np.sqrt((one * (1 - one) + other * (1 - other)) / count)
    assert (abs(one - other) <= 4 * error + 2e-3).all(), name


@pytest.mark.parametrize('aspect', [0.5, 2.0])
def test_where_none_fits_the_window_is_the_largest_in_the_middle(aspect):
  top, left, height, width = windows(aspect, 0.9, 5)
  long, short = (height, width) if aspect < 1 else (width, height)
  np.testing.assert_allclose(short, 1)
  np.testing.assert_allclose(long, 2 / 3, rtol=1e-6)  # 4 : 3 within 2 : 1
  np.testing.assert_allclose(top, (1 - height) / 2, atol=1e-7)
  np.testing.assert_allclose(left, (1 - width) / 2, atol=1e-7)


def resized(image, corner, size, shape):
  """The window in float64: triangles, as wide as a pixel of in- or output."""
  for axis, (at, part, new) in enumerate(zip(corner, size, shape, strict=True)):
    old = image.shape[axis]
    step = part * old / new
    centers = at * old + (np.arange(new) + 0.5) * step - 0.5
    distance = abs(centers[:, None] - np.arange(old)) / max(step, 1)
    weights = np.maximum(1 - distance, 0)
    weights /= weights.sum(1, keepdims=True)
    image = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
  return image


@pytest.mark.parametrize(
  ('corner', 'size', 'shape'),
  [
    *(((0.1, 0.25), (0.5, 0.3), (12, 12)), ((0, 0), (1, 1), (7, 9))),
    *(((0.6, 0.0), (0.4, 1.0), (30, 20)), ((0.37, 0.71), (0.2, 0.29), (8, 5))),
  ],
)
def test_a_window_is_resized_as_numpy_and_pillow_do(corner, size, shape):
  """A gradient, one edge and noise; ours is rounded once, Pillow's twice."""
  y, x = np.mgrid[:40, :32]
  noise = np.random.default_rng(0).integers(0, 256, y.shape)
  image = np.stack([2 * y + 4 * x, 255 * (x > 15), noise], -1).astype(np.uint8)
  cut = jax.jit(augment.resized_window, static_argnums=3)
  got = np.asarray(cut(image, jnp.array(corner), jnp.array(size), shape))
  assert got.dtype == np.uint8 and got.shape == (*shape, 3)
  right = resized(image.astype(np.float64), corner, size, shape)
  assert abs(got - right).max() < 0.5 + 1e-3
  (top, left), (h, w) = (np.array(v) * (40, 32) for v in (corner, size))
  pillow = Image.fromarray(image).resize(
    shape[::-1], Image.Resampling.BILINEAR, (left, top, left + w, top + h)
  )
  assert abs(got.astype(int) - np.asarray(pillow)).max() <= 1


def test_a_window_has_its_aspect_in_the_source_not_in_the_stored_square():
  """A picture of 90 × 30 that is stored as 60 × 60, whose middle is white."""
  stored = np.zeros((1, 60, 60, 1), np.uint8)
  stored[:, :, 20:40] = 255  # 30 × 30 of the source
  (image,) = np.asarray(
    augment_train(
      *(stored, keys_of(1), jnp.array([3.0])),
      **{'pad': 0, 'crop': 40, 'flip': False, 'crop_area': 1.0},
    )
  )
  # None fits; the fallback is 40 × 30 of the source, of which 30 are white.
  assert (image[..., 0] > 127).sum(1).tolist() == [30] * 40


def test_windows_of_random_area_leave_flips_alone_and_other_aspects_differ():
  images, keys = random_images(300, 12, 12, 3), keys_of(300)
  options = {'pad': 0, 'crop': 6, 'crop_area': 0.3}
  aspects = np.linspace(0.4, 2.5, 300).astype(np.float32)
  off, on = (
    np.asarray(augment_train(images, keys, aspects, flip=flip, **options))
    for flip in (False, True)
  )
  assert on.shape == (300, 6, 6, 3)
  whole = {'pad': 0, 'crop': 0, 'flip': True}
  flipped = (np.asarray(augment_train(images, keys, **whole)) != images).any(
    (1, 2, 3)
  )
  assert 100 < flipped.sum() < 200
  np.testing.assert_array_equal(
    on, np.where(flipped[:, None, None, None], off[:, :, ::-1], off)
  )
  square = augment_train(images, keys, flip=False, **options)
  as_one = augment_train(images, keys, np.ones(300), flip=False, **options)
  np.testing.assert_array_equal(square, as_one)
  assert (np.asarray(square) != off).any((1, 2, 3)).mean() > 0.9
  # Each of them alone, too.
  alone = augment_train(
    *(images[7:8], keys[7:8], aspects[7:8]), flip=False, **options
  )
  np.testing.assert_array_equal(alone[0], off[7])
