"""What the compiler made is kept from one process to the next."""

import jax

from tsla.files import user_cache
from tsla.runs.cores import available_cores


def keep_compiled() -> None:
  """Compiled programs go to, and come from, the user's cache folder.

  The runs of a sweep are one program, so that only the first one compiles. The
  folder may be deleted at any time. `JAX_COMPILATION_CACHE_DIR` names another
  one, and `JAX_ENABLE_COMPILATION_CACHE=false` does without, as does a folder
  that cannot be made.
  """
  if jax.config.jax_compilation_cache_dir:
    return
  # A program for the CPU is made for a number of cores, which changes its sums
  # but not jax's name for it.
  folder = user_cache('xla') / f'{available_cores()}-cores'
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
