"""Pictures of a comparison, as PNG files.

All are drawn for 720 pixels of width, at twice that resolution, from what
`analysis.analyse` found and nothing else, so that the same table gives the same
bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import pathlib
import re
from typing import Any

from matplotlib import axes
from matplotlib import figure
from matplotlib import style

from smft_jax.sweep.pareto import drawing
from smft_jax.sweep.pareto import panel_figures as pareto_panel_figures
from smft_jax.sweep.pareto import words as pareto_words


def write_figures(
  analysis: Mapping[str, Any], workdir: str | pathlib.Path
) -> dict[str, str]:
  """Writes all pictures that the analysis has something for.

  Args:
    analysis: as `analysis.analyse` gives it.
    workdir: where to; it must exist.

  Returns:
    File names by picture: 'pareto', 'equal_learning', and 'panel NAME' for
    each ablation.
  """
  wanted: dict[str, tuple[str, Callable[..., figure.Figure], Any]] = {}
  if any(front['mean'] for front in analysis['fronts'].values()):
    wanted['pareto'] = 'pareto.png', draw_pareto, analysis
  if analysis['equal_learning']['methods']:
    wanted['equal_learning'] = (
      'equal_learning.png',
      draw_equal_learning,
      analysis,
    )
  for name, panel in analysis['panels'].items():
    if pareto_panel_figures.has_points(panel):
      file = f'panel_{re.sub(r"[^0-9A-Za-z_.-]", "_", name)}.png'
      wanted[f'panel {name}'] = file, pareto_panel_figures.draw_panel, panel
  with style.context(['default', drawing.STYLE]):
    for file, draw, what in wanted.values():
      # Software would be the version of the library that draws.
      draw(what).savefig(
        pathlib.Path(workdir) / file,
        dpi=drawing.DPI,
        metadata={'Software': None},
      )
  return {name: file for name, (file, _, _) in wanted.items()}


def draw_pareto(analysis: Mapping[str, Any]) -> figure.Figure:
  """Drop over recall: the headline large, each other rival against our own.

  Args:
    analysis: as `analysis.analyse` gives it, with at least one front.
  """
  fronts = analysis['fronts']
  methods = [method for method in fronts if fronts[method]['mean']]
  first = [analysis['own'], *analysis['headline']]
  # Without any of the headline, the others are what there is to show.
  headline = [method for method in methods if method in first] or methods
  others = [method for method in methods if method not in headline]
  columns = 4 if len(others) > 6 else 3
  rows = -(-len(others) // columns)
  below = 0.35 + 2.2 * rows if rows else 0.0
  picture = drawing.new_figure(4.5 + below)
  if not others:
    _draw_headline(picture.add_subplot(), analysis, methods, headline)
    return picture
  # Parts of their own: names at the right of one do not narrow the other.
  parts = picture.subfigures(2, 1, squeeze=False, height_ratios=[4.5, below])
  top, bottom = parts[:, 0]
  _draw_headline(top.add_subplot(), analysis, methods, headline)
  has_own = analysis['own'] in headline
  own = analysis['labels'][analysis['own']]
  bottom.suptitle(
    f'The others, each against {own} (gray)' if has_own else 'The others',
    x=0.01,
    ha='left',
    fontsize=11,
    fontweight='bold',
  )
  shared: axes.Axes | None = None
  for place, method in enumerate(others):
    at = bottom.add_subplot(
      rows, columns, place + 1, sharex=shared, sharey=shared
    )
    if has_own:
      front = fronts[analysis['own']]['mean']
      drawing.draw_front(at, front, drawing.SOFT, thin=True)
    color, _ = look = drawing.look(method, methods)
    drawing.draw_front(at, fronts[method]['mean'], color)
    drawing.draw_points(at, _points(analysis, method), look)
    at.set_title(
      drawing.wrap(analysis['labels'][method], 25), fontsize=9, color=color
    )
    at.axhline(0, color=drawing.SOFT, linewidth=0.8)
    at.tick_params(
      labelsize=8,
      labelleft=place % columns == 0,
      labelbottom=place + columns >= len(others),
    )
    if shared is None:
      shared = at
      _plane(at, [point for m in methods for point in _points(analysis, m)])
  return picture


def _draw_headline(
  at: axes.Axes,
  analysis: Mapping[str, Any],
  methods: Sequence[str],
  headline: Sequence[str],
) -> None:
  """The methods that set the target, and the references beside them."""
  at.set_title('Learning against forgetting (best: far right, low)')
  at.set_xlabel(drawing.LEARNING)
  at.axhline(0, color=drawing.SOFT, linewidth=0.8)
  shown = [point for m in headline for point in _points(analysis, m)]
  ends = []
  for method in headline:
    color, _ = look = drawing.look(method, methods)
    front = analysis['fronts'][method]['mean']
    drawing.draw_front(at, front, color)
    drawing.draw_points(at, _points(analysis, method), look)
    ends.append((analysis['labels'][method], front[-1], color))
  references = {
    method: point
    for method, point in analysis['references'].items()
    if point['recall_mean'] is not None
  }
  is_log = _plane(at, [*shown, *references.values()])
  scale = ' (log scale above 1%)' if is_log else ''
  at.set_ylabel(f'{drawing.FORGETTING}{scale}')
  for method, point in references.items():
    place = point['recall_mean'], point['drop_mean']
    drawing.draw_mean(
      at,
      place,
      (point['recall_std'], point['drop_std']),
      (drawing.INK, '*'),
      size=130,
    )
    at.annotate(
      f'{analysis["labels"][method]}\n(no training)',
      place,
      xytext=(0, 13),
      textcoords='offset points',
      ha='center',
      fontsize=8.5,
    )
  drawing.label_ends(at, ends)
  target = analysis['equal_learning']['target']
  if target is not None:
    dashes = (0, (4, 3))
    at.axvline(target, color=drawing.SOFT, linewidth=1, linestyle=dashes)
    # To the wider side, between the rivals above and our own below.
    left = target > sum(at.get_xlim()) / 2
    at.annotate(
      f'equal learning: {pareto_words.share(target)}',
      (target, 0.62),
      xytext=(-5 if left else 5, 0),
      xycoords=('data', 'axes fraction'),
      textcoords='offset points',
      ha='right' if left else 'left',
      va='center',
      color=drawing.SOFT,
      fontsize=9,
    )


def draw_equal_learning(analysis: Mapping[str, Any]) -> figure.Figure:
  """Bars of the drop at the target recall, the least on top.

  Args:
    analysis: as `analysis.analyse` gives it, with a target.
  """
  table = analysis['equal_learning']
  methods = table['methods']
  reached = [m for m in methods if methods[m]['drop_mean'] is not None]
  reached.sort(key=lambda name: methods[name]['drop_mean'])
  names = [*reached, *(name for name in methods if name not in reached)]
  picture = drawing.new_figure(1.0 + 0.34 * len(names))
  at = picture.add_subplot()
  share = pareto_words.share(table['target'])
  at.set_title(f'Lost at equal learning: {share} of the new facts recalled')
  for y, name in enumerate(names):
    _draw_bar(at, y, methods[name], name == analysis['own'])
  labels = [drawing.wrap(analysis['labels'][name], 32) for name in names]
  at.set_yticks(range(len(names)), labels, color=drawing.INK)
  for text, name in zip(at.get_yticklabels(), names, strict=True):
    text.set_fontweight('bold' if name == analysis['own'] else 'normal')
  at.set_ylim(len(names) - 0.4, -0.6)
  at.tick_params(axis='y', length=0)
  at.grid(visible=False, axis='y')
  at.axvline(0, color=drawing.SOFT, linewidth=1)
  low, high = at.get_xlim()
  at.set_xlim(low, high + 0.2 * (high - low))  # room for the numbers
  drawing.percent_axis(at.xaxis)
  at.set_xlabel(drawing.FORGETTING)
  return picture


def _draw_bar(
  at: axes.Axes, y: int, method: Mapping[str, Any], own: bool
) -> None:
  """One method's drop with its deviation, its seeds and its number."""
  color, end = drawing.SOFT, 0.0
  if method['drop_mean'] is None:
    best = pareto_words.share(method['best_recall_mean'])
    text = f'does not get there: best recall {best}'
  else:
    drops = [drop for drop in method['drops'].values() if drop is not None]
    spread = method['drop_std'] or 0.0
    end = max([method['drop_mean'] + spread, 0.0, *drops])
    at.barh(
      y,
      method['drop_mean'],
      height=0.66,
      color=drawing.COLORS[0] if own else drawing.PALE,
      hatch=None if method['reached'] else '////',
      edgecolor='white',
      linewidth=0,
      xerr=spread or None,
      error_kw={'ecolor': drawing.INK, 'elinewidth': 1.2},
    )
    at.scatter(
      drops, [y] * len(drops), s=14, color='white', edgecolor=drawing.INK,
      linewidth=0.8, zorder=3,
    )  # fmt: skip
    color = drawing.COLORS[0] if own else drawing.INK
    text = pareto_words.spread(method['drop_mean'], method['drop_std'])
    if method['seeds'] < method['seeds_run']:
      text += f'  ({method["seeds"]} of {method["seeds_run"]} seeds)'
  at.annotate(
    text,
    (end, y),
    xytext=(7, 0),
    textcoords='offset points',
    va='center',
    fontsize=9,
    color=color,
    fontweight='bold' if own else 'normal',
  )


def _points(
  analysis: Mapping[str, Any], method: str
) -> list[Mapping[str, Any]]:
  return [p for p in analysis['points'] if p['method'] == method]


def _plane(at: axes.Axes, points: Sequence[Mapping[str, Any]]) -> bool:
  """Limits and scales that suit all points and their seeds.

  Small drops vanish on a plain axis where others are large, so that one is
  logarithmic above 1% and plain below. Returns whether it is.
  """
  recalls = [recall for point in points for recall in point['recall']]
  drops = [drop for point in points for drop in point['drop']]
  most, least = max(drops), min(0.0, *drops)
  is_log = most > 0.15
  if is_log:
    at.set_yscale('symlog', linthresh=0.01, linscale=0.6)
    ticks = (-0.3, -0.1, -0.03, -0.01, 0, 0.01, 0.03, 0.1, 0.3, 1)
    at.set_yticks([tick for tick in ticks if tick >= 1.3 * least])
    at.minorticks_off()
    at.set_ylim(min(1.3 * least, -0.003), 1.25 * most)
  else:
    room = 0.07 * (most - least) or 0.01
    at.set_ylim(least - room, most + room)
  at.set_xlim(0, min(1.02, max(recalls) + 0.04))
  drawing.percent_axis(at.xaxis)
  drawing.percent_axis(at.yaxis)  # a scale brings its own way of writing
  return is_log
