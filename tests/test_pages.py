"""The blocks of a page, written as Markdown, as HTML, and as files."""

import csv
import html.parser

import matplotlib
import pytest

from tsla.pages import figures
from tsla.pages.blocks import (
  Cell,
  CodeBlock,
  FigureBlock,
  HeadingBlock,
  Key,
  NoticeBlock,
  ParagraphBlock,
  Picture,
  TableBlock,
  read_texts,
)
from tsla.pages.parts import write_parts
from tsla.pages.render import render_html, render_markdown

EVIL = '<img src=x onerror=alert(1)>"\'|`x`_*[a](b)&{{ 7 * 7 }}{% raw %}\x00'
SHOWN = EVIL.replace('\x00', '\N{REPLACEMENT CHARACTER}')


def everywhere(text):
  """A page with a text in each place that takes one."""
  return [
    HeadingBlock(text, 1),
    ParagraphBlock(text),
    NoticeBlock(text, [text, text]),
    CodeBlock(text),
    TableBlock(
      text,
      [text, Cell(text, text)],
      [[text, Cell(text, text, faint=True)], [text, text]],
      'lr',
    ),
    FigureBlock(text, Picture(svg='<svg></svg>'), [Key(text, '#000000')]),
    FigureBlock(text, Picture(png=b'png', width=3, pixelated=True)),
  ]


class Seen(html.parser.HTMLParser):
  def __init__(self, page):
    super().__init__()
    self.tags, self.attributes, self.texts = [], [], []
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs

  def handle_data(self, data):
    self.texts.append(data)


def test_a_text_is_a_text_wherever_it_stands_in_html():
  plain, evil = (Seen(render_html(everywhere(t))) for t in ('plain', EVIL))
  assert evil.tags == plain.tags
  assert [name for name, _ in evil.attributes] == [
    name for name, _ in plain.attributes
  ]
  for one, other in ((plain.texts, 'plain'), (evil.texts, SHOWN)):
    assert sum(text.strip() == other for text in one) == 19
  assert [value for name, value in evil.attributes if name == 'alt'] == [SHOWN]


def test_a_text_is_a_text_wherever_it_stands_in_markdown():
  plain, evil = (
    render_markdown(everywhere(text), 'a.html') for text in ('plain', EVIL)
  )
  escaped = (
    r'&lt;img src=x onerror=alert(1)&gt;"' + r"'\|\`x\`\_\*\[a\](b)&amp;"
    r'\{\{ 7 \* 7 \}\}\{% raw %\}' + '\N{REPLACEMENT CHARACTER}'
  )
  expected = plain.replace('```\nplain\n```', f'```\n{SHOWN}\n```')
  assert evil == expected.replace('plain', escaped)
  assert plain == (
    '# plain\n\nplain\n\n> **plain**\n>\n> - plain\n> - plain\n\n'
    '```\nplain\n```\n\n**Table 1.** plain\n\n'
    '| plain | plain (plain) |\n| :--- | ---: |\n'
    '| plain | plain (plain) |\n| plain | plain |\n\n'
    '**Figure 1** (in [a.html](a.html)). plain\n\n'
    '**Figure 2** (in [a.html](a.html)). plain\n'
  )


def test_a_page_s_tables_and_figures_are_files_too(tmp_path):
  (tmp_path / 'table-9.csv').write_text('of an earlier page')
  names = ('', ' ±', ' from', ' to', ' note')
  table = TableBlock(
    '50 % of a_b',
    ['Row', Cell('Top-1 %', 'primary'), 'Why'],
    [
      ['[a] & "b", c', Cell('1,098.43 ± 0.58', best=True), 'x'],
      ['θ', Cell('−0.28 [−5.79, +5.24]', 'inside'), '–'],
    ],
    'lrl',
  )
  drawn = FigureBlock('', draw(5_000))
  sheet = FigureBlock('', Picture(png=b'png'))
  write_parts(tmp_path, [drawn, ParagraphBlock('x'), table, sheet, table])
  assert sorted(path.name for path in tmp_path.glob('*')) == [
    *('figure-1.pdf', 'figure-1.svg', 'figure-2.png'),
    *('table-1.csv', 'table-1.tex', 'table-2.csv', 'table-2.tex'),
  ]
  with (tmp_path / 'table-1.csv').open(newline='') as file:
    assert list(csv.reader(file)) == [
      ['Row', *map('Top-1 %'.__add__, names), 'Why'],
      ['[a] & "b", c', '1098.43', '0.58', '', '', '', 'x'],
      ['θ', '-0.28', '', '-5.79', '+5.24', 'inside', ''],
    ]
  assert (tmp_path / 'table-1.tex').read_text() == (
    '% \\usepackage{booktabs}\n\\begin{table}\n\\caption{50 \\% of a\\_b}\n'
    '\\begin{tabular}{lrl}\n\\toprule\n'
    'Row & Top-1 \\% {\\scriptsize primary} & Why \\\\\n\\midrule\n'
    '{[}a] \\& "b", c & \\textbf{1,098.43 ± 0.58} & x \\\\\n'
    '$\\theta$ & $-$0.28 {[}$-$5.79, +5.24] {\\scriptsize inside} & – \\\\\n'
    '\\bottomrule\n\\end{tabular}\n\\end{table}\n'
  )
  svg = (tmp_path / 'figure-1.svg').read_text()
  assert svg.startswith('<?xml') and svg.rstrip().endswith('</svg>')
  assert (tmp_path / 'figure-1.pdf').read_bytes().startswith(b'%PDF-')


def test_a_fence_is_longer_than_any_in_its_text():
  text = render_markdown([CodeBlock('a\n````\nb')], '')
  assert text == '`````\na\n````\nb\n`````\n'


def test_a_ragged_row_is_a_mistake():
  table = TableBlock('', ['a', 'b'], [['a']], 'lr')
  for render in (render_html, lambda blocks: render_markdown(blocks, '')):
    with pytest.raises(ValueError, match='zip'):
      render([HeadingBlock('', 1), table])


@figures.styled
def draw(points):
  figure, (axes,) = figures.panels(1, 1, 2.0)
  axes.plot([x * 7919 % 1000 for x in range(points)], '.')
  return figures.picture(figure, 'name')


def test_a_figure_is_lines_that_load_nothing():
  few, many = draw(10), draw(5_000)
  for drawn in (few, many):
    assert drawn.svg.startswith('<svg') and not drawn.png
    assert 'http' not in drawn.svg
  assert many == draw(5_000)


def test_a_figure_is_the_same_bytes_whatever_the_users_style_is():
  before = dict(matplotlib.rcParams)
  usual = draw(10)
  assert dict(matplotlib.rcParams) == before
  with matplotlib.rc_context({'font.size': 30, 'axes.facecolor': 'red'}):
    assert draw(10) == usual


def test_texts_are_one_line_each_and_take_values_as_they_are(tmp_path):
  words = "a = '''\nup to\n{share:.1%} of {who}\n'''\n"
  (tmp_path / 'page.toml').write_text(words, 'utf-8')
  text = read_texts(str(tmp_path / 'page.py'))
  assert text('a', share=0.5, who='{x}\ny') == 'up to 50.0% of {x}\ny'
  for name, values in (('b', {}), ('a', {'share': 1})):
    with pytest.raises(KeyError):
      text(name, **values)
