"""Ablations: parts of a sweep's table that answer one question each.

REPORT['panels'] describes them. All keys of a panel are optional:

- `title` and `text`: the question, in words.
- `kind`: 'front' (drop over recall, in lines) or 'sweep' (recall and drop over
  a number). The default is 'sweep' if x is numeric with at least three values,
  else 'front'.
- `x`: the column or setting that places a point, such as 'method.t'; by default
  the tag `x`. `x_label`: its name.
- `lines`: the column or setting that makes lines; by default 'method', or x in
  a panel of fronts with one method. `line_labels`: their names.
- `order`: lines to show first, in this order. Drops are read off at the highest
  recall that these lines reach with every seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smft_jax.sweep.pareto import fronts as pareto_fronts
from smft_jax.sweep.pareto import table

KINDS = ('front', 'sweep')


def panels(
  rows: Iterable[table.Row], report: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
  """Returns the panels that REPORT or rows name, except the main one.

  Args:
    rows: Rows of the table.
    report: REPORT of the sweep's config; reads `panels` and `labels`.

  Returns:
    By name: title, text, kind, x_label, recall (the highest that the lines of
    `order`, or else all lines, reach with every seed) and lines: dicts with
    key, label, points (`table.collapse`, in a sweep by x), front (of the
    means), hypervolume, drop_mean and drop_std at that recall, seeds (how many
    reach it) and best_recall_mean.

  Raises:
    ValueError: If a kind is unknown, or a sweep is over something other than
      numbers.
  """
  by_panel: dict[str, list[table.Row]] = {
    name: [] for name in report.get('panels') or {} if name != table.MAIN
  }
  for row in rows:
    for name in table.panels_of(row):
      if name != table.MAIN:
        by_panel.setdefault(name, []).append(row)
  return {name: _panel(name, by_panel[name], report) for name in by_panel}


def _panel(
  name: str, rows: Sequence[table.Row], report: Mapping[str, Any]
) -> dict[str, Any]:
  given = dict((report.get('panels') or {}).get(name) or {})
  x = str(given.get('x', 'x'))
  places = dict.fromkeys(table.value(row, x) for row in rows)
  numbers = [table.number(place) for place in places]
  numeric = len(places) > 2 and None not in numbers
  kind = given.get('kind') or ('sweep' if numeric else 'front')
  if kind not in KINDS:
    raise ValueError(
      f'panel {name!r} has kind {kind!r}; kinds are {", ".join(KINDS)}'
    )
  if kind == 'sweep' and any(isinstance(place, str) for place in places):
    raise ValueError(f'panel {name!r} is a sweep, so its x must be numbers')
  alone = kind == 'front' and len({row.get('method') for row in rows}) < 2
  lines = str(given.get('lines', x if alone else 'method'))
  by_line = table.group(rows, lambda row: table.value(row, lines))
  order = [key for key in given.get('order', ()) if key in by_line]
  keys = dict.fromkeys([*order, *by_line])
  fronts = {key: table.fronts(by_line[key]) for key in keys}
  recall = table.common_reach(fronts, order or fronts)
  along = x if kind == 'sweep' else ''
  labels = {**(report.get('labels') or {}), **(given.get('line_labels') or {})}
  return {
    'title': given.get('title') or _plain(name).capitalize(),
    'text': given.get('text', ''),
    'kind': kind,
    'x_label': given.get('x_label') or _plain(x.split('.')[-1]),
    'recall': recall,
    'lines': [
      {
        'key': key,
        'label': table.label(str(key), labels),
        **_line(by_line[key], fronts[key], recall, along),
      }
      for key in keys
    ],
  }


def _line(
  rows: Sequence[table.Row],
  fronts: table.SeedFronts,
  recall: float | None,
  x: str,
) -> dict[str, Any]:
  """What a panel says about a line; x is empty in a panel of fronts."""
  points = _along(rows, x) if x else table.collapse(rows)
  drops = [
    pareto_fronts.drop_at(front, recall)
    for front in fronts.values()
    if recall is not None
  ]
  best = [front[-1][0] for front in fronts.values()]
  return {
    'points': points,
    'front': table.mean_front(points, rows),
    'hypervolume': table.hypervolume(fronts),
    'drop_mean': table.mean(drops),
    'drop_std': table.std(drops),
    'seeds': sum(drop is not None for drop in drops),
    'best_recall_mean': table.mean(best),
  }


def _along(rows: Iterable[table.Row], x: str) -> list[dict[str, Any]]:
  """One point for each x; averages the settings that share it."""
  groups = table.group(rows, lambda row: table.value(row, x))
  return [
    {**point, 'x': place}
    for place in sorted(place for place in groups if place is not None)
    for point in table.collapse(groups[place], lambda row: None)
  ]


def _plain(name: str) -> str:
  return name.replace('_', ' ')
