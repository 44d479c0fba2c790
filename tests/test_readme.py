"""The pages keep their word: links, names, commands, what is generated."""

import pkgutil
import re
import shlex

import pytest
from support import ROOT

import tsla
from docs import fields
from tsla import __main__ as door
from tsla.commands import sweep
from tsla.commands.parser import Parser
from tsla.config import cli

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *ROOT.glob('docs/*.md')]
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
# What a reader puts something in place of, and what stands for it here.
PLACES = {
  'DIR': 'images',
  'FILE1': 'one',
  'FILE2': 'two',
  'FILE': 'file.safetensors',
  'RUN': 'runs/one',
  'WORKDIR': 'runs/one',
  'IMAGE...': 'image.png',
  'HOST:PORT': 'host:1234',
  '$USER': 'me',
}


def commands(text):
  """Lines behind four spaces, where `\\` goes on, and what `this` quotes."""
  prose = re.sub(r'```.*?```', '', text, flags=re.S)
  blocks = re.findall(r'(?:^    .*\n)+', prose, re.M)
  lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
  quoted = re.findall(r'`((?:python|make) [^`]+)`', prose)
  for line in [*map(str.strip, lines), *quoted]:
    if not line.startswith(('python ', 'make ', 'bash ', 'srun ', 'gcloud ')):
      continue  # an installation, a formula, a list of files
    line = re.sub(r'[\[\]]', '', line)
    for place, stand_in in PLACES.items():
      line = re.sub(rf'(?<![\w/]){re.escape(place)}(?![\w:])', stand_in, line)
    words = shlex.split(line, comments=True)
    if words[0] == 'gcloud':  # its last word is a command
      words = shlex.split(words[-1])
    if 'main.py' in words:  # perhaps started by srun
      words = words[words.index('main.py') - 1 :]
    mentioned = words == ['python', 'main.py']
    if not mentioned and not {'--help', 'COMMAND', 'venv'} & {*words}:
      yield tuple(words)


COMMANDS = sorted({w for text in TEXTS.values() for w in commands(text)})


def slugs(text):
  prose = re.sub(r'```.*?```', '', text, flags=re.S)
  heads = re.findall(r'^##* (.*)', prose, re.M)
  return {re.sub(r'[^\w -]', '', h).lower().replace(' ', '-') for h in heads}


@pytest.mark.parametrize('page', TEXTS)
def test_each_link_leads_somewhere(page):
  links = re.findall(r'\]\(([^)\s]+)\)', TEXTS[page])
  for link in links:
    if '://' in link:
      assert link == 'https://arxiv.org/abs/2006.11653'
      continue
    path, _, anchor = link.partition('#')
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists(), link
    assert not anchor or anchor in slugs(target.read_text()), link


@pytest.mark.parametrize('page', TEXTS)
def test_each_file_that_a_page_names_is_there(page):
  roots = 'tsla|configs|docs|tests|benchmarks|main|CITATION|requirements'
  named = re.findall(rf'`((?:{roots})[\w/.-]*/?)`', TEXTS[page])
  for name in {*named}:
    if '/' in name or (ROOT / name).suffix in ('.py', '.md', '.txt', '.cff'):
      assert (ROOT / name).exists(), name
    else:
      pkgutil.resolve_name(name)


def test_every_page_is_reached_from_the_readme():
  links = re.findall(r'\]\((docs/[\w-]+\.md)', TEXTS['README.md'])
  assert {*links} == {page for page in TEXTS if 'docs/' in page}
  assert len(TEXTS['README.md'].splitlines()) <= 180


def test_the_commands_are_found():
  firsts = {' '.join(words[:3]) for words in COMMANDS}
  assert firsts > {'python -m tsla', 'make demo', 'make test', 'make theory'}
  assert sum('--distributed' in words for words in COMMANDS) == 2


class Parsed(Exception):
  """A command line has been read."""


def ended(parse):
  """The function, and then the command goes no further."""

  def parse_and_end(*args):
    parse(*args)
    raise Parsed

  return parse_and_end


@pytest.mark.filterwarnings('ignore:the load_module')
@pytest.mark.parametrize('words', COMMANDS, ids=shlex.join)
def test_each_command_line_is_one(words, tmp_path, monkeypatch, capsys):
  match words:
    case ['make', *rest]:
      rules = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M)
      assert {word for word in rest if '=' not in word} <= {*rules}
    case ['python', 'main.py', *_]:
      monkeypatch.chdir(ROOT)
      cli.parse([*words[1:]])
    case ['python', '-m', 'tsla', 'sweep', *flags]:
      see_plan(flags, tmp_path, monkeypatch)
    case ['python', '-m', 'tsla', *_]:
      monkeypatch.chdir(ROOT)
      monkeypatch.setattr(Parser, 'parse_args', ended(Parser.parse_args))
      monkeypatch.setattr(cli, 'parse', ended(cli.parse))
      with pytest.raises(Parsed):
        assert door.main(words[3:]) == 0, capsys.readouterr().err
    case ['python', '-m', module, *_]:
      assert (ROOT / f'{module.replace(".", "/")}.py').is_file() or (
        module == 'tsla'
      )
    case [_, script, *flags]:
      assert (ROOT / script).is_file()
      if script.endswith('slurm.sh'):
        see_plan(flags, tmp_path, monkeypatch)


def see_plan(flags, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  flags = [f for f in flags if not f.startswith('--workdir=')]
  flags += [f'--workdir={tmp_path}', '--dry_run']
  assert sweep.main(flags) == 0


def test_the_page_of_fields_is_current():
  assert fields.PAGE.read_text() == fields.page(), 'python -m docs.fields'


def test_one_version_everywhere():
  cited = re.findall(
    r'^version: (.*)', (ROOT / 'CITATION.cff').read_text(), re.M
  )
  newest = re.findall(r'^## ([\d.]+)', TEXTS['docs/changes.md'], re.M)[0]
  assert cited == [newest] == [tsla.__version__]


def test_ci_calls_targets_that_exist():
  text = (ROOT / '.github/workflows/ci.yml').read_text()
  makefile = (ROOT / 'Makefile').read_text()
  targets = re.findall(r'run: make ([\w-]+)', text)
  assert {*targets} == {'lint', 'test', 'test-all'}
  assert all(re.search(rf'^{target}:', makefile, re.M) for target in targets)
  assert '://' not in text


def test_each_fault_names_a_test_that_exists():
  text = TEXTS['docs/faults.md']
  rows = [line for line in text.splitlines() if line.startswith('| ')]
  existing = {
    name
    for path in ROOT.glob('tests/test_*.py')
    for name in re.findall(r'^def (test_\w+)', path.read_text(), re.M)
  }
  assert len(rows) > 30
  for row in rows[1:]:  # after the heading
    named = re.findall(r'`(test_\w+)`', row)
    assert named, row
    assert set(named) <= existing, row
