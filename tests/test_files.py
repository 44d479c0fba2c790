"""Files are written whole, locked, and of a format that is known."""

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import threading
import zipfile

import pytest
from support import ROOT

from tsla import files
from tsla.errors import InputError


@pytest.mark.parametrize('moment', ['fsync', 'replace'])
def test_a_file_is_the_old_one_until_it_is_whole(tmp_path, moment):
  path = tmp_path / 'a'
  files.write_whole(path, 'old')
  code = (
    'import os, pathlib, sys\n'
    'from tsla import files\n'
    f'os.{moment} = lambda *args: os._exit(7)\n'
    "files.write_whole(pathlib.Path(sys.argv[1]), b'new')"
  )
  killed = subprocess.run([sys.executable, '-c', code, str(path)], cwd=ROOT)
  assert killed.returncode == 7
  assert path.read_text() == 'old'
  files.write_whole(path, b'new')
  assert [file.name for file in tmp_path.iterdir()] == ['a']
  assert path.read_text() == 'new'


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
  def full(handle):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match='No space left'):
    files.write_whole(tmp_path / 'a', b'new')
  assert not list(tmp_path.iterdir())


def test_content_and_name_are_brought_to_the_disk(tmp_path, monkeypatch):
  synced = []
  monkeypatch.setattr(
    os, 'fsync', lambda handle: synced.append(os.fstat(handle).st_ino)
  )
  files.write_whole(tmp_path / 'a', 'ŷ')
  assert synced == [(tmp_path / 'a').stat().st_ino, tmp_path.stat().st_ino]
  assert files.sha256_of(tmp_path / 'a') == (
    hashlib.sha256('ŷ'.encode()).hexdigest()
  )


def test_a_lock_is_held_by_one(tmp_path):
  path = tmp_path / 'lock'
  with (
    files.locked(path),
    pytest.raises(BlockingIOError),
    files.locked(path, wait=False),
  ):
    pass
  with files.locked(path, wait=False):
    pass


def test_who_waits_for_a_lock_says_so(tmp_path, capsys):
  path, told = tmp_path / 'lock', f'{tmp_path}: waiting for another process\n'
  with files.locked(path):
    pass
  assert not capsys.readouterr().err
  with contextlib.ExitStack() as other:
    other.enter_context(files.locked(path))
    thread = threading.Thread(target=files.locked(path).__enter__)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
  thread.join(20)
  assert not thread.is_alive()
  assert capsys.readouterr().err == told


def test_a_claim_that_came_to_nothing_leaves_no_folder(tmp_path):
  with pytest.raises(KeyError), files.claimed(tmp_path / 'new'):
    raise KeyError
  assert not list(tmp_path.iterdir())
  (tmp_path / 'there').mkdir()
  for name in ('there', 'used', 'used'):
    with files.claimed(tmp_path / name):
      if name == 'used':
        (tmp_path / name / 'a').touch()
  assert sorted(os.listdir(tmp_path)) == ['there', 'used']
  assert sorted(os.listdir(tmp_path / 'used')) == ['.lock', 'a']
  # Another process has begun anew there: it is that one's.
  with files.claimed(tmp_path / 'lost'):
    shutil.rmtree(tmp_path / 'lost')
    (tmp_path / 'lost').mkdir()
    (tmp_path / 'lost' / '.lock').touch()
  assert os.listdir(tmp_path / 'lost') == ['.lock']
  with (
    pytest.raises(InputError, match='name too long'),
    files.claimed(tmp_path / ('x' * 300)),
  ):
    pass


def test_a_newer_format_is_refused_and_an_older_file_is_read(tmp_path):
  path = tmp_path / 'a.json'
  files.write_object(path, {'x': 1}, version=2)
  assert files.read_object(path, newest=2) == {'x': 1}
  with pytest.raises(files.NewerFormat) as error:
    files.read_object(path, newest=1)
  assert str(error.value).startswith(f'{path}: format 2')
  assert len(str(error.value).splitlines()) == 3
  files.write_object(path, {'x': 1})
  assert files.read_object(path, newest=1) == {'x': 1}
  for version in (0, '1', True, None):
    files.write_object(path, {'format': version})
    with pytest.raises(InputError, match='format = '):
      files.read_object(path, newest=1)


def test_only_a_regular_file_of_a_bounded_size_is_read(tmp_path):
  (tmp_path / 'a').write_bytes(b'abc')
  (tmp_path / 'link').symlink_to('a')
  assert files.read_bytes(tmp_path / 'link', most=3) == b'abc'
  with pytest.raises(OSError, match='larger than 2 bytes'):
    files.read_bytes(tmp_path / 'a', most=2)
  os.mkfifo(tmp_path / 'pipe')
  code = 'import sys; from tsla import files; files.open_regular(sys.argv[1])'
  for path, why in (
    (tmp_path / 'pipe', 'not a regular file'),
    (tmp_path, 'Is a directory'),
    ('/dev/zero', 'not a regular file'),
  ):
    result = subprocess.run(
      [sys.executable, '-c', code, str(path)],
      cwd=ROOT,
      capture_output=True,
      text=True,
      timeout=60,
    )
    assert why in result.stderr.splitlines()[-1]


def test_an_archive_has_a_budget():
  def check(most, way=zipfile.ZIP_DEFLATED, kinds=(zipfile.ZIP_DEFLATED,)):
    with zipfile.ZipFile(file := io.BytesIO(), 'w', way) as archive:
      archive.writestr('a', bytes(600))
      archive.writestr('b', bytes(400))
      files.check_archive(archive, most, kinds)
    return file

  check(1000)
  with pytest.raises(ValueError, match='takes 1,000 of at most 999 bytes'):
    check(999)
  with pytest.raises(ValueError, match='a is compressed in another way'):
    check(1000, zipfile.ZIP_LZMA)


def test_what_a_parser_raises_is_an_error_of_three_lines():
  for error in (RecursionError('deep'), MemoryError(), KeyError('x')):
    with (
      pytest.raises(InputError) as found,
      files.untrusted('data.path', allowed='a', cure='b'),
    ):
      raise error
    problem, *rest = str(found.value).splitlines()
    assert problem == f'data.path: {str(error) or "MemoryError"}'
    assert rest == ['  allowed: a', '  next: b']
  mine = InputError('as it is')
  with pytest.raises(InputError) as found, files.untrusted('data.path'):
    raise mine
  assert found.value is mine
