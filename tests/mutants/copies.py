"""A copy of the tree, tests run in it: what run.py and draw.py share."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTEST = ('-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-p', 'no:xdist')

_CRASHES = {
  *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL),
  signal.SIGSEGV,
}


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of the tests.

  Attributes:
    word: 'passed', 'failed', 'crashed', 'timed out', or 'pytest exit N' and
      'killed by signal N' where no test was judged.
    seconds: that they took.
    output: of pytest.
  """

  word: str
  seconds: float
  output: str

  @property
  def noticed(self) -> bool:
    return self.word in ('failed', 'crashed', 'timed out')


@contextlib.contextmanager
def copy_of_tree() -> Iterator[pathlib.Path]:
  """A copy of what git tracks or would add, gone afterwards.

  Beside it, in `tmp`, is what its tests leave.
  """
  listed = subprocess.run(
    ('git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'),
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  with tempfile.TemporaryDirectory(
    prefix='mutant-', ignore_cleanup_errors=True
  ) as folder:
    tree = pathlib.Path(folder, 'tree')
    for name in listed.stdout.split('\0'):
      source = ROOT / name
      if source.is_file() and not source.is_symlink():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, tree / name)
    (tree.parent / 'tmp').mkdir()
    yield tree


def run_tests(
  tree: pathlib.Path,
  tests: Sequence[str],
  timeout: float,
  python: Sequence[str] = (),
) -> Outcome:
  """Runs `tests` (files or node ids) in the copy until one fails.

  Args:
    tree: of `copy_of_tree`.
    tests: in this order.
    timeout: in seconds; then it and all that it started is killed.
    python: what stands between `python` and `-m pytest`.
  """
  tmp = tree.parent / 'tmp'
  # Two changes within a second would share a compiled file.
  env = os.environ | {'PYTHONDONTWRITEBYTECODE': '1', 'TMPDIR': str(tmp)}
  begin = time.monotonic()
  with open(tree.parent / 'output', 'w+') as output:
    process = subprocess.Popen(
      (sys.executable, *python, *PYTEST, '-x', *tests),
      cwd=tree,
      env=env,
      stdin=subprocess.DEVNULL,
      stdout=output,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    try:
      code = process.wait(timeout)
    except subprocess.TimeoutExpired:
      code = None
    finally:
      _kill(process, tmp)
    seconds = time.monotonic() - begin
    output.seek(0)
    text = output.read()
  return Outcome(_word(code, text), seconds, text)


def _word(code: int | None, output: str) -> str:
  if code is None:
    return 'timed out'
  if code < 0:  # what others send, as where memory ends, is no crash
    return 'crashed' if -code in _CRASHES else f'killed by signal {-code}'
  # A change that breaks an import ends pytest with 2, with node ids with 4.
  if code == 1 or (code in (2, 4) and 'ERROR collecting' in output):
    return 'failed'
  return f'pytest exit {code}' if code else 'passed'


def _kill(process: subprocess.Popen, tmp: pathlib.Path) -> None:
  """Ends the group, and what left it: all that still know `tmp` by name."""
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  for environ in pathlib.Path('/proc').glob('[0-9]*/environ'):
    with contextlib.suppress(OSError):
      if f'TMPDIR={tmp}\0'.encode() in environ.read_bytes():
        os.kill(int(environ.parent.name), signal.SIGKILL)
