"""Reads what `torch.save` writes, without torch; nothing is ever executed.

Such a file is a zip archive: `data.pkl` describes the objects in the language
of Python's pickle, `data/0`, `data/1`, … hold the numbers. Unpickling calls
whatever the file names. Here `pickletools` merely splits the pickle into its
instructions, and a stack machine follows the few of them that describe tensors,
containers and scalars. A name is a text to compare, never a thing to import.
"""

import functools
import io
import math
import pickletools
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from tsla.files import check_archive

_STORAGES = {
  'torch.DoubleStorage': np.float64,
  'torch.FloatStorage': np.float32,
  'torch.HalfStorage': np.float16,
  'torch.BFloat16Storage': jnp.bfloat16,
  'torch.LongStorage': np.int64,
  'torch.IntStorage': np.int32,
  'torch.ShortStorage': np.int16,
  'torch.CharStorage': np.int8,
  'torch.ByteStorage': np.uint8,
  'torch.BoolStorage': np.bool_,
}
_DICT = 'collections.OrderedDict'
_TENSOR = 'torch._utils._rebuild_tensor_v2'
_PARAMETER = 'torch._utils._rebuild_parameter'
_MOST_PICKLED = 2**22  # bytes of data.pkl: some seconds
_MOST_AXES = 32
_KNOWN = frozenset({*_STORAGES, _DICT, _TENSOR, _PARAMETER})


class ForeignNameError(ValueError):
  """The file names a class or function that no tensor is made of."""


class _Name(NamedTuple):
  """A class or function that the pickle names, as text."""

  text: str


def read_tensors(data: bytes) -> Any:
  """The objects that `torch.save` put into a file, tensors as NumPy arrays.

  Arrays may be read-only and may share memory, as the tensors did. What they
  hold together is at most as large as the file. ForeignNameError is raised for
  the name of anything but the tensors' own classes and functions, ValueError
  for an archive that is damaged or not torch's.
  """
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      return _read_archive(archive, len(data))
  except ForeignNameError:
    raise
  except Exception as error:  # whatever a damaged file leads to
    raise ValueError(f'no archive that torch.save wrote: {error}') from error


def _read_archive(archive: zipfile.ZipFile, size: int) -> Any:
  check_archive(archive, size, (zipfile.ZIP_STORED,))  # none overlap
  names = archive.namelist()
  (root,) = (n[: -len('data.pkl')] for n in names if n.endswith('/data.pkl'))
  order = root + 'byteorder'
  if order in names and archive.read(order) != b'little':
    raise ValueError('its numbers are big-endian')

  @functools.cache
  def storage(kind: str, key: str, length: int) -> np.ndarray:
    values = np.frombuffer(archive.read(f'{root}data/{key}'), _STORAGES[kind])
    if len(values) != length:
      raise ValueError(f'storage {key} holds {len(values)} of {length} numbers')
    return values

  if archive.getinfo(root + 'data.pkl').file_size > _MOST_PICKLED:
    raise ValueError(f'data.pkl is larger than {_MOST_PICKLED:,} bytes')
  return _follow(archive.read(root + 'data.pkl'), storage)


def _follow(pickled: bytes, storage: Callable[..., np.ndarray]) -> Any:
  """The object that a pickle describes; `storage` finds its numbers.

  A tuple of tuples may be exponentially larger than its description: nothing
  here writes, compares or hashes what may be one.
  """
  stacks = [[]]  # A MARK opens a new stack, what refers to it closes it.
  memo = {}
  for opcode, arg, _ in pickletools.genops(pickled):
    stack = stacks[-1]
    match opcode.name:
      case 'PROTO' | 'FRAME':
        pass
      case 'MARK':
        stacks.append([])
      case 'BINPUT' | 'LONG_BINPUT':
        memo[arg] = stack[-1]
      case 'MEMOIZE':
        memo[len(memo)] = stack[-1]
      case 'BINGET' | 'LONG_BINGET':
        stack.append(memo[arg])
      case 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINFLOAT':
        stack.append(arg)
      case 'BINUNICODE' | 'SHORT_BINUNICODE':
        stack.append(arg)
      case 'NONE' | 'NEWTRUE' | 'NEWFALSE':
        stack.append({'NONE': None, 'NEWTRUE': True}.get(opcode.name, False))
      case 'EMPTY_DICT' | 'EMPTY_LIST' | 'EMPTY_TUPLE':
        stack.append({'D': dict, 'L': list, 'T': tuple}[opcode.name[6]]())
      case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
        count = int(opcode.name[-1])
        stack[-count:] = [tuple(stack[-count:])]
      case 'TUPLE':
        stacks.pop()
        stacks[-1].append(tuple(stack))
      case 'APPEND' | 'APPENDS' as name:
        items = stacks.pop() if name == 'APPENDS' else [stack.pop()]
        if not isinstance(target := stacks[-1][-1], list):
          raise ValueError('items for what is no list')
        target.extend(items)
      case 'SETITEM' | 'SETITEMS' as name:
        one = name == 'SETITEM'
        items = [stack.pop(-2), stack.pop()] if one else stacks.pop()
        _update(stacks[-1][-1], items)
      case 'BUILD':
        _update(stack[-2], [])  # An OrderedDict's attributes: not needed.
        stack.pop()
      case 'GLOBAL':
        stack.append(_known(arg.replace(' ', '.')))
      case 'STACK_GLOBAL':
        name, module = stack.pop(), stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
          raise ValueError('a name that is no text')
        stack.append(_known(f'{module}.{name}'))
      case 'BINPERSID':
        kind, name, key, _, length = stack.pop()
        if (kind, type(key), type(length)) != ('storage', str, int):
          raise ValueError('what is no storage of torch')
        stack.append(storage(name.text, key, length))
      case 'REDUCE':
        args, function = stack.pop(), stack.pop()
        stack.append(_rebuild(function, args))
      case 'STOP':
        return stack.pop()
      case name:
        raise ValueError(f'instruction {name} in data.pkl')
  raise ValueError('data.pkl has no end')


def _known(text: str) -> _Name:
  if text not in _KNOWN:
    raise ForeignNameError(text)
  return _Name(text)


def _update(target: Any, items: list) -> None:
  if not isinstance(target, dict):
    raise ValueError('items for what is no dict')
  for key, value in zip(items[::2], items[1::2], strict=True):
    if not isinstance(key, str | int):  # A deep tuple's hash can overflow.
      raise ValueError('a key that is neither a text nor a number')
    target[key] = value


def _rebuild(function: _Name, args: tuple) -> Any:
  """What the three known functions return for `args`."""
  name = function.text
  if name == _DICT and args == ():
    return {}
  if name == _TENSOR:
    return _tensor(*args[:4])
  if name == _PARAMETER and isinstance(args[0], np.ndarray):
    return args[0]
  raise ValueError(f'{name} with other arguments than torch.save gives')


def _tensor(
  storage: np.ndarray, offset: int, shape: tuple, stride: tuple
) -> np.ndarray:
  """A view of `storage`; `stride` counts numbers, not bytes."""
  fits = len(shape) == len(stride) <= _MOST_AXES
  if not fits or not isinstance(storage, np.ndarray):
    raise ValueError('a tensor without storage or stride')
  if any(type(n) is not int or n < 0 for n in (offset, *shape, *stride)):
    raise ValueError('a tensor with an impossible shape')
  if 0 in shape:
    return np.zeros(shape, storage.dtype)
  last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
  if last >= len(storage) or math.prod(shape) > len(storage):
    raise ValueError('a tensor larger than its storage')
  return np.lib.stride_tricks.as_strided(
    storage[offset:], shape, [n * storage.itemsize for n in stride]
  )
