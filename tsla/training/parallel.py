"""How the devices of a run share its work: placing, mapping, gathering.

Both modes take and return the same unreplicated state, so a checkpoint does
not know how many devices wrote it:

- `pmap`: each device runs the function on its own slots and `axis_name` says
  what to average over; the state is broadcast in, and one copy comes out.
- `jit`: one program over a one-axis mesh; the slots are sharded, the compiler
  derives the rest, and averages are global without an axis name.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tsla.errors import InputError
from tsla.files import untrusted
from tsla.runs import lifecycle

_AXIS, _MEMORY = 'batch', 'TSLA_DEVICE_MEMORY'
_HEARTBEAT_SECONDS = 40  # a process killed on another machine is missed then
_SHARED_SECONDS = 30  # so long NFS may say that a new file is not there
_NUMBERS = {
  'jax_enable_x64': False,
  'jax_threefry_partitionable': True,
  'jax_random_seed_offset': 0,
}
_NAMED, _SHOWN = 3, 80  # differences that an error shows, letters of each


@dataclasses.dataclass(frozen=True)
class Devices:
  """All devices of a run, and how one function runs on them."""

  mode: str  # 'pmap' or 'jit'
  mesh: Mesh  # on one axis

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
    return self._place(*self._dealt(places))

  def deal(
    self, indices: np.ndarray, read: Callable[[np.ndarray], np.ndarray]
  ) -> tuple[jax.Array, jax.Array]:
    """Batches of examples, `i32[L, B]`, each part where `slots` has it.

    `read` copies the images of some, and is asked for this process's only.
    Returns indices and images, pmap: with an axis of the devices in front.
    """
    indices, spec = self._dealt(indices.astype(np.int32))

    def part(index: tuple[slice, ...]) -> np.ndarray:
      return read(indices[index[: indices.ndim]])

    shape = (*indices.shape, *read(indices[:0]).shape[indices.ndim :])
    place = NamedSharding(self.mesh, spec)
    images = jax.make_array_from_callback(shape, place, part)
    return self._place(indices, spec), images

  def _dealt(self, places: np.ndarray) -> tuple[np.ndarray, PartitionSpec]:
    """Places `[..., B]` with the axis that pmap wants, and how they lie."""
    if self.mode == 'pmap':
      parts = places.reshape(*places.shape[:-1], self.mesh.size, -1)
      return np.moveaxis(parts, -2, 0), PartitionSpec(_AXIS)
    return places, PartitionSpec(*[None] * (places.ndim - 1), _AXIS)

  def _place(self, leaf: Any, spec: PartitionSpec) -> jax.Array:
    # device_put would first compare the leaf across all processes.
    leaf, place = np.asarray(leaf), NamedSharding(self.mesh, spec)
    return jax.make_array_from_callback(leaf.shape, place, leaf.__getitem__)

  def map(
    self, fn: Callable[..., Any], *, donate_state: bool = False
  ) -> Callable[..., Any]:
    """Compiles `fn(state, inputs, slots, static)` for all devices.

    Only `slots` differ between them; the last is a Python number to compile
    for. With `donate_state` the caller's `state` is gone after the call.
    """
    options = {'donate_argnums': (0,) if donate_state else ()}
    if self.mode == 'pmap':
      options |= {'axis_name': _AXIS, 'devices': list(self.mesh.devices)}
      options |= {'in_axes': (None, None, 0, None), 'out_axes': None}
      return jax.pmap(fn, static_broadcasted_argnums=3, **options)
    everywhere = NamedSharding(self.mesh, PartitionSpec())
    return jax.jit(fn, static_argnums=3, out_shardings=everywhere, **options)

  def describe(self) -> str:
    """The devices and the mode, in words."""
    size, first = self.mesh.size, self.mesh.devices[0]
    return f'{size} × {first.device_kind} ({first.platform}), {self.mode}'

  def memory(self) -> int:
    """Bytes that a device has for arrays, of a CPU its share of the machine's.

    The environment variable TSLA_DEVICE_MEMORY sets it, for tests and others.
    """
    if asked := os.environ.get(_MEMORY, ''):
      if not asked.isdecimal():
        cure = f'{_MEMORY}=16000000000'
        raise InputError(f'{_MEMORY} = {asked!r}', allowed='bytes', cure=cure)
      return int(asked)
    devices = self.mesh.local_devices  # another process's will not say
    stats = devices[0].memory_stats() or {}
    machine = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return stats.get('bytes_limit', machine // len(devices))

  def round_up(self, batch_size: int) -> int:
    """The next multiple of the device count."""
    return -(-batch_size // self.mesh.size) * self.mesh.size


def join(*processes: Any, seconds: int) -> None:
  """Joins the other processes of a run; exit code 2 if one is late.

  `processes` are the coordinator, HOST:PORT of process 0, how many there are
  and which this one is; without, a pod slice or Slurm says it.
  """
  if processes and processes[-1] == 0:
    _check_port(processes[0])
  on_sigterm = signal.getsignal(signal.SIGTERM)
  # jax ends the process by an abort, and nothing can be raised meanwhile.
  late = threading.Timer(seconds, _give_up, args=[seconds])
  late.daemon = True
  late.start()
  flags = '--coordinator, --num_processes and --process_index'
  allowed = f'on a Cloud TPU pod slice or in a Slurm job, or with {flags}'
  cure = 'leave --distributed out on a single machine'
  try:
    with untrusted('--distributed', allowed=allowed, cure=cure):
      jax.distributed.initialize(
        *processes,
        initialization_timeout=2 * seconds,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      )
  finally:
    late.cancel()
  # jax takes SIGTERM for itself here, and nothing would come of one that
  # arrives before the run watches signals.
  signal.signal(signal.SIGTERM, on_sigterm)


def _check_port(coordinator: str) -> None:
  """Raises InputError if process 0 cannot listen there; jax would crash."""
  both = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if both else socket.AF_INET
  address = '', int(coordinator.rpartition(':')[2])
  allowed = 'a free port of the machine of process 0'
  cure = 'another port, the same for all processes'
  with untrusted(f'--coordinator={coordinator}', allowed=allowed, cure=cure):
    socket.create_server(address, family=family, dualstack_ipv6=both).close()


def _give_up(seconds: int) -> None:
  problem = f'--join_seconds={seconds}: not all processes of the run have come'
  allowed = 'all of them within that time, with the same coordinator'
  cure = f'start them together, or --join_seconds={10 * seconds}'
  lifecycle.say(str(InputError(problem, allowed=allowed, cure=cure)))
  os._exit(2)


def check_platform() -> None:
  """Raises InputError if the platform asked for has no devices.

  Or if a setting of jax in `_NUMBERS` is another than that of every run.
  """
  for name, value in _NUMBERS.items():
    if (found := getattr(jax.config, name)) != value:
      name = name.upper()
      cure = f'{name}={value:d}, or leave it out'
      raise InputError(f'{name} = {found}', allowed=f'{value}', cure=cure)
  asked = f'JAX_PLATFORMS = {os.environ.get("JAX_PLATFORMS", "")!r}'
  allowed = 'a platform that this jax is built for and this machine has'
  cure = 'JAX_PLATFORMS=cpu, or the jax build of the accelerator'
  with untrusted(asked, allowed=allowed, cure=cure):
    jax.devices()


def max_over_processes(value: int, wait_for: Any) -> int:
  """The largest `value` of all processes, which call this together.

  On the CPU `wait_for`, computed last, must not exchange numbers meanwhile.
  """
  if jax.process_count() == 1:
    return value
  jax.block_until_ready(wait_for)
  return int(multihost_utils.process_allgather(np.int32(value)).max())


def check_same(facts: Mapping[str, Any]) -> None:
  """Raises InputError unless the facts are the same in all processes of a run.

  All of them call this together, and all raise. Each fact is compared by its
  `repr`, and has the name that an error gives it.
  """
  if jax.process_count() == 1:
    return
  text = json.dumps({name: repr(value) for name, value in facts.items()})
  first, *others = map(json.loads, _gather(text))
  for index, other in enumerate(others, start=1):
    differences = [
      f'{name}: {first.get(name, "nothing")[:_SHOWN]} in process 0, '
      f'{other.get(name, "nothing")[:_SHOWN]} in process {index}'
      for name in sorted(first.keys() | other.keys())
      if first.get(name) != other.get(name)
    ]
    if differences:
      raise InputError(
        f'not the same in all processes: {"; ".join(differences[:_NAMED])}',
        allowed='the same versions, flags and files on all machines',
        cure='copy them from the machine of process 0',
      )


def _gather(text: str) -> list[str]:
  """The texts of all processes, which call this together."""
  own = np.frombuffer(text.encode(), np.uint8)
  longest = multihost_utils.process_allgather(np.int32(own.size)).max()
  padded = np.pad(own, (0, longest - own.size))
  found = multihost_utils.process_allgather(padded)
  return [row.tobytes().rstrip(b'\0').decode() for row in found]


@contextlib.contextmanager
def agreement() -> Iterator[dict[str, Any]]:
  """What is done inside succeeds in all processes of a run, or in none.

  All leave it by an InputError if one does, or if the facts differ that each
  puts into what is yielded.
  """
  facts: dict[str, Any] = {}
  try:
    yield facts
  except InputError as error:
    check_same({**facts, 'stopped by': error.problem})
    raise
  check_same(facts)


@contextlib.contextmanager
def claimed(
  folder: pathlib.Path, claim: contextlib.AbstractContextManager[None]
) -> Iterator[None]:
  """Holds the claim on a folder, in all processes of a run or in none.

  The first process leaves a mark in the folder, which the others must find. An
  InputError of what is done inside ends this process with exit code 2.
  """
  with contextlib.ExitStack() as stack:
    with agreement():
      stack.enter_context(claim)
    if jax.process_count() > 1:
      mark, word = folder / '.processes', _gather(secrets.token_hex())[0]
      if jax.process_index() == 0:
        stack.callback(mark.unlink)
        mark.write_text(word)
      check_same({'workdir': _appears(mark, word) or f'not there, {folder}'})
    try:
      yield
    except InputError as error:
      if jax.process_count() == 1:
        raise
      # The others wait for this one, and jax waits for them as it shuts down.
      stack.close()
      lifecycle.say(str(error))
      os._exit(2)


def _appears(path: pathlib.Path, text: str) -> bool:
  """Whether a file has this text, by and by on a disk of the network."""
  end = time.monotonic() + _SHARED_SECONDS
  while time.monotonic() < end:
    with contextlib.suppress(OSError):
      if path.read_text() == text:
        return True
    time.sleep(0.1)
  return False


def choose(mode: str, batch_size: int) -> Devices:
  """Every device there is, in the mode that `config.parallel` asks for.

  'auto' is pmap on several devices of one process, else jit.
  """
  processes = jax.process_count()
  if mode == 'pmap' and processes > 1:
    problem = f"config.parallel = 'pmap': there are {processes} processes"
    allowed, cure = 'jit or auto in several processes', '--config.parallel=auto'
    raise InputError(problem, allowed=allowed, cure=cure)
  devices = np.asarray(jax.devices())
  number = len(devices)
  if rest := batch_size % number:
    raise InputError(
      f'config.batch_size = {batch_size}: does not divide by the {number} '
      'devices',
      allowed=f'a multiple of {number}',
      cure=f'--config.batch_size={batch_size - rest or number}',
    )
  if mode == 'auto':
    mode = 'pmap' if number > 1 and processes == 1 else 'jit'
  return Devices(mode, Mesh(devices, _AXIS))
