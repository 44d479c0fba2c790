"""Where a run comes from: versions, devices, revision, command line."""

import os
import pathlib
import platform
import shlex
import subprocess
import sys
from importlib import metadata

import jax

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint')
_ROOT = pathlib.Path(__file__).parents[2]
_GIT_SECONDS = 10


def describe(root: pathlib.Path = _ROOT) -> dict[str, str | int | bool | None]:
  """What the process that calls it is, as a flat JSON object.

  Args:
    root: the folder of the code, whose git revision is asked for.

  Returns:
    `python`; the versions of the packages; `platform` and `device_kind` as jax
    names them; `device_count` of all processes, `process_count`, `cpu_count`
    (the cores that this process may use); `xla_flags`; `git_revision` and
    `git_dirty`, '' and None where the code lies in no checkout or there is no
    git; `command`, as a shell would take it.

  Example:
    >>> here = describe()
    >>> here['jax'] == jax.__version__, here['device_count'] > 0
    (True, True)
  """
  device = jax.devices()[0]
  revision, dirty = _git(root)
  return {
    'python': platform.python_version(),
    **{name: _version(name) for name in _PACKAGES},
    'platform': device.platform,
    'device_kind': device.device_kind,
    'device_count': jax.device_count(),
    'process_count': jax.process_count(),
    # macOS has no affinity.
    'cpu_count': len(os.sched_getaffinity(0))
    if hasattr(os, 'sched_getaffinity')
    else os.cpu_count(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'git_revision': revision,
    'git_dirty': dirty,
    'command': shlex.join([sys.executable, *sys.argv]),
  }


def _version(package: str) -> str:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return ''


def _git(root: pathlib.Path) -> tuple[str, bool | None]:
  """Revision of the checkout at `root`, and whether files differ from it."""

  def ask(*arguments: str) -> str:
    return subprocess.run(
      ['git', '--no-optional-locks', '-C', str(root), *arguments],
      capture_output=True,
      text=True,
      check=True,
      timeout=_GIT_SECONDS,
    ).stdout.strip()

  try:
    # An installed copy may lie in a checkout of something else.
    ask('ls-files', '--error-unmatch', 'tsla/runs/provenance.py')
    return ask('rev-parse', 'HEAD'), bool(ask('status', '--porcelain'))
  except (OSError, subprocess.SubprocessError):
    return '', None
