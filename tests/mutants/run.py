"""Puts each listed bug into a copy of the tree; do its tests notice?

  python tests/mutants/run.py [--only=ROOM …] [--match=TEXT] [--jobs=N]
    [--no-slow]

The bugs stand in ROOM.toml beside this file, ROOM a folder of tsla/:

  [[mutant]]
  file = 'tsla/data/batches.py'
  old = '''epoch_order(seed, epoch'''  # stands exactly once in the file
  new = '''epoch_order(seed, 0'''
  why = 'every epoch has the same order'
  tests = ['tests/test_batches.py::test_…']  # the cheapest first
  # slow = true  (only a slow test notices it)
  # equivalent = 'why no test can'  (is not run)

Whoever changes a line moves its bug: an entry that fits no longer is an error,
as is a test that is not there or fails without the bug. Noticed is a test that
fails or crashes, or one that does not end, which is counted by itself.

Exit code: 0 all noticed, 1 some not, 2 an entry or a test is of no use.
"""

import argparse
import ast
import collections
import concurrent.futures
import dataclasses
import os
import pathlib
import sys
import tomllib
from collections.abc import Iterator

import copies

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Mutant:
  """One entry; `place` is its file of the list and its number there."""

  place: str
  file: str
  old: str
  new: str
  why: str
  tests: tuple[str, ...] = ()
  slow: bool = False
  equivalent: str = ''

  def mutated(self) -> str:
    text = (copies.ROOT / self.file).read_text()
    return text.replace(self.old, self.new)

  def complaints(self) -> Iterator[str]:
    """What is wrong with the entry, seen without running anything."""
    path = copies.ROOT / self.file
    if not path.is_file():
      yield f'no file {self.file}'
      return
    count = path.read_text().count(self.old)
    if count != 1:
      yield f'old stands {count} times in {self.file}: {self.old!r}'
    if self.old == self.new:
      yield f'new is old: {self.old!r}'
    elif count == 1 and path.suffix == '.py':
      try:
        ast.parse(self.mutated())
      except SyntaxError as error:
        yield f'new is no Python: {error}: {self.new!r}'
    if not self.tests and not self.equivalent:
      yield f'neither tests nor equivalent: {self.why}'
    for test in self.tests:
      if not exists(test):
        yield f'no test {test}'


def exists(test: str) -> bool:
  """Whether the file of a node id is there and defines its function."""
  name, *inside = test.partition('[')[0].split('::')
  path = copies.ROOT / name
  if not path.is_file():
    return False
  names = {
    node.name
    for node in ast.walk(ast.parse(path.read_text()) if inside else ast.Pass())
    if isinstance(node, ast.FunctionDef | ast.ClassDef)
  }
  return set(inside) <= names


def read(folder: pathlib.Path = HERE) -> tuple[list[Mutant], list[str]]:
  """All entries of `*.toml`, and what is wrong with any."""
  mutants, complaints = [], []
  for path in sorted(folder.glob('*.toml')):
    if path.stem == 'equivalent':  # of draw.py
      continue
    for number, entry in enumerate(tomllib.loads(path.read_text())['mutant']):
      place = f'{path.stem} {number + 1}'
      entry['tests'] = tuple(entry.get('tests', ()))
      try:
        mutants.append(Mutant(place, **entry))
      except TypeError as error:  # a field too few or too many
        complaints.append(f'{place}: {error}')
        continue
      complaints += [f'{place}: {c}' for c in mutants[-1].complaints()]
  return mutants, complaints


def passes(tests: tuple[str, ...]) -> copies.Outcome:
  """The tests without any change."""
  with copies.copy_of_tree() as tree:
    return copies.run_tests(tree, tests, timeout=1200)


def judge(mutant: Mutant, seconds: float) -> copies.Outcome:
  """The tests of a mutant, which take `seconds` without it."""
  with copies.copy_of_tree() as tree:
    (tree / mutant.file).write_text(mutant.mutated())
    return copies.run_tests(tree, mutant.tests, timeout=60 + 5 * seconds)


def arguments(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--only', action='append', metavar='ROOM')
  parser.add_argument('--match', default='', help='in file, old, new or why')
  parser.add_argument('--jobs', type=int, default=1)
  parser.add_argument('--no-slow', action='store_true')
  return parser.parse_args(argv)


def main(argv: list[str]) -> int:
  options = arguments(argv)
  mutants, complaints = read()
  if complaints:
    print('\n'.join(complaints), file=sys.stderr)
    return 2
  chosen = [
    m
    for m in mutants
    if (not options.only or m.place.split()[0] in options.only)
    and options.match in '\n'.join((m.file, m.old, m.new, m.why))
    and not (options.no_slow and m.slow)
  ]
  if not chosen:
    print('no such mutant', file=sys.stderr)
    return 2
  os.nice(10)
  alive = [m for m in chosen if not m.equivalent]
  sets = sorted({m.tests for m in alive})
  with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
    without = dict(zip(sets, pool.map(passes, sets), strict=True))
    broken = {t: o for t, o in without.items() if o.word != 'passed'}
    for tests, outcome in broken.items():
      print(f'without any mutant: {" ".join(tests)}: {outcome.word}')
      print(outcome.output[-2000:])
    if broken:
      return 2
    jobs = [pool.submit(judge, m, without[m.tests].seconds) for m in alive]
    for mutant, job in zip(alive, jobs, strict=True):
      outcome = job.result()
      said = outcome.word if outcome.noticed else 'NOT NOTICED'
      if not outcome.noticed and outcome.word != 'passed':
        said += f', {outcome.word}'
      print(f'{mutant.place:<14} {outcome.seconds:4.0f} s  {said}: ', end='')
      print(f'{mutant.file}: {mutant.why}', flush=True)
  outcomes = [job.result() for job in jobs]
  count = collections.Counter(outcome.word for outcome in outcomes)
  noticed = sum(outcome.noticed for outcome in outcomes)
  late = f' ({count["timed out"]} timed out)' if count['timed out'] else ''
  print(
    f'{len(chosen)} mutants: {noticed} noticed{late}, '
    f'{len(alive) - noticed} not noticed, '
    f'{len(chosen) - len(alive)} equivalent'
  )
  return int(noticed < len(alive))


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
