"""The table of a sweep: a row for each finished point.

Columns, None where a method or its data lacks the measure:
- name, method, panels, x, tuned, settings: from the config;
- seed;
- recall, f1, answer_nll: of the questions on the streamed documents, after the
  stream, in unseen phrasings if there are any; recall_before: before it;
  recall_seen: in phrasings trained on;
- held_out: relative drop by held-out set (`scores.relative_drop`);
- drop: what counts as forgetting. With 'known' the relative drop of the set of
  that name, or else of the first set; with 'answers' the share of answers to
  held-out questions that changed, right or wrong, for models that answer few;
- retention, backward_transfer, forward_transfer, forgetting: see `transfer`;
- locality: share of unchanged answers of the set 'known', or else of all
  held-out questions;
- params_changed, bytes_changed; flops and lesson_s: per lesson, see `finetune`;
  wall_s: of the whole stream, measurements included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import csv
import io
import pathlib
from typing import Any

from smft_jax.report import page
from smft_jax.runtime import progress
from smft_jax.store import atomic
from smft_jax.sweep import plan
from smft_jax.sweep.pareto import table

_TARGETS = ('target_unseen_phrasing', 'target')


def row(
  point: plan.Point, results: Mapping[str, Any], forgetting: str = 'known'
) -> dict[str, Any]:
  """Returns the row of a finished point.

  Args:
    point: The point.
    results: Its results.json.
    forgetting: What `drop` is, 'known' or 'answers'.
  """
  before = results.get('metrics_before') or {}
  after = results.get('metrics_after') or {}
  asked = next((name for name in _TARGETS if name in after), 'target')
  drops = {
    name: measure.get('relative_drop')
    for name, measure in (results.get('held_out') or {}).items()
  }
  unchanged = (results.get('answers_unchanged') or {}).get('share')
  drop = drops.get('known', next(iter(drops.values()), None))
  if forgetting == 'answers':
    drop = None if unchanged is None else 1 - unchanged
  transfer = results.get('transfer') or {}
  lesson = results.get('lesson') or {}
  learned = after.get(asked) or {}
  return {
    'name': point.name,
    'method': point.method,
    'panels': list(point.panels),
    'x': point.x,
    'tuned': point.tuned,
    'seed': results.get('seed', point.experiment.seed),
    'recall': learned.get('recall'),
    'recall_before': (before.get(asked) or {}).get('recall'),
    'recall_seen': (after.get('target') or {}).get('recall'),
    'f1': learned.get('f1'),
    'answer_nll': learned.get('nll'),
    'drop': drop,
    'held_out': drops,
    'retention': transfer.get('retention_of_earlier'),
    'backward_transfer': transfer.get('backward_transfer'),
    'forward_transfer': transfer.get('forward_transfer'),
    'forgetting': transfer.get('forgetting'),
    'locality': (results.get('locality') or {}).get('known', unchanged),
    'params_changed': results.get('params_changed'),
    'bytes_changed': results.get('bytes_changed'),
    'flops': lesson.get('flops'),
    'lesson_s': lesson.get('wall_s'),
    'wall_s': results.get('wall_s'),
    'settings': dict(point.overrides),
  }


def line(row: Mapping[str, Any]) -> str:
  """Returns the log line of a finished point.

  Example:
    >>> print(line({'name': 'a', 'recall': 0.84, 'drop': 0.021, 'wall_s': 7.0}))
    a: recall 84.0%, drop 2.1%, 7s
  """
  parts = [
    f'{key} {table.share(row.get(key)) or "-"}' for key in ('recall', 'drop')
  ]
  if row.get('wall_s') is not None:
    parts.append(progress.duration(row['wall_s']))
  return f'{row["name"]}: {", ".join(parts)}'


def write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes the table; dicts become columns such as 'held_out.known'."""
  flat = [dict(_cells(row)) for row in rows]
  columns = dict.fromkeys(column for cells in flat for column in cells)
  text = io.StringIO()
  writer = csv.DictWriter(text, [*columns], lineterminator='\n')
  writer.writeheader()
  writer.writerows(flat)
  atomic.write_text(path, text.getvalue())


def equal_learning(analysis: Mapping[str, Any]) -> list[str]:
  """Returns the equal-learning table as lines of text.

  Args:
    analysis: What pareto.json holds.

  Example:
    >>> methods = {
    ...   'lora': {'drop_mean': 0.5, 'drop_std': 0.02, 'seeds': 3,
    ...            'seeds_run': 3, 'best_recall_mean': 0.9},
    ...   'full': {'drop_mean': None, 'drop_std': None, 'seeds': 0,
    ...            'seeds_run': 1, 'best_recall_mean': 0.4}}
    >>> analysis = {'equal_learning': {'target': 0.8, 'methods': methods},
    ...             'lost': 'known facts lost'}
    >>> for line in equal_learning(analysis):
    ...   print(line)
    at 80.0% recall  known facts lost   seeds  best recall
    lora                  50.0% ± 2.0  3 of 3        90.0%
    full                            -  0 of 1        40.0%
  """
  found = analysis.get('equal_learning') or {}
  if found.get('target') is None:
    return ['no method was measured on what it should learn']
  labels = analysis.get('labels') or {}
  target = table.share(found['target'])
  head = f'at {target} recall', analysis['lost'], 'seeds', 'best recall'
  rows = [head]
  for key, method in found['methods'].items():
    rows.append(
      (
        labels.get(key, key),
        table.spread(method['drop_mean'], method['drop_std']) or '-',
        f'{method["seeds"]} of {method["seeds_run"]}',
        table.share(method['best_recall_mean']) or '-',
      )
    )
  return page.columns(rows, left=1)


def _cells(row: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
  for key, value in row.items():
    if isinstance(value, Mapping):
      for name, inner in value.items():
        yield f'{key}.{name}', _cell(inner)
    else:
      yield key, _cell(value)


def _cell(value: Any) -> Any:
  return ' '.join(map(str, value)) if isinstance(value, list | tuple) else value
