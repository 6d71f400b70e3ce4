"""One page about one run: what was learned, what was lost, how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any

from smft_jax.evaluation import health
from smft_jax.report import chart as figures
from smft_jax.report import old_page as page
from smft_jax.report import old_summary as summary
from smft_jax.store import atomic


def write_report(
  workdir: str | pathlib.Path,
  results: Mapping[str, Any],
  config: Mapping[str, Any],
  records: Sequence[Mapping[str, Any]],
) -> None:
  """Writes report.html and, where there is a stream, retention.svg.

  Args:
    workdir: where to; its config.json, if there, tells the command line.
    results: what results.json holds.
    config: the resolved config (`config.to_dict`).
    records: what metrics.jsonl holds (`records_lib.read_records`).
  """
  workdir = pathlib.Path(workdir)
  results = atomic.to_json(results)
  pictures = summary.retention_charts(results)
  if pictures:
    svg = figures.line_chart(**pictures[0], legend=True)
    atomic.write_text(workdir / 'retention.svg', figures.standalone(svg))
  text = page.document(
    title(results),
    summary.headline(results),
    [
      page.tiles(summary.tiles(results)),
      *body(workdir, results, config, records),
    ],
    figures.STYLE,
  )
  atomic.write_text(workdir / 'report.html', text)


def body(
  workdir: pathlib.Path,
  results: Mapping[str, Any],
  config: Mapping[str, Any],
  records: Sequence[Mapping[str, Any]],
) -> list[str]:
  """What a page says of a run below its headline, as pieces of HTML.

  Args:
    workdir: as in `write_report`, as are the others.
    results: those that are JSON.
    config: the resolved config.
    records: what metrics.jsonl holds.
  """
  pictures = summary.retention_charts(results)
  command = ''
  if (workdir / 'config.json').exists():
    start = json.loads((workdir / 'config.json').read_text())
    command = ' '.join(['python -m smft_jax.train', *start.get('argv', ())])
  found = ['<h2>Along the stream</h2>'] if pictures else []
  found += [picture(one) for one in pictures]
  found += _tables(results)
  if 'memory_health' in results:
    told = health.sentence(results['memory_health'])
    found.append(f'<p>{page.safe(told)}</p>')
  losses = summary.pretraining_charts(records)
  if losses:
    found.append('<h2>Training loss</h2>')
    found += [picture(one) for one in losses]
  return found + [
    '<h2>How it was run</h2>',
    f'<p class="soft"><code>{page.safe(command)}</code></p>' if command else '',
    _facts(
      {
        **(config.get('method') or {}),
        **{
          key: results.get(key) for key in ('steps', 'tokens', 'slots_updated')
        },
      }
    ),
    page.details('Everything measured', _all_measures(results)),
    page.details('The data in numbers', _facts(results.get('counts') or {})),
    page.details('The whole config', f'<pre>{page.safe(_flags(config))}</pre>'),
    page.details('Environment', _facts(results.get('environment') or {})),
  ]


def picture(drawn: Mapping[str, Any]) -> str:
  """A chart at two widths, of which the screen shows one, and its legend.

  Args:
    drawn: arguments of `figures.line_chart`.
  """
  key = ''.join(
    '<span><svg class="chart key" width="26" height="12" aria-hidden="true">'
    f'{figures.swatch(line)}</svg>{page.safe(line.label)}</span>'
    for line in drawn['series']
  )
  wide = figures.line_chart(**{'width': 760, **drawn})
  height = min(drawn.get('height', 280), 280)
  narrow = figures.line_chart(**{**drawn, 'width': 354, 'height': height})
  return (
    f'<div class="picture"><div class="legend">{key}</div>'
    f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div></div>'
  )


def _tables(results: Mapping[str, Any]) -> list[str]:
  """Before and after, of what was learned and of what was to be kept."""
  learned, kept = [], []
  for key, measure in summary.measured_targets(results).items():
    change = measure['after'] - measure['before']
    learned.append((summary.name_of(key, results), measure, f'{change:+.3f}'))
  for name, measure in (results.get('held_out') or {}).items():
    drop = measure.get('relative_drop')
    # What was never taught cannot be lost.
    lost = '' if drop is None or summary.is_control(name) else f'{drop:.2%}'
    kept.append((summary.name_of(name, results), measure, lost))
  kept_title = 'What was kept' if learned else 'Measured'
  return [
    '<h2>What was learned</h2>' if learned else '',
    _table('change', learned),
    f'<h2>{kept_title}</h2>' if kept else '',
    _table('lost', kept),
  ]


def _all_measures(results: Mapping[str, Any]) -> str:
  """Every metric of every set, before and after."""
  after = results.get('metrics_after') or {}
  rows = []
  for name, measured in (results.get('metrics_before') or {}).items():
    for metric, before in measured.items():
      now = after.get(name, {}).get(metric)
      both = before is not None and now is not None
      change = f'{now - before:+.3f}' if both else ''
      measure = {'metric': metric, 'before': before, 'after': now}
      rows.append((summary.name_of(name, results), measure, change))
  return _table('change', rows)


def _table(last: str, rows: Sequence[tuple[str, Any, str]]) -> str:
  if not rows:
    return ''
  cells = [
    (
      label,
      summary.measure_of(measure),
      _number(measure.get('before')),
      _number(measure.get('after')),
      change,
    )
    for label, measure, change in rows
  ]
  return page.table(('', '', 'before', 'after', last), cells, change=True)


def title(results: Mapping[str, Any]) -> str:
  """What a page about a run is about."""
  method = summary.plain(str(results.get('method') or 'base model'))
  seed = results.get('seed')
  return f'smft_jax · {method}' + (
    f' · seed {seed}' if seed is not None else ''
  )


def _flags(config: Mapping[str, Any], path: str = '--config') -> str:
  """A config as the flags that would set it."""
  lines: list[str] = []
  for key, value in config.items():
    if isinstance(value, Mapping):
      lines.append(_flags(value, f'{path}.{key}'))
    else:
      lines.append(f'{path}.{key}={value}')
  return '\n'.join(lines)


def _facts(facts: Mapping[str, Any]) -> str:
  return page.facts(
    (summary.plain(key), _fact(value))
    for key, value in facts.items()
    if value is not None
  )


def _fact(value: Any) -> str:
  if isinstance(value, Mapping):
    return ', '.join(f'{key} {item}' for key, item in value.items())
  return f'{value:,}' if isinstance(value, int) else str(value)


def _number(value: float | None) -> str | None:
  return None if value is None else f'{value:.3f}'
