"""Where the compiled functions have their images from: the device, or the disk.

`resident`: the whole set lies on each device, and a batch is gathered there.
`mapped`: the host reads what each call needs, while the last one is computed.
Both visit the same examples in the same order: on a CPU the same bits come of
it, but in jit on several devices and for a probe's estimates.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tsla.data import batches
from tsla.data.datasets import Dataset, Split
from tsla.data.feed import Feed, reader
from tsla.errors import InputError
from tsla.evaluation.metrics import EvalSums
from tsla.training.parallel import Devices
from tsla.training.step import Examples, Fed, TrainState

_CALL_BYTES = 2**29  # of the images of a call, on this machine
_CALL_PART = 16  # of a device's memory; up to six calls' images lie there

Sums = Callable[[TrainState, Examples, Any, int], EvalSums]


def choose_feed(asked: str, dataset: Dataset, memory: int | None) -> str:
  """'resident' where the images take at most half of a device, else 'mapped'.

  Unless one is asked for. `memory` are the bytes of a device; None: unknown.
  """
  size = image_bytes(dataset)
  fits = memory is None or size <= memory // 2
  if asked == 'resident' and not fits:
    raise InputError(
      "config.data.feed = 'resident', asked for or as the run began: the "
      f'images of {dataset.name} take {size / 1e9:.1f} GB',
      allowed=f'{(memory or 0) / 2e9:.1f} GB, half of the device',
      cure='--config.data.feed=mapped, or a smaller --config.data.image_size',
    )
  return 'mapped' if asked == 'mapped' or not fits else 'resident'


def image_bytes(dataset: Dataset) -> int:
  """What the images of a set take on each device."""
  return sum(split.images.nbytes for split in dataset.splits.values())


def chunk_length(steps_per_epoch: int, at_most: int) -> int:
  """Updates in a compiled call; a second length is a second compilation.

  So the largest divisor of `steps_per_epoch` in `at_most / 2 .. at_most`; where
  there is none, `at_most`, and the epoch's last chunk is shorter.
  """
  if steps_per_epoch <= at_most:
    return steps_per_epoch
  lengths = range(at_most, (at_most - 1) // 2, -1)
  return next((n for n in lengths if steps_per_epoch % n == 0), at_most)


def length_at(step: int, steps_per_epoch: int, longest: int) -> int:
  """Updates of the call after `step` of them, which ends within the epoch."""
  in_epoch = step % steps_per_epoch
  return min(longest - in_epoch % longest, steps_per_epoch - in_epoch)


class Feeds:
  """What the functions of a run get for examples and for `slots`.

  A call has `at_most` updates, or fewer if the memory wants it.
  """

  def __init__(
    self,
    feed: str,
    dataset: Dataset,
    devices: Devices,
    *,
    seed: int,
    batch_size: int,
    at_most: int,
    total_steps: int,
  ):
    self._devices, self._mapped = devices, feed == 'mapped'
    self._batch_size, self._count = batch_size, len(dataset.train.labels)
    self._image = int(np.prod(dataset.image_shape))
    per_epoch = batches.steps_per_epoch(self._count, batch_size)
    size = f'{image_bytes(dataset) / 1e9:.1f} GB of images'
    self.about = f'resident, {size} on each device'
    if not self._mapped:
      self.longest = chunk_length(per_epoch, at_most)
      self._slots = devices.slots(batch_size)
      return
    at_most = min(at_most, self._batches_of_a_call(batch_size))
    self.longest = longest = chunk_length(per_epoch, at_most)
    self.about = f'mapped, {size} off the device, {longest} updates a call'
    in_order = jax.jit(batches.epoch_order, static_argnums=2)
    self._order = functools.lru_cache(3)(  # of two epochs, and the probe's
      lambda epoch: np.asarray(in_order(np.uint32(seed), epoch, self._count))
    )
    self._read = reader(dataset.train.images)

    def make(call: tuple[int, int]) -> Fed:
      epoch, first = divmod(call[0], per_epoch)
      return self._batches(self._order(epoch), first, call[1])

    def following(call: tuple[int, int]) -> tuple[int, int] | None:
      if (after := sum(call)) == total_steps:
        return None
      return after, length_at(after, per_epoch, longest)

    self._train = Feed(make, following)

  def examples(self, split: Split) -> Examples:
    """A split on the devices, as far as it is to lie there."""
    images = None if self._mapped else split.images[:]
    return self._devices.replicate(
      Examples(images, split.labels, split.aspects)
    )

  def updates(self, step: int, length: int) -> jax.Array | Fed:
    """For the `length` updates after `step` of them."""
    return self._train.take((step, length)) if self._mapped else self._slots

  def probe(self, epoch: int, length: int) -> jax.Array | Fed:
    """For the first `length` batches of an epoch."""
    if not self._mapped:
      return self._slots
    return self._batches(self._order(epoch), 0, length)

  def evaluation(
    self, sums: Sums, split: Split, examples: Examples, at_most: int
  ) -> Callable[[TrainState], EvalSums]:
    """The sums of every batch of a split; `sums` is the compiled function."""
    devices, total = self._devices, len(split.labels)
    batch_size = devices.round_up(min(at_most, total))
    if not self._mapped:
      slots = devices.slots(batch_size)
      return lambda state: sums(state, examples, slots, batch_size)
    count = batches.num_eval_batches(total, batch_size)
    # A loop of one batch is compiled in another way, to other bits.
    calls = -(-count // max(2, self._batches_of_a_call(batch_size)))
    length, read = -(-count // calls), reader(split.images)

    def make(first: int) -> Fed:
      places = np.arange(length * batch_size).reshape(length, batch_size)
      return Fed(*devices.deal(places + first * batch_size, read))

    feed = Feed(make, lambda i: i + length if i + length < count else None)

    def evaluate(state: TrainState) -> EvalSums:
      found: list[EvalSums] = []
      for first in range(0, count, length):
        part = sums(state, examples, feed.take(first), batch_size)
        # Else the whole set would come to wait on the device.
        jax.block_until_ready(found[-1:])
        found.append(part)
      return jax.tree.map(lambda *s: np.concatenate(s)[:count], *found)

    return evaluate

  def _batches(self, order: np.ndarray, first: int, length: int) -> Fed:
    size = self._batch_size
    picked = order[first * size : (first + length) * size]
    return Fed(*self._devices.deal(picked.reshape(length, size), self._read))

  def _batches_of_a_call(self, batch_size: int) -> int:
    mesh = self._devices.mesh
    each = max(1, batch_size * self._image // mesh.size)
    most = _CALL_BYTES // len(mesh.local_devices)
    # A power of two: what the devices of one kind say may differ a little.
    memory = 1 << self._devices.memory().bit_length() >> 1
    return max(1, min(most, memory // _CALL_PART) // each)
