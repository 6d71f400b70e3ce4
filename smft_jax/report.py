"""One page about one run: what was learned, what was lost, how it went.

The page is a single file without scripts or links, for light and dark screens,
phones and print.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import html
import json
import pathlib
from typing import Any

from smft_jax import chart
from smft_jax import metrics
from smft_jax import summary

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --card: #f6f7f9;
  --ink: #1c2330; --soft: #667085; --rule: #e4e7ec; }
@media (prefers-color-scheme: dark) {
  :root { --page: #11151c; --card: #1a202a; --ink: #eef1f6; --soft: #9aa4b5;
    --rule: #2b3240; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 18px 56px; max-width: 796px;
  background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.55rem; line-height: 1.3; margin: .2em 0 .7em;
  text-wrap: balance; }
h2 { font-size: 1.05rem; margin: 2.2em 0 .5em; }
.soft, caption, th, dt { color: var(--soft); }
.soft { font-size: .88rem; margin: .4em 0; overflow-wrap: anywhere; }
.tiles { display: grid; gap: 10px;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.tile { background: var(--card); border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: .82rem; line-height: 1.35;
  color: var(--soft); }
svg.chart { display: block; max-width: 100%; height: auto; }
svg.key { display: inline; vertical-align: middle; margin-right: 6px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 0 0 10px;
  font-size: .88rem; }
.picture + .picture { margin-top: 24px; }
.narrow { display: none; }
@media (max-width: 560px) { .wide { display: none; }
  .narrow { display: block; } h1 { font-size: 1.3rem; } }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 0 6px 12px; font-weight: 400;
  border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0;
  white-space: normal; }
td.strong { font-weight: 650; }
dl { display: grid; grid-template-columns: minmax(110px, auto) 1fr;
  gap: 4px 16px; margin: 0; font-size: .9rem; }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: 1em; }
summary { cursor: pointer; font-weight: 600; }
pre { background: var(--card); border-radius: 10px; padding: 12px 14px;
  overflow-x: auto; font-size: .8rem; }
"""


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
    records: what metrics.jsonl holds (`metrics.read_records`).
  """
  workdir = pathlib.Path(workdir)
  results = metrics.to_json(results)
  pictures = summary.retention_charts(results)
  if pictures:
    svg = chart.line_chart(**pictures[0], legend=True)
    metrics.write_text(workdir / 'retention.svg', chart.standalone(svg))
  command = ''
  if (workdir / 'config.json').exists():
    start = json.loads((workdir / 'config.json').read_text())
    command = ' '.join(['python -m smft_jax.train', *start.get('argv', ())])
  body = [
    f'<p class="soft">{_safe(_title(results))}</p>',
    f'<h1>{_safe(summary.headline(results))}</h1>',
    _tiles(results),
  ]
  if pictures:
    body.append('<h2>Along the stream</h2>')
    body += [_picture(picture) for picture in pictures]
  body += _tables(results)
  losses = summary.pretraining_charts(records)
  if losses:
    body.append('<h2>Training loss</h2>')
    body += [_picture(picture) for picture in losses]
  body += [
    '<h2>How it was run</h2>',
    f'<p class="soft"><code>{_safe(command)}</code></p>' if command else '',
    _facts(
      {
        **(config.get('method') or {}),
        **{
          key: results.get(key) for key in ('steps', 'tokens', 'slots_updated')
        },
      }
    ),
    _details('Everything measured', _all_measures(results)),
    _details('The data in numbers', _facts(results.get('counts') or {})),
    _details('The whole config', f'<pre>{_safe(_flags(config))}</pre>'),
    _details('Environment', _facts(results.get('environment') or {})),
  ]
  page = [
    '<!doctype html>',
    '<html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f'<title>{_safe(_title(results))}</title>',
    f'<style>{_STYLE}{chart.STYLE}</style></head><body>',
    *filter(None, body),
    '</body></html>',
  ]
  metrics.write_text(workdir / 'report.html', '\n'.join(page) + '\n')


def _tiles(results: Mapping[str, Any]) -> str:
  inner = ''.join(
    f'<div class="tile"><b>{_safe(value)}</b><span>{_safe(label)}</span></div>'
    for value, label in summary.tiles(results)
  )
  return f'<div class="tiles">{inner}</div>'


def _picture(picture: Mapping[str, Any]) -> str:
  """A chart at two widths, of which the screen shows one, and its legend."""
  key = ''.join(
    '<span><svg class="chart key" width="26" height="12" aria-hidden="true">'
    f'{chart.swatch(line)}</svg>{_safe(line.label)}</span>'
    for line in picture['series']
  )
  wide = chart.line_chart(**{'width': 760, **picture})
  height = min(picture.get('height', 280), 280)
  narrow = chart.line_chart(**{**picture, 'width': 354, 'height': height})
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
  return [
    *_table('What was learned', 'change', learned),
    *_table('What was kept' if learned else 'Measured', 'lost', kept),
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
  return ''.join(_table('', 'change', rows))


def _table(title: str, last: str, rows: Sequence) -> list[str]:
  if not rows:
    return []
  head = ''.join(
    f'<th>{cell}</th>' for cell in ('', '', 'before', 'after', last)
  )
  lines = ''.join(
    f'<tr><td>{_safe(label)}</td><td>{_safe(summary.measure_of(measure))}</td>'
    f'<td>{_number(measure.get("before"))}</td>'
    f'<td>{_number(measure.get("after"))}</td>'
    f'<td class="strong">{change}</td></tr>'
    for label, measure, change in rows
  )
  heading = f'<h2>{title}</h2>' if title else ''
  return [
    f'{heading}<div class="scroll"><table><tr>{head}</tr>{lines}</table></div>'
  ]


def _title(results: Mapping[str, Any]) -> str:
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
  rows: Iterable[str] = (
    f'<dt>{_safe(summary.plain(key))}</dt><dd>{_safe(_fact(value))}</dd>'
    for key, value in facts.items()
    if value is not None
  )
  return f'<dl>{"".join(rows)}</dl>' if facts else ''


def _fact(value: Any) -> str:
  if isinstance(value, Mapping):
    return ', '.join(f'{key} {item}' for key, item in value.items())
  return f'{value:,}' if isinstance(value, int) else str(value)


def _details(title: str, inner: str) -> str:
  if not inner:
    return ''
  return f'<details><summary>{title}</summary>{inner}</details>'


def _number(value: float | None) -> str:
  return '' if value is None else f'{value:.3f}'


def _safe(text: Any) -> str:
  return html.escape(str(text), quote=True)
