"""Every test runs on the CPU backend, without network or accelerator."""

import os
import tempfile

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# A cached executable of another build would hide a recompilation.
# Decoded image folders are cached for the user; a test is no user.
os.environ['XDG_CACHE_HOME'] = tempfile.mkdtemp(prefix='tsla-test-')
os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
