"""How the devices of a run share its work: placing, mapping, gathering.

Both modes take and return the same unreplicated state, so a checkpoint does
not know how many devices wrote it:

- `pmap`: each device runs the function on its own slots and `axis_name` says
  what to average over; the state is broadcast in, and one copy comes out.
- `jit`: one program over a one-axis mesh; the slots are sharded, the compiler
  derives the rest, and averages are global without an axis name.
"""

import dataclasses
import functools
import hashlib
import os
import signal
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tsla.errors import InputError

_AXIS = 'batch'
_HEARTBEAT_SECONDS = 40


@dataclasses.dataclass(frozen=True)
class Devices:
  """All devices of a run, and how one function runs on them.

  Attributes:
    mode: 'pmap' or 'jit'.
    mesh: the devices, on one axis.
  """

  mode: str
  mesh: Mesh

  @property
  def axis_name(self) -> str | None:
    """The axis that a mapped function averages over."""
    return _AXIS if self.mode == 'pmap' else None

  def replicate(self, tree: Any) -> Any:
    """Every array of `tree`, whole, on every device.

    In several processes each hands over its own copy, which must be the same.
    """
    return jax.tree.map(lambda leaf: self._place(leaf, PartitionSpec()), tree)

  def slots(self, batch_size: int) -> jax.Array:
    """`arange(batch_size)`, a part a device: `i32[B]`, pmap: `i32[D, B/D]`."""
    places = np.arange(batch_size, dtype=np.int32)
    if self.mode == 'pmap':
      places = places.reshape(self.mesh.size, -1)
    return self._place(places, PartitionSpec(_AXIS))

  def _place(self, leaf: Any, spec: PartitionSpec) -> jax.Array:
    # device_put would first compare the leaf across all processes.
    leaf = np.asarray(leaf)
    return jax.make_array_from_callback(
      leaf.shape, NamedSharding(self.mesh, spec), lambda index: leaf[index]
    )

  def map(
    self, fn: Callable[..., Any], *, donate_state: bool = False
  ) -> Callable[..., Any]:
    """Compiles `fn(state, inputs, slots, static)` for all devices.

    Args:
      fn: `state` and `inputs` are the same everywhere, `slots` differ, and
        the last argument is a Python number to compile for. What it returns
        must be the same everywhere.
      donate_state: the caller's `state` is gone after the call.
    """
    donate = (0,) if donate_state else ()
    if self.mode == 'pmap':
      return jax.pmap(
        fn,
        axis_name=_AXIS,
        in_axes=(None, None, 0, None),
        out_axes=None,
        devices=list(self.mesh.devices),
        static_broadcasted_argnums=3,
        donate_argnums=donate,
      )
    return jax.jit(
      fn,
      static_argnums=3,
      donate_argnums=donate,
      out_shardings=NamedSharding(self.mesh, PartitionSpec()),
    )

  def max_over_processes(self, value: int, wait_for: Any) -> int:
    """The largest `value` of all processes, which call this together.

    `wait_for` is what was computed last: on the CPU two programs that exchange
    numbers must not run at once.
    """
    if is_alone():
      return value
    jax.block_until_ready(wait_for)
    values = jax.make_array_from_callback(
      (self.mesh.size,),
      NamedSharding(self.mesh, PartitionSpec(_AXIS)),
      lambda index: np.full(1, value, np.int32),
    )
    return int(_largest(self.mesh)(values))

  def describe(self) -> str:
    """The devices and the mode, in words."""
    first = self.mesh.devices[0]
    return (
      f'{self.mesh.size} × {first.device_kind} ({first.platform}), {self.mode}'
    )

  def memory(self) -> int | None:
    """Bytes that a device has for arrays; None where it does not say (CPU)."""
    device = self.mesh.local_devices[0]  # another process's will not say
    return (device.memory_stats() or {}).get('bytes_limit')

  def round_up(self, batch_size: int) -> int:
    """The next multiple of the device count."""
    return -(-batch_size // self.mesh.size) * self.mesh.size


@functools.cache
def _largest(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
  return jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))


def join(
  coordinator: str = '', num_processes: int = 0, index: int = -1
) -> None:
  """Joins the other processes of a run.

  Without a coordinator, HOST:PORT of process 0, a pod slice or Slurm says all
  three.

  Raises:
    InputError: that is not so, or nothing here says which processes there are.
  """
  try:
    jax.distributed.initialize(
      coordinator_address=coordinator or None,
      num_processes=num_processes if coordinator else None,
      process_id=index if coordinator else None,
      # A process that was killed on another machine is missed after this.
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
    )
  except (ValueError, RuntimeError) as error:
    raise InputError(
      f'--distributed: {error}',
      allowed='on a Cloud TPU pod slice or in a Slurm job, or with '
      '--coordinator, --num_processes and --process_index',
      cure='leave --distributed out on a single machine',
    ) from error
  # jax takes SIGTERM for itself here, and nothing would come of one that
  # arrives before the run watches signals.
  signal.signal(signal.SIGTERM, signal.SIG_DFL)


def check_platform() -> None:
  """Raises InputError if there are no devices of the platform asked for."""
  try:
    jax.devices()
  except RuntimeError as error:
    raise InputError(
      f'JAX_PLATFORMS = {os.environ.get("JAX_PLATFORMS", "")!r}: {error}',
      allowed='a platform that this jax is built for and this machine has',
      cure='JAX_PLATFORMS=cpu, or the jax build of the accelerator',
    ) from error


def is_first() -> bool:
  """Whether this process writes what all processes share."""
  return jax.process_index() == 0


def is_alone() -> bool:
  """Whether this is the run's only process."""
  return jax.process_count() == 1


def check_same(what: str, text: str) -> None:
  """Compares a text over all processes of a run, which call this together.

  `what` it is, for the error.

  Raises:
    InputError: in all of them, if it is not the same everywhere.
  """
  if is_alone():
    return
  digest = hashlib.sha256(text.encode()).digest()
  found = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
  others = np.flatnonzero((found != found[0]).any(1)).tolist()
  if others:
    raise InputError(
      f'{what}: not the same in all processes: others in process '
      f'{", ".join(map(str, others))} than in process 0',
      allowed='the same files and flags on all machines',
      cure='copy them from the machine of process 0',
    )


def choose(mode: str, batch_size: int) -> Devices:
  """Every device there is, in the mode that `config.parallel` asks for.

  'auto' is pmap on several devices of one process, else jit.

  Raises:
    InputError: the batch does not divide by the device count, or pmap is asked
      for in several processes.
  """
  if mode == 'pmap' and not is_alone():
    raise InputError(
      f"config.parallel = 'pmap': there are {jax.process_count()} processes",
      allowed='jit or auto in several processes',
      cure='--config.parallel=auto',
    )
  devices = np.asarray(jax.devices())
  if batch_size % len(devices):
    below = batch_size // len(devices) * len(devices)
    raise InputError(
      f'config.batch_size = {batch_size}: does not divide by the '
      f'{len(devices)} devices',
      allowed=f'a multiple of {len(devices)}',
      cure=f'--config.batch_size={below or len(devices)}',
    )
  if mode == 'auto':
    mode = 'pmap' if len(devices) > 1 and is_alone() else 'jit'
  return Devices(mode, Mesh(devices, _AXIS))
