"""Ablations: parts of a sweep's table that answer one question each.

REPORT['panels'] names them. What a panel may say, all optional:

- `title` and `text`: what it is about, in words.
- `kind`: 'front' (lines of drop over recall) or 'sweep' (recall and drop over
  a number or a choice). Unless given, 'sweep' where x is a number and has at
  least three values.
- `x`: the column or setting that places a point, such as 'method.t'; the tag
  `x` unless given. `x_label`: what to call it. `log_x`: False for a plain axis.
- `lines`: the column or setting that tells lines apart; 'method', or the x
  where a panel of fronts has one method only. `line_labels`: what to call them.
- `facets`: in a panel of fronts, the column or setting by which it falls into
  pictures side by side; x, where that does not tell lines apart and has two to
  four values. None keeps all in one.
- `order`: lines from the best to the worst, as expected. The report says
  whether dominated areas, and drops at the highest recall that these lines
  reach with every seed, came out in this order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smft_jax.sweep.pareto import fronts as pareto_fronts
from smft_jax.sweep.pareto import table as pareto_table
from smft_jax.sweep.pareto import words as pareto_words

KINDS = ('front', 'sweep')


def panels(
  rows: Iterable[pareto_table.Row], report: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
  """The panels that REPORT or rows name, but for the main one.

  Args:
    rows: of the table.
    report: REPORT of the sweep's config; `panels` and `labels` are read.

  Returns:
    By name: title, text, kind, x_label, log_x, order, order_labels, points (how
    many) and facets, a list of dicts with value (None where there is one
    facet), recall (the highest that the lines of `order`, or else all lines,
    reach with every seed) and lines: dicts with key, label, points
    (`table.collapse`, in a sweep from left to right), front (of the
    means), hypervolume, drop_mean and drop_std at that recall, seeds (how many
    reach it) and best_recall_mean.

  Raises:
    ValueError: for a kind that there is not.
  """
  by_panel: dict[str, list[pareto_table.Row]] = {
    name: [] for name in report.get('panels') or {} if name != pareto_table.MAIN
  }
  for row in rows:
    for name in pareto_table.panels_of(row):
      if name != pareto_table.MAIN:
        by_panel.setdefault(name, []).append(row)
  return {name: _panel(name, by_panel[name], report) for name in by_panel}


def _panel(
  name: str, rows: Sequence[pareto_table.Row], report: Mapping[str, Any]
) -> dict[str, Any]:
  said = dict((report.get('panels') or {}).get(name) or {})
  x = said.get('x', 'x')
  places = dict.fromkeys(pareto_table.value(row, x) for row in rows)
  numeric = all(pareto_table.number(place) is not None for place in places)
  kind = said.get('kind') or (
    'sweep' if numeric and len(places) > 2 else 'front'
  )
  if kind not in KINDS:
    raise ValueError(
      f'panel {name!r} has the kind {kind!r}; kinds are {", ".join(KINDS)}'
    )
  alone = kind == 'front' and len({row.get('method') for row in rows}) < 2
  lines = said.get('lines', x if alone else 'method')
  facets = None
  if kind == 'front':
    apart = lines != x and 2 <= len(places) <= 4
    facets = said.get('facets', x if apart else None)
  how = (str(kind), str(x), lines)
  labels = {
    **(report.get('labels') or {}),
    **(said.get('line_labels') or {}),
  }
  by_facet = pareto_table.group(
    rows, lambda row: pareto_table.value(row, facets) if facets else None
  )
  return {
    'title': said.get('title') or pareto_words.capital(_plain(name)),
    'text': said.get('text', ''),
    'kind': kind,
    'x_label': said.get('x_label') or _plain(x.split('.')[-1]),
    'log_x': said.get('log_x', True),
    'order': list(said.get('order', ())),
    'order_labels': [_label(key, labels) for key in said.get('order', ())],
    'points': len(rows),
    'facets': [
      _facet(value, group, said, how, labels)
      for value, group in sorted(by_facet.items(), key=lambda i: _rank(i[0]))
    ],
  }


def _facet(
  value: Any,
  rows: Sequence[pareto_table.Row],
  said: Mapping[str, Any],
  how: tuple[str, str, Any],
  labels: Mapping[str, str],
) -> dict[str, Any]:
  """One picture of a panel; the whole panel in most cases."""
  kind, x, lines = how
  by_line = pareto_table.group(rows, lambda row: pareto_table.value(row, lines))
  order = [key for key in said.get('order', ()) if key in by_line]
  keys = dict.fromkeys([*order, *by_line])
  fronts = {key: pareto_table.fronts(by_line[key]) for key in keys}
  recall = pareto_table.common_reach(fronts, order or fronts)
  found = []
  for key in keys:
    points = pareto_table.collapse(by_line[key])
    if kind == 'sweep':
      points = _along(by_line[key], x)
    drops = [
      pareto_fronts.drop_at(front, recall)
      for front in fronts[key].values()
      if recall is not None
    ]
    best = [front[-1][0] for front in fronts[key].values()]
    found.append(
      {
        'key': key,
        'label': _label(key, labels),
        'points': points,
        'front': pareto_table.mean_front(points, by_line[key]),
        'hypervolume': pareto_table.hypervolume(fronts[key]),
        'drop_mean': pareto_table.mean(drops),
        'drop_std': pareto_table.std(drops),
        'seeds': sum(drop is not None for drop in drops),
        'best_recall_mean': pareto_table.mean(best),
      }
    )
  return {'value': value, 'recall': recall, 'lines': found}


def _along(rows: Iterable[pareto_table.Row], x: str) -> list[dict[str, Any]]:
  """One point for each x; settings that share it are averaged."""
  points = [
    {**point, 'x': place}
    for place, group in pareto_table.group(
      rows, lambda row: pareto_table.value(row, x)
    ).items()
    if place is not None
    for point in pareto_table.collapse(group, lambda row: None)
  ]
  return sorted(points, key=lambda point: _rank(point['x']))


def _rank(value: Any) -> tuple[bool, float]:
  """Numbers by size; all else after them, in the order it appeared."""
  number = pareto_table.number(value)
  return number is None, number or 0.0


def _label(key: Any, labels: Mapping[str, str]) -> str:
  return labels.get(key) or pareto_words.label(str(key), {})


def _plain(name: str) -> str:
  return name.replace('_', ' ')
