"""Figures of a comparison, drawn from what `analysis.analyse` returns."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
import textwrap
from typing import Any

from matplotlib import axes
from matplotlib import figure
from matplotlib import ticker
import numpy as np

from smft_jax.report import figures
from smft_jax.sweep.pareto import table

_COLORS = ('blue', 'orange', 'green', 'purple', 'gold', 'sky')
_MARKERS = 'os^DvPX<>phd8H'
_INK, _SOFT, _PAGE = (figures.COLORS[name] for name in ('ink', 'soft', 'page'))
_LEARNING = 'new facts recalled'
_COLUMNS = 3  # of small plots

Look = tuple[str, str]  # color name, marker
Point = Mapping[str, Any]


def draw_pareto(analysis: Mapping[str, Any]) -> figure.Figure | None:
  """Drop over recall of our method, its headline rivals and references."""
  methods = _methods(analysis)
  headline = _headline(analysis, methods)
  if not headline:
    return None
  with figures.style():
    drawn = figures.new_figure(3.9)
    plot = drawn.add_subplot()
    plot.set_xlabel(f'{_LEARNING}, in unseen phrasings')
    ends = []
    for method in headline:
      look = _look(method, methods)
      front = analysis['fronts'][method]['mean']
      _draw_front(plot, front, look[0])
      _draw_points(plot, _points(analysis, method), look)
      name = '\n'.join(textwrap.wrap(analysis['labels'][method], 12))
      ends.append((name, tuple(front[-1]), look[0]))
    references = {
      method: point
      for method, point in analysis['references'].items()
      if point['recall_mean'] is not None
    }
    shown = [p for method in headline for p in _points(analysis, method)]
    is_log = _set_limits(plot, [*shown, *references.values()])
    scale = ' (log scale above 1%)' if is_log else ''
    plot.set_title(analysis['lost'] + scale, color=_SOFT, fontweight='normal')
    for method, point in references.items():
      _draw_points(plot, [point], ('ink', 'X'))
      plot.annotate(
        f'{analysis["labels"][method]}\n(no training)',
        (point['recall_mean'], point['drop_mean']),
        xytext=(0, 9),
        textcoords='offset points',
        ha='center',
        fontsize=8,
      )
    figures.label_ends(plot, ends, gap=0.12)
    target = analysis['equal_learning']['target']
    if target is not None:
      plot.axvline(target, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)))
      left = target > sum(plot.get_xlim()) / 2  # where more room is
      plot.annotate(
        f'equal learning: {table.share(target)}',
        (target, 0.97),
        xytext=(-5 if left else 5, 0),
        xycoords=('data', 'axes fraction'),
        textcoords='offset points',
        ha='right' if left else 'left',
        va='top',
        color=_SOFT,
        fontsize=8,
      )
  return drawn


def draw_others(analysis: Mapping[str, Any]) -> figure.Figure | None:
  """The other methods in small plots, each with our front in gray."""
  methods = _methods(analysis)
  headline = _headline(analysis, methods)
  others = [method for method in methods if method not in headline]
  if not others:
    return None
  rows = -(-len(others) // _COLUMNS)
  with figures.style():
    drawn = figures.new_figure(0.4 + 1.6 * rows)
    plots = drawn.subplots(
      rows, _COLUMNS, sharex=True, sharey=True, squeeze=False
    ).ravel()
    for plot, method in zip(plots, others, strict=False):
      if analysis['own'] in headline:
        own = analysis['fronts'][analysis['own']]['mean']
        _draw_front(plot, own, 'pale')
      look = _look(method, methods)
      _draw_front(plot, analysis['fronts'][method]['mean'], look[0])
      _draw_points(plot, _points(analysis, method), look)
      name = '\n'.join(textwrap.wrap(analysis['labels'][method], 20))
      plot.set_title(name, fontsize=8, color=figures.COLORS[look[0]])
      plot.tick_params(labelsize=8)
      plot.locator_params(axis='x', nbins=4)
    _set_limits(plots[0], [p for m in methods for p in _points(analysis, m)])
    for plot in plots[len(others) :]:
      plot.set_visible(False)
    # Where a column is one plot shorter, the plot above shows the ticks.
    for plot in plots[len(others) - _COLUMNS : len(others)]:
      plot.tick_params(labelbottom=True)
    drawn.supxlabel(_LEARNING, fontsize=8, color=_SOFT)
    drawn.supylabel(analysis['lost'], fontsize=8, color=_SOFT)
  return drawn


def draw_equal_learning(analysis: Mapping[str, Any]) -> figure.Figure | None:
  """Bars of the drop at the target recall, with seeds and deviations."""
  methods = analysis['equal_learning']['methods']
  names = sorted(
    (name for name in methods if methods[name]['drop_mean'] is not None),
    key=lambda name: methods[name]['drop_mean'],
  )
  if not names:
    return None
  with figures.style():
    drawn = figures.new_figure(0.6 + 0.3 * len(names))
    plot = drawn.add_subplot()
    for y, name in enumerate(names):
      method, own = methods[name], name == analysis['own']
      drops = [drop for drop in method['drops'].values() if drop is not None]
      deviation = method['drop_std'] or 0.0
      plot.barh(
        y,
        method['drop_mean'],
        height=0.66,
        color=figures.COLORS['blue' if own else 'pale'],
        hatch='' if method['reached'] else '////',
        xerr=deviation or None,
        error_kw={'ecolor': _INK, 'elinewidth': 1},
      )
      plot.scatter(
        drops, [y] * len(drops), s=9, color=_PAGE, edgecolor=_INK,
        linewidth=0.7, zorder=3,
      )  # fmt: skip
      plot.annotate(
        table.spread(method['drop_mean'], method['drop_std']),
        (max([method['drop_mean'] + deviation, 0.0, *drops]), y),
        xytext=(6, 0),
        textcoords='offset points',
        va='center',
        fontweight='bold' if own else 'normal',
      )
    labels = [
      '\n'.join(textwrap.wrap(analysis['labels'][name], 22)) for name in names
    ]
    plot.set_yticks(range(len(names)), labels)
    plot.set_ylim(len(names) - 0.4, -0.6)
    plot.tick_params(axis='y', length=0, labelcolor=_INK)
    plot.grid(visible=False, axis='y')
    plot.axvline(0, color=_SOFT, linewidth=1)
    low, high = plot.get_xlim()
    plot.set_xlim(low, high + 0.25 * (high - low))  # room for the numbers
    _percent(plot.xaxis)
    plot.set_xlabel(analysis['lost'])
  return drawn


def draw_panel(panel: Mapping[str, Any], lost: str) -> figure.Figure | None:
  """An ablation: fronts, or recall and drop (`lost`) over a number."""
  lines = panel['lines']
  points = [point for line in lines for point in line['points']]
  if all(point['recall_mean'] is None for point in points):
    return None
  looks = [
    _look(line['key'], [line['key'] for line in lines]) for line in lines
  ]
  with figures.style():
    if panel['kind'] == 'front':
      drawn = figures.new_figure(3.2)
      plot = drawn.add_subplot()
      plot.axhline(0, color=_SOFT, linewidth=0.8)
      plot.set_xlabel(_LEARNING)
      plot.set_ylabel(lost)
      _percent(plot.xaxis, plot.yaxis)
      for line, look in zip(lines, looks, strict=True):
        _draw_front(plot, line['front'], look[0])
        _draw_points(plot, line['points'], look, line['label'])
    else:
      drawn = _draw_sweep(panel, lost, looks)
    if len(lines) > 1:
      drawn.legend(loc='outside upper left', ncols=2)
  return drawn


def _draw_sweep(
  panel: Mapping[str, Any], lost: str, looks: Sequence[Look]
) -> figure.Figure:
  drawn = figures.new_figure(3.8)
  plots = drawn.subplots(2, 1, sharex=True)
  places = sorted({p['x'] for line in panel['lines'] for p in line['points']})
  for plot, what in zip(plots, ('recall', 'drop'), strict=True):
    plot.set_title(_LEARNING if what == 'recall' else lost)
    _percent(plot.yaxis)
    for line, look in zip(panel['lines'], looks, strict=True):
      points = [p for p in line['points'] if p['recall_mean'] is not None]
      xs = [point['x'] for point in points]
      _draw_means(
        plot,
        (xs, [point[f'{what}_mean'] for point in points]),
        (None, [point[f'{what}_std'] or 0 for point in points]),
        [(x, y) for x, p in zip(xs, points, strict=True) for y in p[what]],
        look,
        line['label'] if what == 'recall' else '_',
        '-',
      )
  plots[1].axhline(0, color=_SOFT, linewidth=0.8)
  plots[1].set_xlabel(panel['x_label'])
  if places[0] > 0:
    plots[1].set_xscale('log')
    plots[1].set_xticks(places, [f'{place:g}' for place in places])
    plots[1].minorticks_off()
  return drawn


def _methods(analysis: Mapping[str, Any]) -> list[str]:
  return [name for name, front in analysis['fronts'].items() if front['mean']]


def _headline(
  analysis: Mapping[str, Any], methods: Sequence[str]
) -> Sequence[str]:
  first = [analysis['own'], *analysis['headline']]
  # Without any of the headline, the others are what there is to show.
  return [method for method in methods if method in first] or methods


def _points(analysis: Mapping[str, Any], method: str) -> list[Point]:
  return [p for p in analysis['points'] if p['method'] == method]


def _look(key: Hashable, keys: Sequence[Hashable]) -> Look:
  """Colour and marker, different for up to 14 keys."""
  place = keys.index(key)
  return _COLORS[place % len(_COLORS)], _MARKERS[place % len(_MARKERS)]


def _draw_front(
  plot: axes.Axes, front: Sequence[Sequence[float]], color: str
) -> None:
  """Draws a front, linear in recall and drop even on a logarithmic axis."""
  if not front:
    return
  recall, drop = np.asarray(front, float).T
  places = np.arange(len(recall))
  dense = np.linspace(0, len(recall) - 1, 40 * (len(recall) - 1) + 1)
  plot.plot(
    np.interp(dense, places, recall),
    np.interp(dense, places, drop),
    color=figures.COLORS[color],
    linewidth=1.5,
  )


def _draw_points(
  plot: axes.Axes, points: Sequence[Point], look: Look, label: str = '_'
) -> None:
  """Draws means over seeds with deviations, and the seeds faintly."""
  points = [point for point in points if point['recall_mean'] is not None]
  both = ('recall', 'drop')
  _draw_means(
    plot,
    [[point[f'{what}_mean'] for point in points] for what in both],
    [[point[f'{what}_std'] or 0 for point in points] for what in both],
    [
      place
      for point in points
      for place in zip(point['recall'], point['drop'], strict=True)
    ],
    look,
    label,
  )


def _draw_means(
  plot: axes.Axes,
  means: Sequence[Sequence[float]],
  deviations: Sequence[Sequence[float] | None],
  seeds: Sequence[tuple[float, float]],
  look: Look,
  label: str,
  line: str = 'none',
) -> None:
  color, marker = figures.COLORS[look[0]], look[1]
  if len(seeds) > len(means[0]):
    plot.scatter(
      [x for x, _ in seeds], [y for _, y in seeds], s=8, color=color,
      alpha=0.3, linewidth=0, marker=marker, label='_',
    )  # fmt: skip
  (xs, ys), (x_deviations, y_deviations) = means, deviations
  plot.errorbar(
    xs, ys, y_deviations, x_deviations, color=color, marker=marker,
    linestyle=line, label=label, markersize=5, markeredgecolor=_PAGE,
    markeredgewidth=0.5, elinewidth=0.9,
  )  # fmt: skip


def _set_limits(plot: axes.Axes, points: Sequence[Point]) -> bool:
  """Sets limits and scales for all points; returns whether y is logarithmic.

  Small drops vanish on a linear axis next to large ones, so the axis is then
  logarithmic above 1% and linear below.
  """
  recalls = [recall for point in points for recall in point['recall']]
  drops = [drop for point in points for drop in point['drop']]
  most, least = max(drops), min(0.0, *drops)
  is_log = most > 0.15
  plot.axhline(0, color=_SOFT, linewidth=0.8)
  if is_log:
    plot.set_yscale('symlog', linthresh=0.01, linscale=0.6)
    ticks = (-0.3, -0.1, -0.03, -0.01, 0, 0.01, 0.03, 0.1, 0.3, 1)
    plot.set_yticks([tick for tick in ticks if tick >= 1.3 * least])
    plot.minorticks_off()
    plot.set_ylim(min(1.3 * least, -0.003), 1.25 * most)
  else:
    room = 0.07 * (most - least) or 0.01
    plot.set_ylim(least - room, most + room)
  plot.set_xlim(0, min(1.02, max(recalls) + 0.04))
  _percent(plot.xaxis, plot.yaxis)
  return is_log


def _percent(*axes_: Any) -> None:
  for axis in axes_:
    axis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f'{100 * v:g}%'))
