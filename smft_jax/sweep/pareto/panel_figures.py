"""Pictures of ablations: fronts side by side, or measures over a choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib import axes
from matplotlib import figure

from smft_jax.sweep.pareto import drawing
from smft_jax.sweep.pareto import words as pareto_words

_MEASURES = {'recall': 'new facts recalled', 'drop': drawing.FORGETTING}


def has_points(panel: Mapping[str, Any]) -> bool:
  """Whether a panel of `analysis.analyse` has anything to draw."""
  return any(
    point['recall_mean'] is not None
    for facet in panel['facets']
    for line in facet['lines']
    for point in line['points']
  )


def draw_panel(panel: Mapping[str, Any]) -> figure.Figure:
  """Draws an ablation as its kind asks for.

  Args:
    panel: one of `analysis.analyse`'s that `has_points`.
  """
  if panel['kind'] == 'front':
    return _draw_fronts(panel)
  places = [
    point['x']
    for facet in panel['facets']
    for line in facet['lines']
    for point in line['points']
  ]
  if any(isinstance(place, str) for place in places):
    return _draw_choices(panel, list(dict.fromkeys(places)))
  return _draw_curves(panel, sorted(set(places)))


def _draw_fronts(panel: Mapping[str, Any]) -> figure.Figure:
  """Drop over recall, a picture for each facet."""
  facets = panel['facets']
  picture = drawing.new_figure(4.0)
  keys = list(dict.fromkeys(line['key'] for f in facets for line in f['lines']))
  looks = {}
  first: axes.Axes | None = None
  for place, facet in enumerate(facets):
    at = picture.add_subplot(
      1, len(facets), place + 1, sharex=first, sharey=first
    )
    at.set_xlabel('new facts recalled' if len(facets) > 1 else drawing.LEARNING)
    at.axhline(0, color=drawing.SOFT, linewidth=0.8)
    for line in facet['lines']:
      look = looks[line['label']] = drawing.look(line['key'], keys)
      if line['front']:
        drawing.draw_front(at, line['front'], look[0])
      drawing.draw_points(at, line['points'], look)
    if facet['value'] is not None:
      at.set_title(f'{panel["x_label"]} = {facet["value"]}')
    if first is None:
      first = at
      at.set_ylabel(drawing.FORGETTING)
      drawing.percent_axis(at.xaxis)
      drawing.percent_axis(at.yaxis)
    else:
      at.tick_params(labelleft=False)
  drawing.legend(picture, looks)
  return picture


def _draw_curves(panel: Mapping[str, Any], places: list) -> figure.Figure:
  """Recall above drop over a number."""
  lines = panel['facets'][0]['lines']
  keys = [line['key'] for line in lines]
  picture = drawing.new_figure(4.6)
  top = picture.add_subplot(2, 1, 1)
  bottom = picture.add_subplot(2, 1, 2, sharex=top)
  for at, (what, title) in zip((top, bottom), _MEASURES.items(), strict=True):
    at.set_title(title)
    drawing.percent_axis(at.yaxis)
    for line in lines:
      look = drawing.look(line['key'], keys)
      points = [p for p in line['points'] if p['recall_mean'] is not None]
      x = [point['x'] for point in points]
      means = [point[f'{what}_mean'] for point in points]
      at.plot(x, means, color=look[0], linewidth=2)
      for point in points:
        _draw_seeds(at, [point['x']] * len(point[what]), point[what], look)
        place = point['x'], point[f'{what}_mean']
        drawing.draw_mean(at, place, (None, point[f'{what}_std']), look)
  bottom.axhline(0, color=drawing.SOFT, linewidth=0.8)
  bottom.set_xlabel(panel['x_label'])
  top.tick_params(labelbottom=False)
  if panel['log_x'] and places[0] > 0:
    bottom.set_xscale('log')
    bottom.set_xticks(places, [f'{place:g}' for place in places])
    bottom.minorticks_off()
  _legend(picture, lines, keys)
  return picture


def _draw_choices(panel: Mapping[str, Any], places: list) -> figure.Figure:
  """Recall beside drop, a row for each choice."""
  lines = panel['facets'][0]['lines']
  keys = [line['key'] for line in lines]
  picture = drawing.new_figure(1.4 + 0.45 * len(places) * len(lines) ** 0.5)
  left = picture.add_subplot(1, 2, 1)
  right = picture.add_subplot(1, 2, 2, sharey=left)
  for at, (what, title) in zip((left, right), _MEASURES.items(), strict=True):
    at.set_title(title)
    drawing.percent_axis(at.xaxis)
    for order, line in enumerate(lines):
      look = drawing.look(line['key'], keys)
      for point in line['points']:
        if point['recall_mean'] is None:
          continue
        # Lines lie side by side, not on each other.
        y = places.index(point['x']) + 0.2 * (order - (len(lines) - 1) / 2)
        _draw_seeds(at, point[what], [y] * len(point[what]), look)
        place = point[f'{what}_mean'], y
        drawing.draw_mean(at, place, (point[f'{what}_std'], None), look)
        if len(lines) == 1:
          at.annotate(
            pareto_words.spread(point[f'{what}_mean'], point[f'{what}_std']),
            place,
            xytext=(0, 7),
            textcoords='offset points',
            ha='center',
            fontsize=9,
          )
    at.margins(x=0.15)
  left.set_yticks(
    range(len(places)),
    [drawing.wrap(str(place), 24) for place in places],
    color=drawing.INK,
  )
  left.set_ylabel(panel['x_label'])
  left.set_ylim(len(places) - 0.5, -0.5)
  right.tick_params(labelleft=False)
  right.axvline(0, color=drawing.SOFT, linewidth=0.8)
  _legend(picture, lines, keys)
  return picture


def _draw_seeds(at: axes.Axes, x: list, y: list, look: drawing.Look) -> None:
  if len(x) > 1:
    at.scatter(x, y, s=14, color=look[0], alpha=0.35, linewidth=0)


def _legend(picture: figure.Figure, lines: list, keys: list) -> None:
  """Names lines where there are several."""
  if len(lines) > 1:
    looks = {line['label']: drawing.look(line['key'], keys) for line in lines}
    drawing.legend(picture, looks)
