"""Line charts as SVG text: small, without dependencies, light and dark.

A chart takes its colours from the style sheet around it (`STYLE`), so that one
drawing serves both a page and a picture, on white and on black.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import html
import math

# Colours told apart with any common colour vision, by Okabe and Ito; lines
# differ in their dashes too.
STYLE = """
.chart { --ink: #1c2330; --soft: #667085; --grid: #e4e7ec;
  --blue: #0067a8; --orange: #c2500a; --green: #00795a; --purple: #a2427c;
  --gray: #7a8291; font: 12px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  .chart { --ink: #eef1f6; --soft: #9aa4b5; --grid: #2b3240;
    --blue: #5cb8f2; --orange: #f29a5c; --green: #3fcfa4; --purple: #e08fc0;
    --gray: #8b95a7; } }
.chart text { fill: var(--soft); }
.chart .grid { stroke: var(--grid); stroke-width: 1; }
.chart .axis { stroke: var(--soft); stroke-width: 1; }
.chart .line { fill: none; stroke: var(--c); stroke-width: 2.25;
  stroke-linejoin: round; stroke-linecap: round; }
.chart .dot { fill: var(--c); }
.chart text.value { fill: var(--c); font-weight: 650; }
.chart text.name { fill: var(--ink); }
"""

COLORS = ('blue', 'orange', 'green', 'purple', 'gray')
_LINE_HEIGHT = 14


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
  """One line of a chart.

  Attributes:
    label: what the legend calls it.
    points: (x, y), from left to right.
    color: one of `COLORS`.
    dashes: an SVG dash pattern such as '6 4', or '' for a solid line.
  """

  label: str
  points: tuple[tuple[float, float], ...]
  color: str
  dashes: str = ''


def line_chart(
  series: Sequence[Series],
  *,
  x_label: str,
  y_label: str,
  show: Callable[[float], str],
  show_x: Callable[[float], str] = '{:g}'.format,
  y_range: tuple[float, float] | None = None,
  width: int = 720,
  height: int = 340,
  legend: bool = False,
) -> str:
  """Draws lines with axes, and the last value written at each line's end.

  Args:
    series: the lines; those without points are left out.
    x_label: what runs from left to right.
    y_label: what runs upwards.
    show: turns a y value into the text to show.
    show_x: the same for x, such as `lambda x: f'{10**x:g}'` where these are
      logarithms.
    y_range: lowest and highest y; None takes them from the points, with 0.
    width: in pixels; text has its normal size at this width.
    height: in pixels, the legend included.
    legend: whether the drawing holds its legend.

  Returns:
    An <svg> element, styled by `STYLE`.

  Raises:
    ValueError: if there is not a single point.

  Example:
    >>> known = Series(label='known', points=((0, 1.0), (5, 0.9)), color='blue')
    >>> svg = line_chart([known], x_label='x', y_label='y', show=str)
    >>> svg.count('class="line"'), '>0.9</text>' in svg
    (1, True)
  """
  series = [line for line in series if line.points]
  if not series:
    raise ValueError('a chart needs at least one point')
  xs = [x for line in series for x, _ in line.points]
  ys = [y for line in series for _, y in line.points]
  x_ticks = [
    x
    for x in ticks(min(xs), max(xs), 4 if width < 500 else 8)
    if x <= max(xs) and x == int(x)
  ]
  y_ticks = ticks(*(y_range or (min(0, *ys), max(0, *ys))), 5)
  x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
  y_low, y_high = min(y_ticks[0], *ys), max(y_ticks[-1], *ys)
  ends = [(line, show(line.points[-1][1])) for line in series]

  left = 16 + 7 * max(len(show(y)) for y in y_ticks)
  right = width - 14 - 8.5 * max(len(text) for _, text in ends)
  top = 28 + (20 * _legend_rows(series, width) if legend else 0)
  bottom = height - 40

  def at(x: float, y: float) -> tuple[float, float]:
    return (
      round(left + (x - x_low) / (x_high - x_low) * (right - left), 1),
      round(bottom - (y - y_low) / (y_high - y_low) * (bottom - top), 1),
    )

  said = '; '.join(f'{line.label} {text}' for line, text in ends)
  parts = [
    f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" role="img"'
    f' viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    f' aria-label="{_safe(f"{y_label} over {x_label}, at the end: {said}")}">'
  ]
  if legend:
    parts += _legend(series, width)
  parts.append(_text(left, top - 12, y_label, 'start'))
  for y in y_ticks:
    height_of_tick = at(x_low, y)[1]
    kind = 'axis' if y == 0 else 'grid'
    parts.append(_line(kind, left, height_of_tick, right, height_of_tick))
    parts.append(_text(left - 8, height_of_tick + 4, show(y), 'end'))
  for x in x_ticks:
    across = at(x, y_low)[0]
    parts.append(_line('axis', across, bottom, across, bottom + 4))
    parts.append(_text(across, bottom + 18, show_x(x), 'middle'))
  parts.append(_text((left + right) / 2, bottom + 36, x_label, 'middle'))
  for line in series:
    places = [at(x, y) for x, y in line.points]
    parts.append(_draw(line, places, show, show_x))
  # Where lines end close together their values move apart to stay legible.
  wanted = [at(*line.points[-1])[1] for line, _ in ends]
  for (line, text), y in zip(ends, spread(wanted), strict=True):
    x = at(*line.points[-1])[0] + 8
    color = f' style="--c:var(--{line.color})"'
    parts.append(_text(x, round(y + 4, 1), text, 'start', 'value', color))
  return '\n'.join([*parts, '</svg>'])


def standalone(svg: str) -> str:
  """A chart as a file of its own, for a README."""
  opening, rest = svg.split('>', 1)
  return f'{opening}>\n<style>{STYLE}</style>{rest}\n'


def ticks(low: float, high: float, most: int) -> list[float]:
  """Round numbers that enclose a range, about `most` of them at most.

  Example:
    >>> ticks(0, 50, 6), ticks(-0.23, 0.02, 4)
    ([0, 10, 20, 30, 40, 50], [-0.3, -0.2, -0.1, 0.0, 0.1])
  """
  if high <= low:
    high = low + 1
  magnitude = 10.0 ** math.floor(math.log10((high - low) / most))
  steps = (magnitude * factor for factor in (1, 2, 2.5, 5, 10))
  step = next(s for s in steps if (high - low) / s <= most)
  first = math.floor(low / step + 1e-9)
  last = math.ceil(high / step - 1e-9)
  found = [round(i * step, 12) for i in range(first, last + 1)]
  whole = all(value == int(value) for value in found)
  return [int(value) for value in found] if whole else found


def spread(wanted: Sequence[float], gap: float = _LINE_HEIGHT) -> list[float]:
  """Moves positions apart to at least `gap`, and as little as that takes.

  Positions that collide become a block centred on their mean, and blocks that
  collide in turn are joined.

  Example:
    >>> spread([10.0, 12.0, 90.0])
    [4.0, 18.0, 90.0]
  """
  order = sorted(range(len(wanted)), key=lambda i: wanted[i])
  blocks: list[tuple[float, list[int]]] = []  # centre, members from the top
  for i in order:
    centre, members = wanted[i], [i]
    while blocks:
      above, others = blocks[-1]
      room = gap * (len(others) + len(members)) / 2
      if centre - above >= room:
        break
      blocks.pop()
      members = others + members
      centre = sum(wanted[m] for m in members) / len(members)
    blocks.append((centre, members))
  placed = list(wanted)
  for centre, members in blocks:
    for row, member in enumerate(members):
      placed[member] = centre + gap * (row - (len(members) - 1) / 2)
  return placed


def _legend_places(series: Sequence[Series], width: int) -> list:
  """(x, row) of each entry; a row breaks where the next would not fit."""
  places, x, row = [], 0.0, 0
  for line in series:
    entry = 44 + 6.6 * len(line.label)
    if x and x + entry > width:
      x, row = 0.0, row + 1
    places.append((x, row))
    x += entry
  return places


def _legend_rows(series: Sequence[Series], width: int) -> int:
  return _legend_places(series, width)[-1][1] + 1


def _legend(series: Sequence[Series], width: int) -> list[str]:
  parts = []
  for line, (x, row) in zip(series, _legend_places(series, width), strict=True):
    y = 10 + 20 * row
    parts.append(swatch(line, x, y))
    parts.append(_text(x + 30, y + 4, line.label, 'start', 'name'))
  return parts


def swatch(line: Series, x: float = 0, y: float = 6) -> str:
  """A short piece of a series' line, for a legend."""
  return (
    f'<path class="line" d="M{x + 2},{y}H{x + 24}"'
    f' stroke-dasharray="{line.dashes}" style="--c:var(--{line.color})"/>'
  )


def _draw(
  line: Series,
  places: Sequence[tuple[float, float]],
  show: Callable[[float], str],
  show_x: Callable[[float], str],
) -> str:
  path = 'M' + 'L'.join(f'{x},{y}' for x, y in places)
  # Many dots would hide the line.
  marked = slice(None) if len(places) <= 30 else slice(-1, None)
  dots = ''.join(
    f'<circle class="dot" cx="{x}" cy="{y}" r="3"><title>{_safe(line.label)},'
    f' {_safe(show_x(at))}: {_safe(show(value))}</title></circle>'
    for (x, y), (at, value) in zip(
      places[marked], line.points[marked], strict=True
    )
  )
  return (
    f'<g style="--c:var(--{line.color})"><path class="line" d="{path}"'
    f' stroke-dasharray="{line.dashes}"/>{dots}</g>'
  )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
  return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def _text(
  x: float, y: float, text: str, anchor: str, kind: str = '', more: str = ''
) -> str:
  kind = f' class="{kind}"' if kind else ''
  return (
    f'<text x="{x}" y="{y}" text-anchor="{anchor}"{kind}{more}>'
    f'{_safe(text)}</text>'
  )


def _safe(text: str) -> str:
  return html.escape(str(text), quote=True)
