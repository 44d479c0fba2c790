"""Every test runs on the CPU backend, without network or accelerator.

What jax and this project read from the environment is cleared first, but for
what the Makefile sets: the tests are the same for whoever runs them.
"""

import importlib.metadata
import os
import signal
import tempfile

import pytest

_KEPT = {'JAX_DISABLE_MOST_OPTIMIZATIONS', 'TSLA_KILLS', 'TSLA_FUZZ'}
_READ = (
  *('JAX_', 'XLA_', 'TSLA_', 'TFDS_', 'LIBTPU_', 'TPU_', 'CUDA_', 'NVIDIA_'),
  # By these jax knows a cluster, and requests a proxy.
  *('SLURM_', 'OMPI_', 'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'NO_PROXY'),
)
for _name in list(os.environ):
  if _name.upper().startswith(_READ) and _name not in _KEPT:
    del os.environ[_name]

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# Decoded image folders are cached for the user; a test is no user.
os.environ['XDG_CACHE_HOME'] = tempfile.mkdtemp(prefix='tsla-test-')
# A cached executable of another build would hide a recompilation.
os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
# Most of the suite's time is LLVM's; `make test-all` runs what users run.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', 'true')
if os.environ[
  'JAX_DISABLE_MOST_OPTIMIZATIONS'
] == 'true' and importlib.metadata.version('jaxlib').startswith(
  '0.10.'
):  # a third of that time; later versions know no such flag and would end
  os.environ['XLA_FLAGS'] = '--xla_cpu_use_fusion_emitters=false'


@pytest.fixture
def hears_sighup():
  """Under nohup a process ignores it, and so do those that it starts."""
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  yield
  signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope='module')
def compile_once(tmp_path_factory):
  """For a file of many runs of one program: none of it is cached before."""
  import jax  # after the environment is set
  from jax.experimental.compilation_cache import compilation_cache

  options = {
    'jax_enable_compilation_cache': True,
    'jax_compilation_cache_dir': str(tmp_path_factory.mktemp('cache')),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
  }
  before = {name: getattr(jax.config, name) for name in options}

  def put(values):
    for name, value in values.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()  # else it stays where it was first

  put(options)
  yield
  put(before)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """The small run of support.py, on a data set of the file's own."""
  from support import small_config, write_digits_npz

  folder = tmp_path_factory.mktemp('data')
  config = small_config(write_digits_npz(folder / 'digits.npz'))
  config.checkpoint_keep_epochs = (2,)  # the state at its switch
  return config


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
  """The directory of that run, trained to its end."""
  from tsla.training import loop

  workdir = tmp_path_factory.mktemp('run')
  loop.train_and_evaluate(config, workdir)
  return workdir
