"""Draws bugs that nobody chose, and runs the fast tests that meet their line.

  python tests/mutants/draw.py --room=tsla/training [--room=…] [--count=60]
    [--seed=0] [--jobs=1] [--map=FILE] [--numbers=3,17]

From all lines of the rooms that can be changed `count` are drawn, and for each
one of its changes: a comparison, an `and` or `or`, a sign, a constant, a
condition negated, an argument dropped, a call left out, a returned value.
Docstrings, annotations, messages and errors are left alone. What is drawn is a
function of the code, the rooms and the seed; `--numbers` runs some of it again.

Each goes into a copy of the tree of its own; there the files of tests run that
execute the line: the one named after the file first, then the quickest first,
until a test fails. Which files these are is measured once with `coverage`,
subprocesses included, a quarter of an hour, and kept in FILE for as long as
neither the file of tests nor tsla/ changes.

Survivors are shown with their change. Where no test can notice one, it goes to
equivalent.toml with its reason: [[equivalent]] file, old, new, why; `old` and
`new` are the lines shown with - and +, without their indentation.

Exit code: 0 none survived, 1 some did.
"""

import argparse
import ast
import concurrent.futures
import difflib
import functools
import hashlib
import json
import os
import pathlib
import random
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

import copies

EQUIVALENT = pathlib.Path(__file__).with_name('equivalent.toml')
OTHER = {
  **{'<': '<=', '<=': '<', '>': '>=', '>=': '>', '==': '!=', '!=': '=='},
  **{'is': 'is not', 'is not': 'is', 'in': 'not in', 'not in': 'in'},
  **{'and': 'or', 'or': 'and', '+': '-', '-': '+', '*': '/', '/': '*'},
  **{'//': '*', '%': '//', '**': '*', '+=': '-=', '-=': '+='},
}
OPERATOR = re.compile(
  r'[<>=!]=|[<>]|\bis not\b|\bis\b|\bnot in\b|\bin\b|\band\b|\bor\b|[-+]=?'
  r'|\*\*?|//?|%'
)
SPOKEN = {'print', 'warn', 'info', 'warning', 'debug', 'exception', 'add_note'}
COVERAGE = """[run]
source = {tree}/tsla
data_file = {data}
parallel = true
patch = subprocess, _exit
"""


class Change(NamedTuple):
  """One change of a file: `new` in place of its bytes `start:end`."""

  file: str
  line: int
  lines: tuple[int, int]  # of its statement, for a compound one of its head
  start: int
  end: int
  new: str

  def apply(self, text: str) -> str:
    data = text.encode()
    return (data[: self.start] + self.new.encode() + data[self.end :]).decode()

  def difference(self) -> tuple[str, str]:
    """The lines that go and those that come, as in equivalent.toml."""
    text = (copies.ROOT / self.file).read_text()
    lines = text.splitlines(), self.apply(text).splitlines()
    gone, come = [], []
    for line in difflib.ndiff(*lines):
      {'-': gone, '+': come}.get(line[0], []).append(line[2:].strip())
    return '\n'.join(gone), '\n'.join(come)


class Finder:
  """All changes of a file."""

  def __init__(self, file: str):
    self.file = file
    self.source = (copies.ROOT / file).read_bytes()
    self.begins = [0]
    for line in self.source.splitlines(keepends=True):
      self.begins.append(self.begins[-1] + len(line))

  def changes(self) -> list[Change]:
    return list(self.visit(ast.parse(self.source), (1, 1)))

  def start(self, node: ast.AST) -> int:
    return self.begins[node.lineno - 1] + node.col_offset

  def end(self, node: ast.AST) -> int:
    return self.begins[node.end_lineno - 1] + node.end_col_offset

  def visit(self, node: ast.AST, lines: tuple[int, int]) -> Iterator[Change]:
    if silent(node):
      return
    if isinstance(node, ast.stmt):
      last = node.end_lineno
      if isinstance(getattr(node, 'body', None), list):
        last = max(node.lineno, node.body[0].lineno - 1)
      lines = node.lineno, last
    for at, start, end, new in self.of_node(node):
      yield Change(self.file, at.lineno, lines, start, end, new)
    for name, child in ast.iter_fields(node):
      if name in ('annotation', 'returns'):
        continue
      for each in child if isinstance(child, list) else [child]:
        if isinstance(each, ast.AST):
          yield from self.visit(each, lines)

  def of_node(self, node: ast.AST) -> Iterator[tuple[ast.AST, int, int, str]]:
    """The node whose line it is, first and last byte, what comes there."""
    match node:
      case ast.Compare(left=left, comparators=[right, *_]):
        yield self.operator(left, right)
      case ast.BoolOp(values=[left, right, *_]):
        yield self.operator(left, right)
      case ast.BinOp(left=left, right=right):
        if (
          not is_text(left)
          and not is_text(right)
          and not isinstance(node.op, ast.BitOr | ast.BitAnd | ast.MatMult)
        ):
          yield self.operator(left, right)
      case ast.AugAssign(target=left, value=right, op=ast.Add() | ast.Sub()):
        yield self.operator(left, right)
      case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
        yield node, self.start(node), self.start(operand), ''
      case ast.Constant(value=value):
        if (new := constant(value)) is not None:
          yield node, self.start(node), self.end(node), new
      case ast.Call():
        dropped = [k for k in node.keywords if k.arg]
        if len(node.args) > 1 and not isinstance(node.args[-1], ast.Starred):
          dropped.append(node.args[-1])
        for each in dropped:
          comma = re.match(rb'\s*,?[ ]?', self.source[self.end(each) :])
          yield each, self.start(each), self.end(each) + comma.end(), ''
      case ast.Expr(value=ast.Call()):
        yield node, self.start(node), self.end(node), 'pass'
      case ast.Return(value=ast.expr() as value):
        if not isinstance(value, ast.Constant):
          yield value, self.start(value), self.end(value), 'None'
    test = getattr(node, 'test', None)
    if isinstance(node, ast.If | ast.While | ast.IfExp):
      here = self.source[self.start(test) : self.end(test)].decode()
      yield test, self.start(test), self.end(test), f'not ({here})'

  def operator(
    self, left: ast.AST, right: ast.AST
  ) -> tuple[ast.AST, int, int, str]:
    start, end = self.end(left), self.start(right)
    gap = self.source[start:end].decode()
    new = OPERATOR.sub(lambda found: OTHER[found[0]], gap, count=1)
    return left, start, end, new


def silent(node: ast.AST) -> bool:
  """Whether a node and all below it is left alone."""
  match node:
    case ast.JoinedStr() | ast.Raise():
      return True
    case ast.Expr(value=ast.Constant()):
      return True
    case ast.If(test=ast.Name(id='TYPE_CHECKING')):
      return True
    case ast.Expr(value=ast.Call() as call):
      return silent(call)
    case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
      return name in SPOKEN or name.endswith('Error')
  return False


def is_text(node: ast.AST) -> bool:
  return isinstance(node, ast.JoinedStr) or (
    isinstance(node, ast.Constant) and isinstance(node.value, str)
  )


def constant(value: object) -> str | None:
  match value:
    case bool():
      return str(not value)
    case int():
      return str(value + 1)
    case float():
      return str(2 * value or 1.0)
    case str() if re.fullmatch(r'[A-Za-z_][\w./-]*', value):
      return repr(value + 'x')
  return None


def draw(rooms: list[str], count: int, seed: int) -> list[Change]:
  by_line: dict[tuple[str, int], list[Change]] = {}
  for room in rooms:
    for path in sorted((copies.ROOT / room).rglob('*.py')):
      for change in Finder(str(path.relative_to(copies.ROOT))).changes():
        by_line.setdefault((change.file, change.line), []).append(change)
  random_ = random.Random(seed)
  places = random_.sample(sorted(by_line), min(count, len(by_line)))
  return [
    next(filter(is_change, random_.sample(options, len(options))))
    for options in (by_line[place] for place in places)
  ]


def is_change(change: Change) -> bool:
  """Whether it is Python, and not the same."""
  text = (copies.ROOT / change.file).read_text()
  try:
    return ast.dump(ast.parse(change.apply(text))) != ast.dump(ast.parse(text))
  except SyntaxError:
    return False


@functools.cache
def digest_of_tsla() -> bytes:
  paths = sorted(copies.ROOT.glob('tsla/**/*.py'))
  return hashlib.sha256(b'\0'.join(p.read_bytes() for p in paths)).digest()


def measure(test: str) -> dict:
  """Seconds that a file of tests takes, and the lines of tsla/ it executes."""
  import coverage  # of the requirements for developers

  with copies.copy_of_tree() as tree:
    data = tree.parent / 'tmp' / 'coverage'
    rc = tree.parent / 'coveragerc'
    rc.write_text(COVERAGE.format(tree=tree, data=data))
    outcome = copies.run_tests(
      tree,
      ('-m', 'not slow', '--maxfail=0', test),
      timeout=1800,
      python=('-m', 'coverage', 'run', f'--rcfile={rc}'),
    )
    both = coverage.Coverage(config_file=str(rc))
    both.combine()
    found = both.get_data()
    executed = {
      str(pathlib.Path(file).relative_to(tree)): sorted(found.lines(file))
      for file in found.measured_files()
    }
  print(f'measured {test}: {outcome.seconds:.0f} s, {outcome.word}', flush=True)
  return {
    'digest': digest(test),
    'seconds': outcome.seconds,
    'word': outcome.word,
    'lines': executed,
  }


def digest(test: str) -> str:
  path = copies.ROOT / test
  data = path.read_bytes() if path.is_file() else b''
  return hashlib.sha256(digest_of_tsla() + data).hexdigest()


def tests_by_line(file: pathlib.Path, jobs: int) -> dict[str, dict]:
  """What `measure` says of each file of tests, from `file` where it can."""
  known = json.loads(file.read_text()) if file.exists() else {}
  names = [f'tests/{p.name}' for p in copies.ROOT.glob('tests/test_*.py')]
  names = [*sorted(names), 'tsla']  # the doctests, together
  known = {n: known[n] for n in names if n in known}
  due = [n for n in names if known.get(n, {}).get('digest') != digest(n)]
  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    for name, entry in zip(due, pool.map(measure, due), strict=True):
      known[name] = entry
      file.write_text(json.dumps(known))
  return known


def chosen_tests(change: Change, known: dict[str, dict]) -> list[str]:
  first, last = change.lines
  met = [
    name
    for name, entry in known.items()
    if entry['word'] == 'passed'  # not all slow, not broken
    and any(first <= n <= last for n in entry['lines'].get(change.file, ()))
  ]
  own = f'tests/test_{pathlib.Path(change.file).stem}.py'
  return sorted(met, key=lambda n: (n != own, known[n]['seconds']))


def judge(change: Change, known: dict[str, dict]) -> copies.Outcome:
  tests = chosen_tests(change, known)
  if not tests:
    return copies.Outcome('no test executes it', 0.0, '')
  seconds = sum(known[name]['seconds'] for name in tests)
  with copies.copy_of_tree() as tree:
    path = tree / change.file
    path.write_text(change.apply(path.read_text()))
    return copies.run_tests(
      tree, ('-m', 'not slow', *tests), timeout=120 + 3 * seconds
    )


def arguments(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--room', action='append', required=True)
  parser.add_argument('--count', type=int, default=60)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--jobs', type=int, default=1)
  parser.add_argument('--numbers', default='')
  parser.add_argument('--list', action='store_true', help='draw, run nothing')
  parser.add_argument(
    '--map',
    type=pathlib.Path,
    default=pathlib.Path(tempfile.gettempdir(), 'mutants-lines.json'),
  )
  return parser.parse_args(argv)


def main(argv: list[str]) -> int:
  options = arguments(argv)
  drawn = dict(enumerate(draw(options.room, options.count, options.seed), 1))
  if options.numbers:
    drawn = {n: drawn[n] for n in map(int, options.numbers.split(','))}
  listed = tomllib.loads(EQUIVALENT.read_text()).get('equivalent', [])
  argued = {(e['file'], e['old'].strip(), e['new'].strip()) for e in listed}
  if options.list:
    for number, change in drawn.items():
      print(f'{number:>3} {change.file}:{change.line}')
      print(show(change))
    return 0
  os.nice(10)
  equivalent = [
    n for n, c in drawn.items() if (c.file, *c.difference()) in argued
  ]
  known = tests_by_line(options.map, options.jobs)
  survivors = []
  with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
    run = {n: c for n, c in drawn.items() if n not in equivalent}
    jobs = {n: pool.submit(judge, c, known) for n, c in run.items()}
    for number, job in jobs.items():
      change, outcome = drawn[number], job.result()
      by = re.search(r'^(?:FAILED|ERROR) (\S+)', outcome.output, re.M)
      print(
        f'{number:>3} {change.file}:{change.line} {outcome.seconds:.0f} s '
        f'{outcome.word} {by[1] if by else ""}',
        flush=True,
      )
      if not outcome.noticed:
        survivors.append(number)
        print(show(change), flush=True)
  late = sum(job.result().word == 'timed out' for job in jobs.values())
  print(
    f'{len(drawn)} drawn: {len(run) - len(survivors)} noticed'
    + (f' ({late} timed out)' if late else '')
    + f', {len(equivalent)} equivalent, {len(survivors)} survived'
    + (f': {",".join(map(str, survivors))}' if survivors else '')
  )
  return int(bool(survivors))


def show(change: Change) -> str:
  gone, come = change.difference()
  lines = [f'      - {line}' for line in gone.split('\n')]
  return '\n'.join(lines + [f'      + {line}' for line in come.split('\n')])


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
