"""The page about one run: results, curves, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import pathlib
import shlex
from typing import Any

from smft_jax.report import figures
from smft_jax.report import page
from smft_jax.report import summary
from smft_jax.store import atomic
from smft_jax.store import paths

_POINTS = 200  # of a curve, as no screen shows more


def write_report(
  workdir: str | pathlib.Path,
  results: Mapping[str, Any],
  config: Mapping[str, Any],
  records: Sequence[Mapping[str, Any]],
) -> None:
  """Writes report.html and, for a run with a stream, retention.svg.

  Args:
    workdir: The folder to write to; the command line is read from its
      config.json.
    results: What results.json holds.
    config: The resolved config (`config.to_dict`).
    records: What metrics.jsonl holds.
  """
  workdir = paths.expand(workdir)
  results = atomic.to_json(results)
  run = _context(workdir, results, config, records)
  if run['retention']:
    svg = figures.standalone(run['retention'][0])
    atomic.write_text(workdir / 'retention.svg', svg)
  text = page.render(
    'run.html',
    title='smft_jax',
    headline=summary.title(results),
    run=run,
  )
  atomic.write_text(workdir / 'report.html', text)


def _context(
  workdir: pathlib.Path,
  results: Mapping[str, Any],
  config: Mapping[str, Any],
  records: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
  """Returns what run.html shows, as its variable `run`.

  Args:
    workdir: As in `write_report`, like the others.
    results: Results that are JSON.
    config: The resolved config.
    records: What metrics.jsonl holds.
  """
  command = ''
  if (workdir / 'config.json').exists():
    start = json.loads((workdir / 'config.json').read_text())
    argv = shlex.join(start.get('argv', ()))
    command = f'python -m smft_jax.train {argv}'.rstrip()
  keys = ('steps', 'tokens', 'slots_updated')
  settings = {
    **(config.get('method') or {}),
    **{key: results.get(key) for key in keys},
  }
  return {
    'tiles': summary.tiles(results),
    'head': ('', *summary.HEAD[1:]),
    'rows': summary.rows(results),
    'edits_head': summary.EDITS_HEAD,
    'edits': summary.edits(results),
    'memory': summary.memory_health(results),
    'unchanged': summary.unchanged(results),
    'answers': _answers(results),
    'retention': _draw(retention_charts(results), 'Retention curve'),
    'pretraining': _draw(pretraining_charts(records), 'Training loss'),
    'command': command,
    'settings': _facts(settings),
    'measures': _all_measures(results),
    'counts': _facts(results.get('counts') or {}),
    'config': flags(config),
    'environment': _facts(results.get('environment') or {}),
  }


def _answers(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
  """Held-out questions with the answers before and after."""
  found = results.get('answers_unchanged') or {}
  return [
    (
      example['question'],
      example['before'],
      example['after'],
      '' if example['before'] == example['after'] else 'changed',
    )
    for example in found.get('examples', ())
  ]


def retention_charts(results: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Arguments of `figures.line_chart` for the retention curve.

  Recall, F1 and accuracy share one chart, from 0 to 100%. Losses share
  another, as changes since the start. The one with the target comes first.
  """
  curve = results.get('retention_curve') or []
  held_out = results.get('held_out') or {}
  target = results.get('target')
  unseen = results.get('target_unseen_phrasing')
  # The main target is solid, the others dotted.
  main = list(summary.TARGETS)
  if target and (summary.is_loss(target) or not unseen):
    main[:2] = reversed(main[:2])
  looks: dict[str, tuple[str, tuple[int, ...]]] = {
    main[0]: ('blue', ()),
    main[1]: ('blue', (1, 2)),
    main[2]: ('blue', (6, 2)),
  }
  others = iter([('orange', ()), ('green', (5, 2)), ('purple', (6, 2, 1, 2))])
  for name in held_out:
    if summary.is_control(name):
      looks[name] = 'gray', (2, 2)
    else:
      looks[name] = next(others, ('green', ()))
  shares: list[figures.Series] = []
  losses: list[figures.Series] = []
  for name, (color, dashes) in looks.items():
    measure = (results if name in summary.TARGETS else held_out).get(name)
    points = _points(curve, name)
    if measure is None or len(points) < 2:
      continue
    is_loss = summary.is_loss(measure)
    if is_loss:
      first = points[0][1]
      points = tuple((x, y / first - 1) for x, y in points)
    (losses if is_loss else shares).append(
      figures.Series(
        label=summary.name_of(name, results),
        points=points,
        color=color,
        dashes=dashes,
      )
    )
  found: list[dict[str, Any]] = []
  if shares:
    measures = [target or {}, unseen or {}, *held_out.values()]
    named = next(m for m in measures if m and not summary.is_loss(m))
    found.append(
      {
        'series': shares,
        'y_label': summary.metric_of(named),
        'y_range': (0.0, 1.0),
        'show': page.percent,
      }
    )
  if losses:
    found.append(
      {
        'series': losses,
        'y_label': 'change of NLL (lower is better)',
        'show': lambda y: page.percent(y, '+') if y else '0%',
      }
    )
  found.sort(key=lambda c: 'blue' not in {line.color for line in c['series']})
  for after_the_first in found[1:]:
    after_the_first['height'] = 2.3
  return [{'x_label': 'documents streamed', **one} for one in found]


def pretraining_charts(
  records: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
  """Arguments of `figures.line_chart` for the loss of pretraining."""
  points = [
    (record['step'], record['loss'])
    for record in records
    if record.get('event') == 'pretrain'
    and record.get('loss') is not None
    and record.get('step') is not None
  ]
  if len(points) < 2:
    return []
  thinned = [*points[: -1 : max(1, len(points) // _POINTS)], points[-1]]
  line = figures.Series(label='', points=tuple(thinned), color='green')
  return [
    {
      'series': [line],
      'x_label': 'steps',
      'y_label': 'loss, nats per token',
      'show': lambda y: f'{y:.3g}',
      'height': 2.1,
    }
  ]


def flags(config: Mapping[str, Any], path: str = '--config') -> str:
  """Writes a config as the flags that would set it in a shell, one a line.

  Example:
    >>> print(flags({'seed': 1, 'model': {'memory_layers': [2]}}))
    --config.seed=1
    '--config.model.memory_layers=[2]'
  """
  lines: list[str] = []
  for key, value in config.items():
    if isinstance(value, Mapping):
      lines.append(flags(value, f'{path}.{key}'))
    else:
      lines.append(shlex.quote(f'{path}.{key}={value}'))
  return '\n'.join(lines)


def _draw(charts: Sequence[Mapping[str, Any]], label: str) -> list[str]:
  return [figures.svg(figures.line_chart(**chart), label) for chart in charts]


def _points(
  curve: Sequence[Mapping[str, Any]], name: str
) -> tuple[tuple[float, float], ...]:
  """Where a set was measured along the stream."""
  measured = (
    (
      at['documents'],
      (at if name in summary.TARGETS else at.get('held_out') or {}).get(name),
    )
    for at in curve
  )
  return tuple((x, y) for x, y in measured if y is not None)


def _all_measures(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
  """Every metric of every set: name, metric, before, after, change."""
  after = results.get('metrics_after') or {}
  rows: list[tuple[str, ...]] = []
  for name, measured in (results.get('metrics_before') or {}).items():
    for metric, before in measured.items():
      now = after.get(name, {}).get(metric)
      both = before is not None and now is not None
      rows.append(
        (
          summary.name_of(name, results),
          summary.metric_of({'metric': metric}),
          page.number(before),
          page.number(now),
          page.number(now - before, '+') if both else '',
        )
      )
  return rows


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
  return [
    (summary.plain(key), value)
    for key, value in facts.items()
    if value is not None
  ]
