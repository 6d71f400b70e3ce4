"""Rows of a sweep's table, brought together over seeds.

A row is what one finished point measured: `method`, `seed`, `settings` (what
the point set, by dotted key), `recall`, `recall_before`, `drop` and more, see
`MEASURES`. What was not measured is None or absent.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
import math
import statistics
from typing import Any

from smft_jax.sweep.pareto import fronts as pareto_fronts

Row = Mapping[str, Any]
SeedFronts = Mapping[str, list[pareto_fronts.Point]]  # by seed

MAIN = 'front'  # the panel in which methods are compared

# Measures that are averaged over seeds, beside recall and drop.
MEASURES = (
  'recall_seen',
  'f1',
  'answer_nll',
  'retention',
  'backward_transfer',
  'forward_transfer',
  'forgetting',
  'locality',
  'params_changed',
  'bytes_changed',
  'flops',
  'lesson_s',
  'wall_s',
)


def number(value: Any) -> float | None:
  """A finite number, or None for what is none.

  Example:
    >>> number(3), number(float('nan')), number(None), number('3')
    (3.0, None, None, None)
  """
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return None
  return float(value) if math.isfinite(value) else None


def mean(values: Iterable[Any]) -> float | None:
  """The mean of what was measured; None where nothing was."""
  known = [v for v in map(number, values) if v is not None]
  return statistics.fmean(known) if known else None


def std(values: Iterable[Any]) -> float | None:
  """The sample standard deviation (ddof 1); None for fewer than two values."""
  known = [v for v in map(number, values) if v is not None]
  return statistics.stdev(known) if len(known) > 1 else None


def value(row: Row, key: str) -> Any:
  """A column of a row, or one of its settings; None where it has neither.

  Example:
    >>> value({'x': 7, 'settings': {'method.t': 300}}, 'method.t')
    300
  """
  return row[key] if key in row else (row.get('settings') or {}).get(key)


def varied(row: Row) -> dict[str, Any]:
  """The settings of a point without its seed, which others repeat."""
  settings = row.get('settings') or {}
  return {k: v for k, v in settings.items() if k.split('.')[-1] != 'seed'}


def is_measured(row: Row) -> bool:
  """Whether a row has a place in the plane of recall and drop."""
  return all(number(row.get(key)) is not None for key in ('recall', 'drop'))


def group(
  rows: Iterable[Row], key: Callable[[Row], Hashable]
) -> dict[Any, list[Row]]:
  """Rows by key, in the order in which keys appear.

  Example:
    >>> list(group([{'seed': 1}, {'seed': 0}], lambda row: row['seed']))
    [1, 0]
  """
  groups: dict[Any, list[Row]] = {}
  for row in rows:
    groups.setdefault(key(row), []).append(row)
  return groups


def panels_of(row: Row) -> Sequence[str]:
  """The panels that a row belongs to; the main one where it names none."""
  panels = row.get('panels')
  return (MAIN,) if panels is None else panels


def seed_of(row: Row) -> str:
  """The seed as a key of JSON."""
  return str(row.get('seed'))


def fronts(rows: Iterable[Row]) -> dict[str, list[pareto_fronts.Point]]:
  """Fronts by seed, of the rows of one method, the untouched model among them.

  Args:
    rows: those without recall or drop are passed over, and seeds that have no
      others with them.

  Example:
    >>> fronts([dict(seed=0, recall=0.5, drop=0.1, recall_before=0.02)])
    {'0': [(0.02, 0.0), (0.5, 0.1)]}
  """
  found = {}
  for seed, group_ in group(filter(is_measured, rows), seed_of).items():
    points = [(float(row['recall']), float(row['drop'])) for row in group_]
    before = mean(row.get('recall_before') for row in group_)
    untouched = [] if before is None else [(before, 0.0)]
    found[seed] = pareto_fronts.front(untouched + points)
  return dict(sorted(found.items()))


def common_reach(
  fronts_: Mapping[Any, SeedFronts], names: Iterable[Any]
) -> float | None:
  """The highest recall that all of these reach with every seed.

  Example:
    >>> common_reach({'lora': {'0': [(0.9, 0.2)], '1': [(0.8, 0.1)]}}, ['lora'])
    0.8
  """
  best = [front[-1][0] for n in names for front in fronts_[n].values()]
  return min(best, default=None)


def hypervolume(fronts_: SeedFronts) -> dict[str, Any]:
  """The dominated area: mean and standard deviation over seeds, and each."""
  areas = {s: pareto_fronts.area(front) for s, front in fronts_.items()}
  return {
    'mean': mean(areas.values()),
    'std': std(areas.values()),
    'seeds': areas,
  }


def mean_front(
  points: Sequence[Mapping[str, Any]], rows: Iterable[Row]
) -> list[pareto_fronts.Point]:
  """The front of means over seeds, for the eye.

  Args:
    points: as `collapse` gives them.
    rows: those they come from; they tell where the untouched model stands.
  """
  before = mean(row.get('recall_before') for row in rows)
  placed = [
    (point['recall_mean'], point['drop_mean'])
    for point in points
    if point['recall_mean'] is not None
  ]
  untouched = [] if before is None else [(before, 0.0)]
  return pareto_fronts.front(untouched + placed) if placed else []


def collapse(
  rows: Iterable[Row], key: Callable[[Row], Hashable] | None = None
) -> list[dict[str, Any]]:
  """Brings the rows that differ only by seed together.

  Args:
    rows: of the table.
    key: which rows belong together; those of one method with the same settings
      unless given. Rows of one seed that belong together are averaged first.

  Returns:
    For each: method, x, settings, names, seeds, recall and drop (one number a
    seed that has both), recall_mean, recall_std, drop_mean, drop_std, and the
    means of `MEASURES`.
  """
  found = []
  for group_ in group(rows, key or _same_point).values():
    by_seed = group(filter(is_measured, group_), seed_of)
    seeds = sorted(by_seed)
    places = {
      what: [mean(row[what] for row in by_seed[seed]) for seed in seeds]
      for what in ('recall', 'drop')
    }
    found.append(
      {
        'method': group_[0].get('method'),
        'x': group_[0].get('x'),
        'settings': varied(group_[0]),
        'names': [row.get('name') for row in group_],
        'seeds': seeds,
        **places,
        **{f'{what}_mean': mean(v) for what, v in places.items()},
        **{f'{what}_std': std(v) for what, v in places.items()},
        **{
          measure: mean(row.get(measure) for row in group_)
          for measure in MEASURES
        },
      }
    )
  return found


def _same_point(row: Row) -> Hashable:
  settings = varied(row)
  if not settings and not row.get('settings'):
    return row.get('method'), row.get('name')
  texts = sorted((key, str(value)) for key, value in settings.items())
  return row.get('method'), tuple(texts)
