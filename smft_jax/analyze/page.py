"""Writes analysis.html: tables, plots and heat maps of an analysis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from smft_jax.analyze import analysis
from smft_jax.analyze import heat_map
from smft_jax.report import figures
from smft_jax.report import page
from smft_jax.store import atomic

_ROWS = {
  'base': 'no rows (the base)',
  'core_only': 'trained rows of its core set',
  'all_but_core': 'all other rows of its lesson',
  'lesson': 'all rows of its lesson',
  'run': 'all rows of the run',
}
_PLACES = {
  'inside': 'on names and values',
  'first': 'on the first word of one',
  'last': 'on the last word of one',
  'before': 'on the word before one',
}

# Keys of a fact's entry, their descriptions, and the paper's values.
_COUNTS = (
  ('core', 'core set', '100 to 500'),
  ('read_by_every_paraphrase', 'slots that every text reads', ''),
  ('core_read_at_the_answer', 'core slots read at the answer', ''),
  ('core_common', 'core slots that most background texts read', ''),
  ('lesson_rows', 'rows that its lesson changed', ''),
  ('core_trained', 'core slots that its lesson changed', ''),
  ('enough_rows_of_core', 'of these, enough to answer', '25 to 100'),
  ('enough_rows_of_lesson', "of the lesson's rows, enough to answer", ''),
)

# Rows changed by this many lessons or more are counted together.
_MANY = 6

# Colours and dashes of the first and second line of a plot.
_LOOKS = (('blue', ()), ('orange', (6, 3)))
_SHARES = {'show': page.percent, 'y_range': (0.0, 1.0)}


def write(
  workdir: pathlib.Path,
  numbers: Mapping[str, Any],
  maps: Sequence[heat_map.HeatMap],
) -> None:
  """Writes analysis.html.

  Args:
    workdir: Folder to write to.
    numbers: The content of analysis.json.
    maps: The heat maps to show.
  """
  found = summary(numbers)
  by_lessons = numbers['health']['overlap']['by_lessons']
  names = ['1 lesson', *(f'{n} lessons' for n in range(2, _MANY)), 'more']
  counts = by_lessons[: _MANY - 1]
  if len(by_lessons) >= _MANY:
    counts = [*counts, sum(by_lessons[_MANY - 1 :])]
  text = page.render(
    'analysis.html',
    title='smft_jax · analysis',
    headline=f'What {numbers["workdir"]} learned (seed {numbers["seed"]})',
    tiles=[(value, name) for name, value in found[:4]],
    summary=found[4:],
    numbers=numbers,
    counts=_counts(numbers['facts']),
    rows=_ROWS,
    kinds=analysis.KINDS,
    places=_PLACES,
    maps=maps,
    by_lessons=list(zip(names, counts, counts, strict=False)),
    plots=_plots(numbers),
  )
  atomic.write_text(workdir / 'analysis.html', text)


def summary(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Returns the main results as names and values, the most important first."""
  facts, health = numbers['facts'], numbers['health']
  core, trained, rows = (
    sum(fact[key] for fact in facts)
    for key in ('core', 'core_trained', 'lesson_rows')
  )
  rare, rare_trained = (
    sum(fact[key] - fact[f'{key}_common'] for fact in facts)
    for key in ('core', 'core_trained')
  )
  found = [
    ('slots in the core set of a fact (median)', _median(facts, 'core')),
    ('core slots that its lesson changed', _share(trained, core)),
  ]
  if 'answered' in numbers:
    share = f'{numbers["answered"]["core_only"]:.0%}'
    found.append(('questions answered with these rows alone', share))
  aligned = numbers['alignment']['core']['inside']
  if aligned is not None:
    name = f'core reads on names and values (chance {aligned["chance"]:.0%})'
    found.append((name, f'{aligned["share"]:.0%}'))
  name = 'core slots changed, leaving out those that most background texts read'
  found += [
    (name, _share(rare_trained, rare)),
    ('rows of a lesson that are core slots', _share(trained, rows)),
  ]
  lessons = _with(numbers.get('enough_for_lessons', ()), 'enough')
  if lessons:
    name = f'rows enough for a lesson, of {_median(lessons, "rows")} (medians)'
    found.append((name, _median(lessons, 'enough')))
  usage, before = health['usage'], np.mean(health['overlap']['seen_before'])
  return [
    *found,
    ('rows of a lesson that an earlier one changed (mean)', f'{before:.0%}'),
    ('slots read', f'{usage["usage"]:.1%}'),
    ('reads of the top 1% of slots', f'{usage["top_1_percent_share"]:.1%}'),
    ('divergence from uniform', f'{usage["kl_to_uniform"]:.2f} nats'),
    ('reads that moved to other slots', f'{health["drift"]:.2%}'),
  ]


def _counts(facts: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
  """Returns the paper's table: median, paper, quartiles, range, facts."""
  found: list[tuple[str, ...]] = []
  for key, name, paper in _COUNTS:
    values = [fact[key] for fact in _with(facts, key)]
    if values:
      low, first, half, third, high = (
        f'{value:g}' for value in np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
      )
      spread = (f'{first}–{third}', f'{low}–{high}')
      found.append((name, half, paper, *spread, str(len(values))))
  return found


def _plots(numbers: Mapping[str, Any]) -> dict[str, str]:
  """Plots the curves of an analysis, as SVG by name."""
  health = numbers['health']
  overlap, curve, t = health['overlap'], health['curve'], health['t']
  ranks = list(zip(curve['ranks'], curve['scores'], strict=True))
  found = {
    'scores': _plot(
      {'changed': _thin(ranks[:t]), 'not changed': _thin(ranks[t - 1 :])},
      x_label='rank of the slot in a step',
      y_label='mean score',
      show='{:.2g}'.format,
    ),
    'overlap': _plot(
      {
        'changed by an earlier lesson': enumerate(overlap['seen_before'], 1),
        'changed by a later lesson': enumerate(overlap['rewritten'], 1),
      },
      x_label='lesson',
      y_label="share of the lesson's rows",
      **_SHARES,
    ),
  }
  if 'by_rows' in numbers:
    found['enough'] = _plot(
      {
        f'rows of its {label}': zip(by['rows'], by['answered'], strict=True)
        for key, label in (('core', 'core set'), ('lesson', 'lesson'))
        if (by := numbers['by_rows'][key])
      },
      x_label='best rows put into the base',
      y_label='questions answered',
      log_x=True,
      **_SHARES,
    )
  return found


def _plot(lines: Mapping[str, Iterable[Any]], **settings: Any) -> str:
  """Plots points (x, y) by label."""
  series = [
    figures.Series(label=label, points=tuple(at), color=color, dashes=dashes)
    for (label, at), (color, dashes) in zip(lines.items(), _LOOKS, strict=True)
  ]
  label = f'{settings["y_label"]} by {settings["x_label"]}'
  return figures.svg(figures.line_chart(series, height=2.3, **settings), label)


def _thin(points: Sequence[tuple[float, float]]) -> tuple:
  """Keeps about 150 points, including the last."""
  return (*points[: -1 : max(1, len(points) // 150)], points[-1])


def _with(
  entries: Sequence[Mapping[str, Any]], key: str
) -> list[Mapping[str, Any]]:
  """Returns the entries that have a value."""
  return [entry for entry in entries if entry.get(key) is not None]


def _median(entries: Sequence[Mapping[str, Any]], key: str) -> str:
  return f'{np.median([entry[key] for entry in entries]):g}'


def _share(part: float, whole: float) -> str:
  return f'{part / whole:.0%}' if whole else 'none'
