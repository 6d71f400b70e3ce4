"""Strokes that the pictures of a comparison share.

Colours are those of Okabe and Ito, some of them darkened for white paper: told
apart with any common colour vision. Markers differ too.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
import textwrap
from typing import Any

from matplotlib import axes
from matplotlib import figure
from matplotlib import lines
from matplotlib import ticker
from matplotlib.backends import backend_agg
import numpy as np

from smft_jax.report import chart as figures

COLORS = ('#0067a8', '#d55e00', '#00795a', '#a2427c', '#8a6d00', '#3f8fc4')
MARKERS = 'os^DvPX<>phd8H'
INK, SOFT, GRID, PALE = '#1c2330', '#5b6575', '#e4e7ec', '#a7afbb'
WIDTH, DPI = 9.0, 160  # inches, dots an inch: 1440 pixels for 720 of a page
STYLE = {
  'font.family': 'DejaVu Sans',
  'font.size': 10,
  'axes.edgecolor': SOFT,
  'axes.labelcolor': INK,
  'axes.titlecolor': INK,
  'axes.titlesize': 11,
  'axes.titleweight': 'bold',
  'axes.titlelocation': 'left',
  'axes.grid': True,
  'axes.axisbelow': True,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'grid.color': GRID,
  'grid.linewidth': 0.8,
  'xtick.color': SOFT,
  'ytick.color': SOFT,
  'text.color': INK,
  'text.parse_math': False,  # names may hold a $
}
FORGETTING = 'known facts lost'
LEARNING = 'new facts recalled, in unseen phrasings'

Look = tuple[str, str]  # colour, marker


def new_figure(height: float) -> figure.Figure:
  """An empty figure of `WIDTH` by `height` inches, apart from pyplot."""
  picture = figure.Figure(figsize=(WIDTH, height), layout='constrained')
  backend_agg.FigureCanvasAgg(picture)
  return picture


def look(key: Hashable, keys: Sequence[Hashable]) -> Look:
  """Colour and marker of one of several lines, which no other of 14 has.

  Example:
    >>> look('lora', ['full', 'lora'])
    ('#d55e00', 's')
  """
  place = keys.index(key)
  return COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]


def percent_axis(axis: Any) -> None:
  """Writes shares as percent."""
  axis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f'{100 * v:g}%'))


def wrap(text: str, width: int) -> str:
  """Breaks a label into lines."""
  return '\n'.join(textwrap.wrap(text, width)) or text


def draw_front(
  at: axes.Axes, front: Sequence[Any], color: str, thin: bool = False
) -> None:
  """Draws a front, linear in recall and drop whatever the scale of the axes."""
  recall, drop = np.asarray(front, float).T
  dense = np.linspace(0, len(recall) - 1, 40 * (len(recall) - 1) + 1)
  places = np.arange(len(recall))
  at.plot(
    np.interp(dense, places, recall),
    np.interp(dense, places, drop),
    color=color,
    linewidth=1.4 if thin else 2,
    alpha=0.8 if thin else 1,
  )


def draw_points(
  at: axes.Axes, points: Sequence[Mapping[str, Any]], look_: Look
) -> None:
  """Draws means over seeds with both deviations, and the seeds faintly."""
  color, marker = look_
  for point in points:
    if point['recall_mean'] is None:
      continue
    place = point['recall_mean'], point['drop_mean']
    if len(point['recall']) > 1:
      at.scatter(
        point['recall'], point['drop'], s=12, color=color, alpha=0.3,
        linewidth=0, marker=marker,
      )  # fmt: skip
    draw_mean(at, place, (point['recall_std'], point['drop_std']), look_)


def draw_mean(
  at: axes.Axes,
  place: tuple[float, float],
  std: tuple[float | None, float | None],
  look_: Look,
  size: float = 44,
) -> None:
  """Draws a marker with its deviations along x and y, where there are any."""
  color, marker = look_
  at.errorbar(
    *place,
    xerr=std[0] or None,
    yerr=std[1] or None,
    color=color,
    linewidth=1,
    alpha=0.55,
    zorder=2.5,
  )
  at.scatter(
    *place, s=size, color=color, marker=marker, edgecolor='white',
    linewidth=0.6, zorder=3,
  )  # fmt: skip


def label_ends(
  at: axes.Axes,
  ends: Sequence[tuple[str, Sequence[float], str]],
  gap: float = 0.065,
) -> None:
  """Names lines in the right margin, at the heights where they end.

  Args:
    at: axes whose limits and scales are final.
    ends: label, last point and colour of each line.
    gap: least distance of two names, in heights of the axes.
  """
  to_axes = at.transData + at.transAxes.inverted()
  places = [to_axes.transform(end) for _, end, _ in ends]
  heights = figures.spread([float(place[1]) for place in places], gap)
  for (name, _, color), place, height in zip(
    ends, places, heights, strict=True
  ):
    at.plot(
      [place[0] + 0.012, 1.0, 1.012],
      [place[1], height, height],
      transform=at.transAxes,
      clip_on=False,
      color=color,
      linewidth=0.8,
      alpha=0.5,
    )
    at.annotate(
      wrap(name, 18),
      xy=(1.012, height),
      xycoords='axes fraction',
      xytext=(3, 0),
      textcoords='offset points',
      va='center',
      color=color,
      fontweight='bold',
    )


def legend(picture: figure.Figure, looks: Mapping[str, Look]) -> None:
  """Names lines under the picture."""
  picture.legend(
    handles=[
      lines.Line2D([], [], color=color, marker=marker, linewidth=2, label=label)
      for label, (color, marker) in looks.items()
    ],
    loc='outside lower center',
    ncols=min(len(looks), 4),
    frameon=False,
  )
