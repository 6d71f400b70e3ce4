"""Plots of measurements: bars to compare, lines to see how numbers grow.

A scale on which the largest number is more than 50 times the smallest is
logarithmic, and its label says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
import math

from matplotlib import figure
from matplotlib import ticker

from smft_jax.report import figures

_WIDE = 50
_COLORS = ('blue', 'orange', 'green', 'purple', 'gray')
_DASHES = ('-', (0, (5, 3)), (0, (1, 2)), (0, (6, 2, 1, 2)))
_WIDTH = 6.5  # inches
_NOTE = ', logarithmic scale'
_TICKS = ticker.FuncFormatter(lambda value, _: _number(value))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bars:
  """Numbers side by side.

  Attributes:
    title: The title.
    unit: The unit of the numbers, such as 'ms'.
    values: Numbers by name, from the top. The first one stands out.
  """

  title: str
  unit: str
  values: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lines:
  """How numbers grow, for instance with the number of slots.

  Attributes:
    title: The title.
    x_label: The name of the x axis, which is logarithmic.
    y_label: The name of the y axis, with its unit.
    series: Numbers by x, by name.
  """

  title: str
  x_label: str
  y_label: str
  series: Mapping[str, Mapping[float, float]]


def draw(plot: Bars | Lines) -> str:
  """Draws a plot as an SVG file, for light and dark viewers.

  Args:
    plot: The plot.

  Returns:
    The text of the file.

  Raises:
    ValueError: If there is nothing to draw, a number is negative or not
      finite, or an x is not above 0.

  Example:
    >>> from benchmarks import plot
    >>> svg = plot.draw(plot.Bars(
    ...     title='Update', unit='ms', values={'rows': 20.0, 'dense': 600.0}))
    >>> '>600 ms</text>' in svg
    True
  """
  return figures.standalone(figures.svg(to_figure(plot), plot.title))


def to_figure(plot: Bars | Lines) -> figure.Figure:
  """Draws a plot as a figure; see `draw`."""
  with figures.style():
    return _bars(plot) if isinstance(plot, Bars) else _lines(plot)


def _bars(bars: Bars) -> figure.Figure:
  values = list(bars.values.values())
  logarithmic = _is_logarithmic(bars.title, values)
  drawn = figures.new_figure(0.9 + 0.3 * len(values), _WIDTH)
  axes_ = drawn.add_subplot()
  axes_.set_title(bars.title)
  colors = ['blue'] + ['pale'] * (len(values) - 1)
  axes_.barh(
    range(len(values)),
    values,
    height=0.7,
    color=[figures.COLORS[color] for color in colors],
    log=logarithmic,
  )
  for place, value in enumerate(values):
    axes_.annotate(
      f'{_number(value)} {bars.unit}',
      (value, place),
      xytext=(5, 0),
      textcoords='offset points',
      va='center',
      fontweight='normal' if place else 'bold',
    )
  axes_.set_yticks(range(len(values)), list(bars.values))
  axes_.set_ylim(len(values) - 0.4, -0.6)
  axes_.tick_params(axis='y', length=0)
  axes_.grid(visible=False, axis='y')
  if logarithmic:
    # The smallest bar must have a length, and the longest number room.
    room = (max(values) / min(values)) ** 0.35
    axes_.set_xlim(min(values) / 2, max(values) * room)
    axes_.minorticks_off()
  else:
    axes_.set_xlim(0, 1.25 * max(values) or 1)
  axes_.xaxis.set_major_formatter(_TICKS)
  axes_.set_xlabel(bars.unit + (_NOTE if logarithmic else ''))
  return drawn


def _lines(lines: Lines) -> figure.Figure:
  series = {name: sorted(line.items()) for name, line in lines.series.items()}
  xs = sorted({x for line in series.values() for x, _ in line})
  logarithmic = _is_logarithmic(
    lines.title, [y for line in series.values() for _, y in line]
  )
  if not all(series.values()) or xs[0] <= 0:
    raise ValueError(f'{lines.title}: every line needs points with x above 0')
  drawn = figures.new_figure(3.4, _WIDTH)
  drawn.suptitle(
    lines.title, x=0.01, ha='left', fontsize='medium', fontweight='bold'
  )
  axes_ = drawn.add_subplot()
  axes_.set_xscale('log')
  if logarithmic:
    axes_.set_yscale('log')
  ends = []
  for place, (name, points) in enumerate(series.items()):
    color = _COLORS[place % len(_COLORS)]
    axes_.plot(
      *zip(*points, strict=True),
      color=figures.COLORS[color],
      linestyle=_DASHES[place % len(_DASHES)],
      marker='o',
      markersize=3,
    )
    ends.append((f'{name}: {_number(points[-1][1])}', points[-1], color))
  if not logarithmic:
    axes_.set_ylim(bottom=0)
  axes_.set_xticks(xs, [_slots(x) for x in xs])
  axes_.minorticks_off()
  axes_.set_xlabel(lines.x_label)
  axes_.yaxis.set_major_formatter(_TICKS)
  label = lines.y_label + (_NOTE if logarithmic else '')
  axes_.set_title(label, color=figures.COLORS['soft'], fontweight='normal')
  figures.label_ends(axes_, ends, gap=0.07)
  return drawn


def _is_logarithmic(title: str, values: Iterable[float]) -> bool:
  """Returns whether numbers need a logarithmic scale; checks them."""
  values = list(values)
  if not values:
    raise ValueError(f'{title}: there is nothing to draw')
  if not all(0 <= value < math.inf for value in values):
    raise ValueError(
      f'{title}: numbers must be finite and not negative, got {values}'
    )
  return 0 < _WIDE * min(values) < max(values)


def _number(value: float) -> str:
  """Formats a number with three digits, or all digits of a large one."""
  return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def _slots(count: float) -> str:
  """Formats a number of slots: 65536 is 65k, 2**20 is 1M."""
  if count % 2**20 == 0:
    return f'{count / 2**20:g}M'
  if count >= 1e6:
    return f'{count / 1e6:.3g}M'
  return f'{count // 1e3:g}k' if count >= 1e4 else f'{count:g}'
