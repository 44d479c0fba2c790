"""The look of every figure, and how one gets into a page.

Draw inside `@styled`; the same input gives the same bytes.
"""

import io
import pathlib
import re

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from tsla.pages.blocks import Picture

# Okabe and Ito's colours, without the yellow that white paper swallows: told
# apart by colour-blind readers too.
COLOURS = (
  '#000000',
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#cc79a7',
  '#e69f00',
  '#56b4e9',
)
MARKERS = ('', 's', '^', 'D', 'v')  # as Matplotlib calls them
NEUTRAL = '#48515c'  # of what belongs to no row or method alone

# Whatever style the user's own files set is left out.
styled = matplotlib.rc_context(
  fname=pathlib.Path(__file__).parent / 'templates' / 'figures.mplstyle'
)


def panels(
  rows: int, columns: int, height: float, **options: bool
) -> tuple[Figure, list[Axes]]:
  """A figure as wide as a page, of `height` inches, and its panels."""
  figure = Figure(figsize=(9.6, height), layout='constrained')
  grid = figure.subplots(rows, columns, squeeze=False, **options)
  return figure, list(grid.flat)


def plain_log_ticks(axes: Axes) -> None:
  """Puts the few numbers on a log axis that a reader looks for."""
  low, high = axes.get_ylim()
  # The fewer decades, the more ticks between the powers of ten.
  ticks = {100: (1,), 10: (1, 2, 5), 0: (1, 1.5, 2, 3, 5, 7)}
  subs = next(subs for least, subs in ticks.items() if high / low > least)
  axes.yaxis.set_major_locator(LogLocator(subs=subs))
  axes.yaxis.set_minor_locator(NullLocator())
  axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f'{y:g}'))


@styled
def picture(figure: Figure, name: str) -> Picture:
  """A figure for a page that has no other one of this name.

  `name` keeps its ids apart from another one's.
  """
  svg, pdf = io.StringIO(), io.BytesIO()
  # Not by `savefig`, which draws twice, once for the layout alone.
  with matplotlib.rc_context({'svg.hashsalt': name}):
    FigureCanvasSVG(figure).print_svg(svg, metadata={'Date': None})
  figure.set_layout_engine('none')  # as it is; to lay it out again takes long
  FigureCanvasPdf(figure).print_pdf(pdf, metadata={'CreationDate': None})
  files = ('svg', svg.getvalue().encode()), ('pdf', pdf.getvalue())
  return Picture(svg=_inline(svg.getvalue()), files=files)


def _inline(svg: str) -> str:
  """The part of an SVG file that belongs into a page, in fewer bytes."""
  svg = svg[svg.index('<svg') :]
  svg = re.sub(r'\s*<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
  svg = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', '', svg, count=3)
  # Ids that nothing refers to, and that the next figure has too.
  svg = re.sub(r' id="[a-z.\d]+_\d+"', '', svg)
  svg = re.sub(r' font-family: [^;"]*;', '', svg)
  return re.sub(
    r'(?<= d=")[^"]*',
    lambda path: re.sub(r'(\.\d\d)\d+', r'\1', path[0]).replace('\n', ''),
    svg,
  ).strip()
