"""Plots of measurements as SVG: bars to compare, lines to see what grows.

A scale on which the largest number is more than 50 times the smallest is
logarithmic, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import html
import math

from smft_jax.report import chart as figures

_WIDE = 50
_DASHES = ('', '7 4', '2 5', '9 4 2 4')
_CHARACTER = 6.6  # pixels, as wide as most at 12 pixels of height


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bars:
  """Numbers side by side.

  Attributes:
    title: Of the drawing.
    unit: Of the numbers, such as 'ms'.
    values: Numbers by name, from the top. The first one stands out.
  """

  title: str
  unit: str
  values: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lines:
  """How numbers grow with something, such as the number of slots.

  Attributes:
    title: Of the drawing.
    x_label: What runs from left to right, always on a logarithmic scale.
    y_label: What runs upwards, and its unit.
    series: By name, numbers by x. The first one stands out.
  """

  title: str
  x_label: str
  y_label: str
  series: Mapping[str, Mapping[float, float]]


def draw(plot: Bars | Lines) -> str:
  """Draws a plot as a file of its own, legible on white and on black.

  Args:
    plot: What to draw.

  Returns:
    The text of an SVG file.

  Raises:
    ValueError: If there is nothing to draw, a number is negative or not
      finite, or an x is not above 0.

  Example:
    >>> from benchmarks import plot
    >>> svg = plot.draw(plot.Bars(
    ...     title='Update', unit='ms', values={'rows': 20.0, 'dense': 600.0}))
    >>> svg.count('<rect'), '>600 ms</text>' in svg
    (2, True)
  """
  parts = _bars(plot) if isinstance(plot, Bars) else _lines(plot)
  return figures.standalone('\n'.join([*parts, '</svg>']))


def _bars(bars: Bars) -> list[str]:
  ticks, place, scale = _axis(bars.title, bars.values.values())
  texts = {
    name: f'{_number(value)} {bars.unit}' for name, value in bars.values.items()
  }
  left = 12 + _CHARACTER * max(map(len, texts))
  after = 14 + 1.15 * _CHARACTER * max(map(len, texts.values()))
  width = max(720, round(left + 300 + after))
  bottom = 44 + 30 * len(texts)

  def at(value: float) -> float:
    return round(left + place(value) * (width - left - after), 1)

  parts = _opening(bars.title, width, bottom + 40, texts)
  for tick in ticks:
    parts += _line('grid', at(tick), 36, at(tick), bottom)
    parts += _text(at(tick), bottom + 16, _number(tick), 'middle')
  unit = bars.unit + scale
  parts += _text((left + width - after) / 2, bottom + 34, unit, 'middle')
  for row, (name, text) in enumerate(texts.items()):
    y, end = 44 + 30 * row, at(bars.values[name])
    color = 'gray' if row else figures.COLORS[0]
    parts += _text(left - 10, y + 15, name, 'end', 'class="name"')
    parts.append(
      f'<rect x="{left:.1f}" y="{y}" width="{max(end - left, 1):.1f}"'
      f' height="22" rx="2" style="fill:var(--{color})"/>'
    )
    parts += _text(end + 8, y + 15, text, 'start', _value(color))
  parts += _line('axis', left, 36, left, bottom)
  return parts


def _lines(lines: Lines) -> list[str]:
  series = {name: sorted(line.items()) for name, line in lines.series.items()}
  xs = sorted({x for line in series.values() for x, _ in line})
  values = [y for line in series.values() for _, y in line]
  ticks, place, scale = _axis(lines.title, values)
  if not all(series.values()) or xs[0] <= 0:
    raise ValueError(f'{lines.title}: every line needs points with x above 0.')
  ends = {
    name: f'{name}: {_number(line[-1][1])}' for name, line in series.items()
  }
  x_span = math.log(xs[-1] / xs[0]) or 1

  def across(x: float) -> float:
    return math.log(x / xs[0]) / x_span

  left = 16 + _CHARACTER * max(len(_number(tick)) for tick in ticks)
  width, top, bottom = 720, 68, 318
  # As far right as the names beside the lines' ends leave room for.
  right = left + min(
    (width - left - 18 - 1.1 * _CHARACTER * len(text))
    / max(across(series[name][-1][0]), 0.1)
    for name, text in ends.items()
  )
  right = min(max(right, left + 300), width - 18)

  def at(x: float, y: float) -> tuple[float, float]:
    return (
      round(left + across(x) * (right - left), 1),
      round(bottom - place(y) * (bottom - top), 1),
    )

  parts = _opening(lines.title, width, bottom + 44, ends)
  parts += _text(left, top - 16, lines.y_label + scale, 'start')
  for tick in ticks:
    y = at(xs[0], tick)[1]
    parts += _line('grid', left, y, right, y)
    parts += _text(left - 8, y + 4, _number(tick), 'end')
  parts += _line('axis', left, bottom, right, bottom)
  free = -math.inf
  for x in xs:
    middle = at(x, values[0])[0]
    if middle < free:  # its number would touch the last one
      continue
    free = middle + 44
    parts += _line('axis', middle, bottom, middle, bottom + 4)
    parts += _text(middle, bottom + 18, _slots(x), 'middle')
  parts += _text((left + right) / 2, bottom + 36, lines.x_label, 'middle')

  places = {name: [at(*point) for point in series[name]] for name in series}
  heights = figures.spread([line[-1][1] for line in places.values()], gap=16)
  for i, (name, points) in enumerate(places.items()):
    color = figures.COLORS[i % len(figures.COLORS)]
    path = 'M' + 'L'.join(f'{x},{y}' for x, y in points)
    dots = ''.join(
      f'<circle class="dot" cx="{x}" cy="{y}" r="3"/>' for x, y in points
    )
    parts.append(
      f'<g style="--c:var(--{color})"><path class="line" d="{path}"'
      f' stroke-dasharray="{_DASHES[i % len(_DASHES)]}"/>{dots}</g>'
    )
    x, y = points[-1][0] + 10, heights[i] + 4
    parts += _text(x, y, ends[name], 'start', _value(color))
  return parts


def _axis(
  title: str, values: Iterable[float]
) -> tuple[list[float], Callable[[float], float], str]:
  """Ticks, where between 0 and 1 a number lies, what to say of the scale."""
  values = list(values)
  if not values:
    raise ValueError(f'{title}: there is nothing to draw.')
  if not all(0 <= value < math.inf for value in values):
    raise ValueError(
      f'{title}: numbers must be finite and not negative, got {values}.'
    )
  low, high = min(values), max(values)
  if low == 0 or high <= _WIDE * low:
    ticks = figures.ticks(0, high, 5)
    return ticks, lambda value: value / ticks[-1], ''
  # The smallest bar must not begin where it ends.
  first = math.floor(math.log10(low) - 0.15)
  span = math.log10(high) - first
  ticks = [10.0**power for power in range(first, first + math.floor(span) + 1)]
  return (
    ticks,
    lambda value: (math.log10(value) - first) / span,
    ', logarithmic scale',
  )


def _number(value: float) -> str:
  """Three digits or all whole ones."""
  return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def _slots(count: float) -> str:
  """A number of slots as people call it: 65536 is 65k, 2**20 is 1M."""
  if count % 2**20 == 0:
    return f'{count / 2**20:g}M'
  if count >= 1e6:
    return f'{count / 1e6:.3g}M'
  return f'{count // 1e3:g}k' if count >= 1e4 else f'{count:g}'


def _opening(
  title: str, width: float, height: float, texts: Mapping[str, str]
) -> list[str]:
  said = '; '.join(
    text if text.startswith(name) else f'{name}: {text}'
    for name, text in texts.items()
  )
  size = 'class="name" style="font-size:14px;font-weight:650"'
  return [
    f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" role="img"'
    f' viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    f' aria-label="{html.escape(f"{title}. {said}")}">',
    *_text(0, 18, title, 'start', size),
  ]


def _value(color: str) -> str:
  return f'class="value" style="--c:var(--{color})"'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> list[str]:
  return [f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>']


def _text(
  x: float, y: float, text: str, anchor: str, more: str = ''
) -> list[str]:
  return [
    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>'
    f'{html.escape(text)}</text>'
  ]
