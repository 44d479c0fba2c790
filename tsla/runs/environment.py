"""The process that a run is: where it comes from, and how it is set up.

What `describe` finds goes into the run's directory. `keep_compiled` and
`split_cores` are called before jax looks for devices, `hush` by a program.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import jax

from tsla.errors import InputError
from tsla.files import locked, user_cache

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint')
_ROOT = pathlib.Path(__file__).parents[2]
_GIT_SECONDS = 10
_MOST_SECONDS = 120  # of waiting for what another process compiles
_SMALL = ('resnet8',)  # networks whose updates are too short to be split


def describe(root: pathlib.Path = _ROOT) -> dict[str, str | int | bool | None]:
  """What the process that calls it is, as a flat JSON object.

  `device_count` is of all processes, `cpu_count` what this one may use;
  `git_revision` and `git_dirty` are '' and None where `root` is in no checkout.
  """
  device = jax.devices()[0]
  revision, dirty = _git(root)
  return {
    'python': platform.python_version(),
    **{name: metadata.version(name) for name in _PACKAGES},
    'platform': device.platform,
    'device_kind': device.device_kind,
    'device_count': jax.device_count(),
    'process_count': jax.process_count(),
    'cpu_count': available_cores(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'git_revision': revision,
    'git_dirty': dirty,
    'command': shlex.join([sys.executable, *sys.argv]),
  }


def _git(root: pathlib.Path) -> tuple[str, bool | None]:
  """Revision of the checkout at `root`, and whether files differ from it."""

  def ask(*arguments: str) -> str:
    command = ['git', '--no-optional-locks', '-C', str(root), *arguments]
    options = {'stderr': subprocess.DEVNULL, 'timeout': _GIT_SECONDS}
    return subprocess.check_output(command, text=True, **options).strip()

  try:
    # An installed copy may lie in a checkout of something else.
    ask('ls-files', '--error-unmatch', 'tsla/runs/environment.py')
    return ask('rev-parse', 'HEAD'), bool(ask('status', '--porcelain'))
  except (OSError, subprocess.SubprocessError):
    return '', None


def keep_compiled() -> None:
  """Compiled programs go to, and come from, the user's cache folder.

  So of the runs of a sweep only the first one compiles. It may be deleted at
  any time; `JAX_COMPILATION_CACHE_DIR` names another folder, and
  `JAX_ENABLE_COMPILATION_CACHE=false` does without.
  """
  if jax.config.jax_compilation_cache_dir:
    return
  # A program for the CPU is made for a number of cores, which changes its sums
  # but not jax's name for it.
  with contextlib.suppress(OSError, InputError):
    folder = user_cache('xla') / f'{available_cores()}-cores'
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


@contextlib.contextmanager
def compiling_alone(program: str) -> Iterator[None]:
  """Waits while another process compiles the program, to read it then.

  It does not wait for ever: the other one may be stopped, or hang.
  """
  folder = jax.config.jax_compilation_cache_dir
  kept = folder and jax.config.jax_enable_compilation_cache
  with contextlib.ExitStack() as stack:
    if kept and jax.process_count() == 1:  # else they compile together
      name = hashlib.sha256(program.encode()).hexdigest()[:16] + '.lock'
      with contextlib.suppress(OSError):  # of a folder that is only read
        _wait_for(pathlib.Path(folder) / name, stack)
    yield


def _wait_for(lock: pathlib.Path, stack: contextlib.ExitStack) -> None:
  ends = time.monotonic() + _MOST_SECONDS
  while time.monotonic() < ends:
    try:
      stack.enter_context(locked(lock, wait=False))
      return
    except BlockingIOError:
      time.sleep(0.05)


def hush() -> None:
  """Keeps from the terminal what threads of libraries say of their errors.

  They are raised in the main thread too, and explained there in three lines.
  """

  def report(kind: type[BaseException], *error: Any) -> None:
    if threading.current_thread() is threading.main_thread():
      sys.__excepthook__(kind, *error)

  sys.excepthook = report
  threading.excepthook = sys.unraisablehook = lambda _: None
  logging.getLogger('absl').setLevel(logging.CRITICAL)


def split_cores(model: str, batch_size: int) -> None:
  """Makes each core a CPU device where that is faster.

  XLA runs a convolution of few channels on one core. A batch that is split over
  as many CPU devices as there are cores keeps all of them busy: 1.26 times the
  images per second for a ResNet-18 on two cores, but 0.6 times for a ResNet-8
  on 8×8 images (`benchmarks/compare.py --cpus`). `JAX_NUM_CPU_DEVICES` and
  XLA's own flag have the last word, and a batch that does not divide by the
  cores gets the most devices by which it does.
  """
  asked = jax.config.jax_num_cpu_devices != -1
  flag = 'xla_force_host_platform_device_count'
  asked = asked or flag in os.environ.get('XLA_FLAGS', '')
  if asked or model in _SMALL or jax.distributed.is_initialized():
    return
  cores = available_cores()
  devices = next(n for n in range(cores, 0, -1) if batch_size % n == 0)
  with contextlib.suppress(RuntimeError):  # jax has found its devices already
    jax.config.update('jax_num_cpu_devices', devices)


def available_cores() -> int:
  """The cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # macOS has none
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
