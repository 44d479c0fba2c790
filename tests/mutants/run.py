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
fails or crashes, or one that does not end, which is counted by itself. Slow
tests run for bugs that are `slow` only.

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
from collections.abc import Iterator, Sequence

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


def judge(
  tests: tuple[str, ...], mutants: Sequence[Mutant]
) -> tuple[copies.Outcome, list[copies.Outcome]]:
  """The tests without any mutant; where they pass, with each of `mutants`."""
  with copies.copy_of_tree() as tree:
    before = copies.run_tests(tree, tests, timeout=1200)
  outcomes = []
  for mutant in mutants if before.word == 'passed' else ():
    with copies.copy_of_tree() as tree:
      (tree / mutant.file).write_text(mutant.mutated())
      timeout = 60 + 5 * before.seconds
      outcomes.append(copies.run_tests(tree, tests, timeout))
  return before, outcomes


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
  sets: dict[tuple[str, ...], list[Mutant]] = {}
  for mutant in chosen:
    if not mutant.equivalent:
      fast = () if mutant.slow else ('-m', 'not slow')
      sets.setdefault((*fast, *mutant.tests), []).append(mutant)
  words: collections.Counter[str] = collections.Counter()
  noticed = 0
  with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
    jobs = {pool.submit(judge, *each): each for each in sets.items()}
    for job in concurrent.futures.as_completed(jobs):
      tests, judged = jobs[job]
      before, outcomes = job.result()
      if before.word != 'passed':
        print(f'{before.word.upper()} WITHOUT ANY MUTANT: {" ".join(tests)}')
        print(before.output[-2000:], flush=True)
        words['broken'] += len(judged)
      for mutant, outcome in zip(judged, outcomes, strict=False):
        said = outcome.word if outcome.noticed else 'NOT NOTICED'
        if not outcome.noticed and outcome.word != 'passed':
          said += f', {outcome.word}'
        print(f'{mutant.place:<14} {outcome.seconds:4.0f} s  {said}: ', end='')
        print(f'{mutant.file}: {mutant.why}', flush=True)
        words[outcome.word] += 1
        noticed += outcome.noticed
  equivalent = sum(bool(m.equivalent) for m in chosen)
  missed = len(chosen) - equivalent - noticed - words['broken']
  late = f' ({words["timed out"]} timed out)' if words['timed out'] else ''
  print(
    f'{len(chosen)} mutants: {noticed} noticed{late}, {missed} not noticed, '
    f'{equivalent} equivalent'
    + (f', {words["broken"]} OF BROKEN TESTS' if words['broken'] else '')
  )
  return 2 if words['broken'] else int(missed > 0)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
