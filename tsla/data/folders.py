"""Images of one's own on disk: which files, of which class, in which split.

Either folders, DIR/CLASS or DIR/{train,test}/CLASS, with images at any depth
below a class; or a CSV with the columns path, label and perhaps split, whose
paths are relative to its own folder. A split's folder may also hold its images
itself, with their classes in a file, as ImageNet's validation set does.
"""

import csv
import io
import json
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from tsla.data.label_noise import set_apart
from tsla.data.sources import Contents, Examples, Source, digest
from tsla.errors import InputError
from tsla.files import read_bytes, untrusted, user_cache

SUFFIXES = ['.jpg', '.jpeg', '.png', '.webp', '.gif', '.bmp', '.tif', '.tiff']
_TESTS = ('test', 'val', 'valid', 'validation')  # the first one that is there
_TEST_PART = 0.2  # of each class, where there is none
# A label, a file of it, its split if it has one, and why it is left out.
_Row = tuple[str, pathlib.Path, str, str]


def find_folder(path: str) -> Source:
  """A folder or a CSV, whose decoded images go into the user's own cache."""

  def state() -> str:
    found = list_images(path)
    read = [each for split in found.splits.values() for each in split.read()]
    parts = found.class_names, found.left_out, [row[::2] for row in read]
    content = json.dumps([*parts, found.splits['train'].size]).encode()
    # The kernel's own time, which no program can put back.
    files = [file for _, file, _ in read]
    return digest(content, path, files, lambda f: f.st_ctime_ns)

  location = os.fspath(pathlib.Path(path).resolve())
  home = user_cache('decoded')
  return Source(location, (home,), state, lambda: list_images(path))


def list_images(path: str) -> Contents:
  """The images of a folder or a CSV; InputError if none is there to train on.

  Without a test set a fifth of each class is it, the same for the same files.
  """
  root, left_out, rows, notes = pathlib.Path(path), [], [], []
  for label, file, split, why in (_below, _in_table)[root.is_file()](root):
    if why or file.suffix.lower() not in SUFFIXES:
      left_out.append((str(file), why or 'not named as an image'))
    else:
      rows.append((label, file, split))
  there = {split for *_, split in rows}
  test = next((name for name in _TESTS if name in there), '')
  others = [row for row in rows if row[2] not in ('train', test)]
  left_out += [(str(file), f'of split {split}') for _, file, split in others]
  rows = sorted(row for row in rows if row[2] in ('train', test))
  class_names, labels = np.unique([row[0] for row in rows], return_inverse=True)
  in_test = np.array([split != 'train' for *_, split in rows], bool)
  if not test:
    in_test = set_apart(labels, _TEST_PART, test=True)
    notes.append(f'no test set: {in_test.sum()} of {len(rows)} images are it')
  elif test != 'test':
    notes.append(f'{test} is the test set')
  if in_test.all():
    raise InputError(
      f'data.path = {path!r}: no training images',
      allowed='images in PATH/CLASS or PATH/{train,test}/CLASS, or a CSV of '
      f'path,label[,split]; {", ".join(SUFFIXES)}',
    )
  splits = {}
  for split, part in (('train', ~in_test), ('test', in_test)):
    where, picked = f'{path}: {split}', np.flatnonzero(part).tolist()
    named = [(str(rows[i][1]), rows[i][1], int(labels[i])) for i in picked]
    splits[split] = Examples(
      *(where, len(named), 3, ()),
      lambda begin=0, named=named: iter(named[begin:]),
    )
  return Contents(class_names.tolist(), splits, left_out, notes)


def _below(root: pathlib.Path) -> Iterator[_Row]:
  """All files below the class folders, and beside them."""
  folders = [folder for folder in root.glob('[!.]*') if folder.is_dir()]
  if len(folders) == 1 and folders[0].name != 'train':
    yield from _below(folders[0])  # as archives often unpack
    return
  is_split = any(folder.name == 'train' for folder in folders)

  def refuse(error: OSError) -> None:
    raise error

  for name, names, files in os.walk(root, onerror=refuse, followlinks=True):
    place = pathlib.Path(name)
    names[:] = [
      name
      for name in sorted(names)
      if name[0] != '.'  # nor a link to a folder around it
      and not place.resolve().is_relative_to((place / name).resolve())
    ]
    parts = ('', '', *place.relative_to(root).parts, '', '')[1 + is_split :]
    split, label = parts[:2]
    if not names and not files:
      yield label, place, split, 'empty folder'
    listed = {} if label else _labels(place, files)
    for name in files:
      known = label or listed.get(name, '')
      why = '' if known else 'in no class folder'
      yield known, place / name, split, 'hidden' if name[0] == '.' else why


def _labels(folder: pathlib.Path, files: list[str]) -> dict[str, str]:
  """The classes that FOLDER/labels.txt or .csv gives the images beside it.

  A line has the file's name, with or without suffix, and its class, of one
  word; or it is the class, for the names in order.
  """
  images = sorted(f for f in files if f.lower().endswith(tuple(SUFFIXES)))
  tables = [f for f in files if images and f in ('labels.txt', 'labels.csv')]
  if not tables:
    return {}
  where = f'{folder / tables[0]}:'
  if len(tables) > 1:
    raise InputError(f'{where} {tables[1]} is there too', allowed='one of them')
  with untrusted(where[:-1], allowed='a text in UTF-8'):
    lines = read_bytes(folder / tables[0]).decode('utf-8-sig').splitlines()
  lines = [line.strip() for line in lines if line.strip()]
  names = {image.rpartition('.')[0]: image for image in images}
  names |= {image: image for image in images}
  named: dict[str, str] = {}
  for line in lines:
    name, *label = re.split(r'[,\s]+', line)
    if label and name in names:
      known = named.setdefault(names[name], label[0])
      if known != label[0]:
        problem = f'{where} {name} is of class {known}, and of {label[0]}'
        raise InputError(problem, allowed='one class an image')
  if not named and len(images) != len(lines):
    raise InputError(
      f'{where} {len(lines)} lines, none of which begins with an image there',
      allowed=f'lines FILE CLASS; or {len(images)} classes, one an image',
    )
  return named or dict(zip(images, lines, strict=True))


def _in_table(table: pathlib.Path) -> Iterator[_Row]:
  """All files that a CSV names."""
  text = read_bytes(table).decode('utf-8-sig')
  rows = csv.DictReader(io.StringIO(text), restval='', skipinitialspace=True)
  if not {'path', 'label'} <= {*(columns := rows.fieldnames or ())}:
    problem = f'data.path = {str(table)!r}: its columns are {columns}'
    raise InputError(problem, allowed='path, label and perhaps split')
  seen = set()
  for row in rows:
    file, label = table.parent / row['path'], row['label']
    why = 'without label' * (not label) or 'named twice' * (file in seen)
    why = why if file.is_file() else 'not there'
    seen.add(file)
    yield label, file, row.get('split', 'train'), why
