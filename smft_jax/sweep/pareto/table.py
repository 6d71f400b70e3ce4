"""Rows of a sweep's table, aggregated over seeds, and how to write them.

A row holds what one finished point measured: `method`, `seed`, `settings` (the
values the point set, by dotted key), `recall`, `recall_before`, `drop` and
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

MAIN = 'front'  # the panel that compares methods

# Measures averaged over seeds in addition to recall and drop.
MEASURES = (
  'recall_seen', 'f1', 'answer_nll', 'retention', 'backward_transfer',
  'forward_transfer', 'forgetting', 'locality', 'params_changed',
  'bytes_changed', 'flops', 'lesson_s', 'wall_s',
)  # fmt: skip

_LABELS = {
  'sparse_memory': 'sparse memory',
  'full': 'full finetuning',
  'lora': 'LoRA',
  'lora_attention': 'LoRA, attention only',
  'adapter': 'adapters',
  'ewc': 'elastic weight consolidation',
  'values_only': 'values only',
  'experts': 'new experts',
  'in_context': 'in-context reading',
  'tf_idf': 'TF-IDF',
  'tf': 'TF only',
  'tf_idf_cubed': 'TF-IDF cubed',
  'all_accessed': 'all accessed',
  'kl': 'KL to background',
  'None': 'default',
}


def label(key: str, labels: Mapping[str, str] | None = None) -> str:
  """Returns what to call a method or setting.

  Args:
    key: Its key.
    labels: Names by key, such as REPORT['labels'].

  Example:
    >>> label('lora'), label('lora', {'lora': 'LoRA, rank 8'})
    ('LoRA', 'LoRA, rank 8')
    >>> label('sparse_memory_tf')
    'sparse memory, TF only'
  """
  found = (labels or {}).get(key) or _LABELS.get(key)
  if found:
    return found
  rest = key.removeprefix('sparse_memory_')
  if rest != key:
    return f'{label("sparse_memory", labels)}, {label(rest)}'
  return key.replace('_', ' ')


def share(value: float | None) -> str:
  """Formats a share in percent: one decimal, two below 1%.

  Example:
    >>> share(0.0187), share(0.4123), share(0.0034), share(None), share(-1e-9)
    ('1.9%', '41.2%', '0.34%', '', '0.00%')
  """
  if value is None:
    return ''
  text = f'{100 * value:.{2 if abs(value) < 0.00995 else 1}f}%'
  return text.lstrip('-') if float(text[:-1]) == 0 else text


def spread(mean: float | None, std: float | None) -> str:
  """Formats a mean share with its standard deviation, if there is one.

  Example:
    >>> spread(0.019, 0.004), spread(0.5, None)
    ('1.9% ± 0.4', '50.0%')
  """
  if mean is None or std is None:
    return share(mean)
  return f'{share(mean)} ± {100 * std:.{2 if abs(mean) < 0.00995 else 1}f}'


def number(value: Any) -> float | None:
  """Returns a finite number as a float, and None for anything else.

  Example:
    >>> number(3), number(float('nan')), number(None), number('3')
    (3.0, None, None, None)
  """
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return None
  return float(value) if math.isfinite(value) else None


def mean(values: Iterable[Any]) -> float | None:
  """Returns the mean of the numbers; None if there are none."""
  known = [v for v in map(number, values) if v is not None]
  return statistics.fmean(known) if known else None


def std(values: Iterable[Any]) -> float | None:
  """Returns the sample deviation (ddof 1); None for fewer than two numbers."""
  known = [v for v in map(number, values) if v is not None]
  return statistics.stdev(known) if len(known) > 1 else None


def value(row: Row, key: str) -> Any:
  """Returns a column or setting of a row; None if it has neither.

  Example:
    >>> value({'x': 7, 'settings': {'method.t': 300}}, 'method.t')
    300
  """
  return row[key] if key in row else (row.get('settings') or {}).get(key)


def varied(row: Row) -> dict[str, Any]:
  """Returns the settings of a row without its seed."""
  settings = row.get('settings') or {}
  return {k: v for k, v in settings.items() if k.split('.')[-1] != 'seed'}


def is_measured(row: Row) -> bool:
  """Whether a row has both recall and drop."""
  return all(number(row.get(key)) is not None for key in ('recall', 'drop'))


def group(
  rows: Iterable[Row], key: Callable[[Row], Hashable]
) -> dict[Any, list[Row]]:
  """Groups rows by key, in the order in which keys appear.

  Example:
    >>> list(group([{'seed': 1}, {'seed': 0}], lambda row: row['seed']))
    [1, 0]
  """
  groups: dict[Any, list[Row]] = {}
  for row in rows:
    groups.setdefault(key(row), []).append(row)
  return groups


def panels_of(row: Row) -> Sequence[str]:
  """Returns the panels of a row; the main one if it names none."""
  panels = row.get('panels')
  return (MAIN,) if panels is None else panels


def seed_of(row: Row) -> str:
  """Returns the seed of a row as a JSON key."""
  return str(row.get('seed'))


def fronts(rows: Iterable[Row]) -> dict[str, list[pareto_fronts.Point]]:
  """Returns the front of each seed, including the untouched model.

  Args:
    rows: The rows of one method; those without recall or drop are ignored.

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
  """Returns the highest recall that all of these reach with every seed.

  Example:
    >>> common_reach({'lora': {'0': [(0.9, 0.2)], '1': [(0.8, 0.1)]}}, ['lora'])
    0.8
  """
  best = [front[-1][0] for n in names for front in fronts_[n].values()]
  return min(best, default=None)


def hypervolume(fronts_: SeedFronts) -> dict[str, Any]:
  """Returns the dominated area: mean, standard deviation, and by seed."""
  areas = {s: pareto_fronts.area(front) for s, front in fronts_.items()}
  return {
    'mean': mean(areas.values()),
    'std': std(areas.values()),
    'seeds': areas,
  }


def mean_front(
  points: Sequence[Mapping[str, Any]], rows: Iterable[Row]
) -> list[pareto_fronts.Point]:
  """Returns the front of the means over seeds, for figures.

  Args:
    points: Points of `collapse`.
    rows: The rows they come from, for the recall before the stream.
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
  """Aggregates rows over seeds.

  Args:
    rows: Rows of the table.
    key: Rows with the same key become one point; by default those of one
      method with the same settings. Rows of one seed are averaged first.

  Returns:
    For each point: method, x, settings, names, seeds, recall and drop (lists,
    one number for each seed that has both), recall_mean, recall_std, drop_mean,
    drop_std, and the means of `MEASURES`.
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
