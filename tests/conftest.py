"""Every test runs on the CPU backend, without network or accelerator."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# A cached executable of another build would hide a recompilation.
os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
