"""Figures by matplotlib, as SVG for light and dark pages or as PNG.

Drawing uses no pyplot, and changes no global state outside `style()`. Colours
are the light ones of `page.COLORS`; `svg` turns them into CSS variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import html
import io
import re
import warnings

from absl import logging
from matplotlib import axes
from matplotlib import figure
from matplotlib import font_manager
from matplotlib import style as matplotlib_style
from matplotlib import ticker

from smft_jax.report import page

COLORS = {name: light for name, (light, _) in page.COLORS.items()}

# With text of 9 points, 5.4 inches (389 points) are legible on a phone's 354
# pixels and on a page's 680.
WIDTH = 5.4
_DPI = 240
_PIXELS = 720  # width of an SVG file
_FONT_SIZE = 9
_FONT = 'DejaVu Sans'  # comes with matplotlib
# Those of Linux distributions, Windows and macOS for scripts that it lacks.
_OTHER_FONTS = (
  'Noto Sans CJK SC',
  'Noto Sans CJK JP',
  'WenQuanYi Micro Hei',
  'Microsoft YaHei',
  'PingFang SC',
  'Arial Unicode MS',
)
_STYLE = {
  'font.size': _FONT_SIZE,
  'figure.facecolor': COLORS['page'],
  'axes.facecolor': COLORS['page'],
  'axes.edgecolor': COLORS['soft'],
  'axes.labelcolor': COLORS['soft'],
  'axes.labelsize': _FONT_SIZE,
  'axes.titlecolor': COLORS['ink'],
  'axes.titlesize': _FONT_SIZE,
  'axes.titleweight': 'bold',
  'axes.titlelocation': 'left',
  'axes.grid': True,
  'axes.axisbelow': True,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'grid.color': COLORS['rule'],
  'grid.linewidth': 0.8,
  'hatch.color': COLORS['page'],
  'legend.frameon': False,
  'legend.fontsize': _FONT_SIZE,
  'text.color': COLORS['ink'],
  'text.parse_math': False,  # names may hold a $
  'xtick.color': COLORS['soft'],
  'ytick.color': COLORS['soft'],
  'svg.fonttype': 'none',
  'svg.hashsalt': 'smft_jax',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
  """One line of a chart.

  Attributes:
    label: Its name in the legend; '' leaves it out of the legend.
    points: (x, y) pairs, by increasing x.
    color: A key of `COLORS`.
    dashes: Lengths of dashes and gaps in points; () for a solid line.
  """

  label: str
  points: tuple[tuple[float, float], ...]
  color: str
  dashes: tuple[float, ...] = ()


@contextlib.contextmanager
def style() -> Iterator[None]:
  """Applies the style; artists take it when they are made."""
  installed = font_manager.get_font_names()
  fonts = [_FONT, *(font for font in _OTHER_FONTS if font in installed)]
  with matplotlib_style.context(['default', _STYLE | {'font.family': fonts}]):
    yield


def new_figure(height: float, width: float = WIDTH) -> figure.Figure:
  """Makes an empty figure, sizes in inches; call it within `style()`."""
  return figure.Figure(figsize=(width, height), layout='constrained')


def line_chart(
  series: Sequence[Series],
  *,
  x_label: str,
  y_label: str,
  show: Callable[[float], str] = '{:g}'.format,
  y_range: tuple[float, float] | None = None,
  log_x: bool = False,
  height: float = 2.9,
) -> figure.Figure:
  """Draws lines, and writes the last value of each at its end.

  Args:
    series: The lines; those without points are left out.
    x_label: Name of the x axis.
    y_label: Name of the y axis.
    show: Formats y values.
    y_range: Lowest and highest y; by default those of the points and 0.
    log_x: Whether the x axis is logarithmic.
    height: In inches, legend included.

  Returns:
    The figure.

  Raises:
    ValueError: If there is no point.

  Example:
    >>> kept = Series(label='kept', points=((0, 1.0), (5, 0.9)), color='blue')
    >>> '>0.9</text>' in svg(line_chart([kept], x_label='x', y_label='y'))
    True
  """
  series = [line for line in series if line.points]
  if not series:
    raise ValueError('a chart needs at least one point')
  with style():
    drawn = new_figure(height)
    plot = drawn.add_subplot()
    # At the top, where it takes no width from the lines.
    plot.set_title(y_label, color=COLORS['soft'], fontweight='normal')
    plot.set_xlabel(x_label)
    if log_x:
      plot.set_xscale('log')
      plot.xaxis.set_major_formatter(ticker.FuncFormatter('{:g}'.format))
    plot.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: show(y)))
    plot.yaxis.set_major_locator(ticker.MaxNLocator(5))
    for line in series:
      xs, ys = zip(*line.points, strict=True)
      plot.plot(
        xs,
        ys,
        color=COLORS[line.color],
        linestyle=(0, line.dashes) if line.dashes else '-',
        linewidth=1.6,
        # Many dots would hide the line.
        marker='o' if len(xs) <= 30 else '',
        markersize=3,
        label=line.label or '_',
      )
    if y_range:
      room = 0.02 * (y_range[1] - y_range[0])
      plot.set_ylim(y_range[0] - room, y_range[1] + room)
    elif plot.get_ylim()[0] > 0:
      plot.set_ylim(bottom=0)
    label_ends(
      plot,
      [
        (show(line.points[-1][1]), line.points[-1], line.color)
        for line in series
      ],
      gap=0.25 / height,
    )
    if any(line.label for line in series):
      drawn.legend(loc='outside upper left', ncols=2)
  return drawn


def label_ends(
  plot: axes.Axes,
  ends: Sequence[tuple[str, tuple[float, float], str]],
  gap: float,
) -> None:
  """Writes labels right of the axes at the heights where lines end.

  Args:
    plot: The axes; limits and scales must be final.
    ends: Label, last point and color name of each line.
    gap: Least distance of two labels, as a share of the axes' height.
  """
  to_axes = plot.transData + plot.transAxes.inverted()
  heights = [float(to_axes.transform(point)[1]) for _, point, _ in ends]
  for (label, _, color), height in zip(ends, spread(heights, gap), strict=True):
    plot.annotate(
      label,
      (1, height),
      xycoords='axes fraction',
      xytext=(5, 0),
      textcoords='offset points',
      va='center',
      color=COLORS[color],
      fontweight='bold',
      annotation_clip=False,
    )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
  """Moves positions at least `gap` apart, as little as possible.

  Positions that collide become a block around their mean; blocks that collide
  are joined.

  Example:
    >>> spread([10.0, 12.0, 90.0], gap=14)
    [4.0, 18.0, 90.0]
  """
  order = sorted(range(len(wanted)), key=lambda i: wanted[i])
  blocks: list[tuple[float, list[int]]] = []  # centre, members
  for i in order:
    centre, members = wanted[i], [i]
    while blocks:
      below, others = blocks[-1]
      if centre - below >= gap * (len(others) + len(members)) / 2:
        break
      blocks.pop()
      members = others + members
      centre = sum(wanted[m] for m in members) / len(members)
    blocks.append((centre, members))
  placed = list(wanted)
  for centre, members in blocks:
    for place, member in enumerate(members):
      placed[member] = centre + gap * (place - (len(members) - 1) / 2)
  return placed


def svg(drawn: figure.Figure, label: str = '') -> str:
  """Returns a figure as an <svg> element for a page of `templates/base.html`.

  The same figure gives the same text. It is as wide as its surroundings.

  Args:
    drawn: The figure.
    label: What a screen reader says.
  """
  # Text stays text, so what a font lacks is no matter here.
  saved, _ = _saved(drawn, format='svg', transparent=True)
  found = saved.decode()
  found = found[found.index('<svg') :]
  # The date and version; rules that would hold for the whole page; and ids
  # that other figures of the page have too.
  found = re.sub(r'<metadata>.*?</metadata>\s*', '', found, flags=re.DOTALL)
  found = re.sub(r'<style.*?</style>', '', found, flags=re.DOTALL)
  found = re.sub(r' id="[A-Za-z\d.]+_\d+"', '', found)
  for name, color in COLORS.items():
    found = found.replace(color, f'var(--{name}, {color})')
  (view_box,) = re.findall(r'viewBox="[\d. ]+"', found[: found.index('>')])
  opening = (
    '<svg class="figure" role="img" xmlns="http://www.w3.org/2000/svg"'
    f' xmlns:xlink="http://www.w3.org/1999/xlink" {view_box}'
    f' aria-label="{html.escape(label)}">'
  )
  return opening + found[found.index('>') + 1 :].strip()


def standalone(svg_: str) -> str:
  """Returns an <svg> element as a file that suits light and dark viewers.

  Args:
    svg_: What `svg` returns.
  """
  opening, rest = svg_.split('>', 1)
  (width, height) = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)[0]
  pixels = _PIXELS * float(height) / float(width)
  return (
    f'{opening} width="{_PIXELS}" height="{pixels:.0f}">\n'
    f'<style>{page.color_style(".figure")}\n'
    '.figure * { stroke-linejoin: round; }\n'
    '.figure text { font-family: system-ui, sans-serif !important; }</style>\n'
    f'{rest}\n'
  )


def png(drawn: figure.Figure) -> bytes:
  """Returns a figure as a PNG file on white; same figure, same bytes.

  Says in one line which characters are boxes, for want of a font.
  """
  # 'Software' would name the version of matplotlib.
  saved, missing = _saved(
    drawn, format='png', dpi=_DPI, metadata={'Software': None}
  )
  if missing:
    logging.warning(
      'boxes in a PNG stand for %d characters that no font here has, such as'
      ' %s: install one that has them, for example Noto Sans CJK',
      *(len(missing), ' '.join(missing[:8])),
    )
  return saved


def _saved(drawn: figure.Figure, **settings) -> tuple[bytes, list[str]]:
  """Returns a figure as a file, and the characters that no font has."""
  data = io.BytesIO()
  with style(), warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    drawn.savefig(data, **settings)
  missing = []
  for warning in caught:
    glyph = re.match(r'Glyph (\d+) .*missing from', str(warning.message))
    if glyph:
      missing.append(chr(int(glyph[1])))
    else:
      warnings.warn_explicit(
        warning.message, warning.category, warning.filename, warning.lineno
      )
  return data.getvalue(), list(dict.fromkeys(missing))
