"""Signals and stops, in processes that train nothing: exit code and words."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from support import ROOT

pytestmark = pytest.mark.usefixtures('hears_sighup')

_WATCH = """
import sys, time
from tsla.runs import lifecycle
def run(*arguments, **options):
  with lifecycle.watch_signals(lambda: None) as requested:
    print('ready', flush=True)
    while not requested.signum:
      time.sleep(0.01)
    print('saving', flush=True)
    raise lifecycle.Interrupted(requested.signum)
"""
# main.py as it is, but for the training.
_MAIN = f"""
{_WATCH}
import runpy
from tsla.training import loop
loop.train_and_evaluate = run
flags = '--config=configs/digits_lsr.py', f'--workdir={{sys.argv[1]}}'
sys.argv = ['main.py', *flags]
runpy.run_path('main.py', run_name='__main__')
"""


def start(*command, **options):
  options = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE} | options
  return subprocess.Popen(
    [sys.executable, *map(str, command)],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    text=True,
    **options,
  )


def wait_for(stream, text):
  assert any(text == line.split('|')[-1].strip() for line in stream), text


@pytest.mark.parametrize('place', ['numpy', 'jax._src.config', 'tensorstore'])
def test_ctrl_c_during_the_imports_is_130_without_a_traceback(place):
  process = start('-X', 'importtime', 'main.py', '--help')
  wait_for(process.stderr, place)
  process.send_signal(signal.SIGINT)
  out, err = process.communicate(timeout=60)
  assert (process.returncode, out) == (130, '')
  assert 'Traceback' not in err


def test_ctrl_c_during_the_set_up_is_not_swallowed(tmp_path):
  config = tmp_path / 'mine.py'
  config.write_text("""
import time
print('ready', flush=True)
try:
  time.sleep(60)
except BaseException:
  print('swallowed', flush=True)
""")
  process = start('main.py', f'--config={config}')
  wait_for(process.stdout, 'ready')
  process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=60) == ('', '')
  assert process.returncode == 130


@pytest.mark.ci
@pytest.mark.parametrize(
  ('signum', 'code'), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_burst_of_one_signal_is_one(tmp_path, signum, code):
  """Until the process is gone: while it saves, and while Python ends."""
  process = start('-c', _MAIN, tmp_path / 'run')
  wait_for(process.stdout, 'ready')
  while process.poll() is None:
    process.send_signal(signum)
    time.sleep(0.002)
  assert process.returncode == code
  _, err = process.communicate()
  assert err.count('stopping after this call') == 1
  assert 'Traceback' not in err


def test_a_terminal_that_is_closed_is_129(tmp_path):
  """What is said afterwards goes nowhere, and is no error."""
  master, slave = pty.openpty()
  code = f"""
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
{_WATCH}
try:
  run()
except lifecycle.Interrupted as stop:
  print(stop, file=sys.stderr, flush=True)
  open(sys.argv[1], 'w').write('saved')
  sys.exit(stop.exit_code)
"""
  terminal = {'stdin': slave, 'stdout': slave, 'stderr': slave}
  process = start(
    *('-c', code, tmp_path / 'saved'), start_new_session=True, **terminal
  )
  os.close(slave)
  said = b''
  while b'ready' not in said:
    said += os.read(master, 100)
  os.close(master)
  assert process.wait(timeout=60) == 129
  assert (tmp_path / 'saved').read_text() == 'saved'


def test_a_process_that_nohup_started_does_not_hear_sighup():
  shell = 'trap "" HUP; exec "$0" -c "$1"'
  process = start(
    *('-c', 'import os, sys; os.execvp("sh", ["sh", "-c", *sys.argv[1:]])'),
    *(shell, sys.executable, f'{_WATCH}\nrun()'),
  )
  wait_for(process.stdout, 'ready')
  process.send_signal(signal.SIGHUP)
  time.sleep(0.3)
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate(timeout=60)
  assert 'SIGTERM: stopping' in err
  assert 'SIGHUP: ' not in err
  assert out == 'saving\n'


def test_time_in_which_a_process_is_suspended_does_not_count(tmp_path):
  code = """
import pathlib, sys, threading
from tsla.runs import lifecycle
with lifecycle.watch_progress(3 / 60, pathlib.Path(sys.argv[1]), int):
  print('ready', flush=True)
  threading.Event().wait()
"""
  process = start('-c', code, tmp_path / 'stacks')
  wait_for(process.stdout, 'ready')
  process.send_signal(signal.SIGSTOP)
  time.sleep(3.2)
  process.send_signal(signal.SIGCONT)
  began = time.monotonic()
  _, err = process.communicate(timeout=60)
  assert process.returncode == 4, err
  assert time.monotonic() - began > 0.6
  assert 'Thread 0x' in (tmp_path / 'stacks').read_text()


def test_what_threads_of_libraries_say_is_kept_from_the_terminal():
  """But not what ends the process."""
  code = """
import threading
from absl import logging
from tsla.runs.environment import hush
def fail():
  raise OSError('no space in a thread')
class Late:
  def __del__(self):
    fail()
hush()
thread = threading.Thread(target=fail)
thread.start()
thread.join()
Late()
logging.exception('no space in Orbax')
raise RuntimeError('a bug')
"""
  process = start('-c', code)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 1
  assert 'RuntimeError: a bug' in err
  assert 'no space' not in err
