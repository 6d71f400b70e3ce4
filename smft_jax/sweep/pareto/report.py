"""The page about a comparison: figures and tables in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import pathlib
import shlex
from typing import Any

from smft_jax.report import figures
from smft_jax.report import page
from smft_jax.store import atomic
from smft_jax.store import paths
from smft_jax.sweep.pareto import figures as pareto_figures
from smft_jax.sweep.pareto import table

# A head and rows of cells, and the row in bold: arguments of the table macro.
Table = dict[str, Any]


def write_report(
  analysis: Mapping[str, Any],
  workdir: str | pathlib.Path,
  report: Mapping[str, Any],
) -> None:
  """Writes report.html and, if any front has a point, pareto.png.

  Args:
    analysis: What `analysis.analyse` returns, and `failed`, the names of points
      without results.
    workdir: The folder to write to; the command line is read from its
      sweep.json.
    report: REPORT of the sweep's config; reads `title` and `text`.
  """
  workdir = paths.expand(workdir)
  drawn = pareto_figures.draw_pareto(analysis)
  if drawn:
    atomic.write_bytes(workdir / 'pareto.png', figures.png(drawn))
  further, lost = analysis['equal_learning_at_own_reach'], analysis['lost']
  text = page.render(
    'sweep.html',
    title='smft_jax',
    headline=report.get('title') or 'Learning against forgetting',
    text=report.get('text', ''),
    tiles=_tiles(analysis),
    missing=[analysis['labels'][name] for name in analysis['missing']],
    failed=analysis['failed'],
    pareto=_svg(drawn, f'{lost.capitalize()} over new facts recalled'),
    others=_svg(pareto_figures.draw_others(analysis), 'The other methods'),
    own=analysis['labels'][analysis['own']],
    lost=lost,
    forgetting=analysis['forgetting'],
    bars=_svg(
      pareto_figures.draw_equal_learning(analysis),
      f'{lost.capitalize()} at equal learning',
    ),
    equal=_equal_learning(analysis, analysis['equal_learning']),
    further=further and _equal_learning(analysis, further),
    costs=_costs(analysis),
    areas=_areas(analysis),
    panels=[
      {
        'title': panel['title'],
        'text': panel['text'],
        'figure': _svg(pareto_figures.draw_panel(panel, lost), panel['title']),
        'table': _ablation(panel, lost),
      }
      for panel in analysis['panels'].values()
    ],
    command=_command(workdir),
  )
  atomic.write_text(workdir / 'report.html', text)


def _svg(drawn: Any, label: str) -> str:
  return figures.svg(drawn, label) if drawn else ''


def _tiles(analysis: Mapping[str, Any]) -> list[tuple[str, str]]:
  """The drop of our method, and how many times larger its rivals' are."""
  methods, labels = analysis['equal_learning']['methods'], analysis['labels']
  target = table.share(analysis['equal_learning']['target'])
  found = []
  own = methods.get(analysis['own'])
  if own and own['drop_mean'] is not None:
    lost = table.share(own['drop_mean'])
    name = labels[analysis['own']]
    what = analysis['lost']
    found.append((lost, f'of {what} by {name} at {target} recall'))
  for rival in analysis['headline']:
    ratio = (methods.get(rival) or {}).get('ratio')
    if ratio is not None:
      found.append((_times(ratio), f'as much lost by {labels[rival]}'))
  return found


def _equal_learning(
  analysis: Mapping[str, Any], equal: Mapping[str, Any]
) -> Table:
  """Every method at one recall, least lost first."""
  methods, labels = equal['methods'], analysis['labels']
  names = _by_drop(methods)
  rows: list[Sequence[Any]] = []
  for name in names:
    method = methods[name]
    rows.append(
      (
        labels[name],
        table.spread(method['drop_mean'], method['drop_std']) or 'not reached',
        None if method['ratio'] is None else _times(method['ratio']),
        f'{method["seeds"]} of {method["seeds_run"]}',
        table.spread(method['best_recall_mean'], method['best_recall_std']),
        method['points'],
        method['settings'],
        method['tuned'],
      )
    )
  for name, point in analysis['references'].items():
    rows.append(
      (
        f'{labels[name]} (reference)',
        table.spread(point['drop_mean'], point['drop_std']),
        None,
        None,
        table.spread(point['recall_mean'], point['recall_std']),
        len(point['names']),
        1,
        None,
      )
    )
  head = (
    f'at {table.share(equal["target"])} recall', analysis['lost'],
    f'as much as {labels[analysis["own"]]}', 'seeds that reach it',
    'best recall', 'points', 'settings', 'validation points',
  )  # fmt: skip
  return _table(head, rows, names, analysis)


def _costs(analysis: Mapping[str, Any]) -> Table:
  methods = analysis['equal_learning']['methods']
  at = {name: methods[name]['at'] for name in _by_drop(methods)}
  at |= analysis['references']
  names = [name for name in at if at[name]]
  rows = [
    (
      analysis['labels'][name],
      _count(at[name]['params_changed']),
      _count(at[name]['bytes_changed'], 'B'),
      _count(at[name]['flops']),
      _count(at[name]['lesson_s']),
      table.share(at[name]['retention']),
      table.share(at[name]['locality']),
      _settings(at[name]['settings']),
    )
    for name in names
  ]
  head = (
    '', 'parameters changed', 'bytes changed', 'FLOPs per lesson',
    'seconds per lesson', 'earlier lessons kept', 'locality', 'settings',
  )  # fmt: skip
  return _table(head, rows, names, analysis)


def _areas(analysis: Mapping[str, Any]) -> Table:
  """The dominated areas, and in how many seeds ours dominates."""
  volumes = analysis['hypervolume']
  names = sorted(
    (name for name in volumes if volumes[name]['mean'] is not None),
    key=lambda name: -volumes[name]['mean'],
  )
  rows = []
  for name in names:
    seeds = (analysis['domination'].get(name) or {}).get('seeds', {})
    below = sum(at['below'] for at in seeds.values())
    whole = sum(at['dominates'] for at in seeds.values())
    rows.append(
      (
        analysis['labels'][name],
        _area(volumes[name]),
        f'{below} of {len(seeds)} seeds' if seeds else None,
        f'{whole} of {len(seeds)} seeds' if seeds else None,
      )
    )
  own = analysis['labels'][analysis['own']]
  head = (
    '', 'dominated area', f'{own} loses less wherever both reach',
    'and reaches as far',
  )  # fmt: skip
  return _table(head, rows, names, analysis)


def _ablation(panel: Mapping[str, Any], lost: str) -> Table:
  """Recall and drop at each x of a sweep, or the fronts in numbers."""
  rows: list[Sequence[Any]]
  if panel['kind'] == 'sweep':
    rows = [
      (
        line['label'],
        f'{point["x"]:g}',
        table.spread(point['recall_mean'], point['recall_std']),
        table.spread(point['drop_mean'], point['drop_std']),
        len(point['seeds']),
      )
      for line in panel['lines']
      for point in line['points']
    ]
    head = '', panel['x_label'], 'recall', lost, 'seeds'
  else:
    rows = [
      (
        line['label'],
        table.spread(line['drop_mean'], line['drop_std']) or 'not reached',
        _area(line['hypervolume']),
        table.share(line['best_recall_mean']),
        line['seeds'],
      )
      for line in panel['lines']
    ]
    at = f'lost at {table.share(panel["recall"])} recall'
    head = '', at, 'dominated area', 'best recall', 'seeds'
  return {'head': head, 'rows': rows, 'own': None}


def _command(workdir: pathlib.Path) -> str:
  plan = workdir / 'sweep.json'
  if not plan.exists():
    return ''
  file = json.loads(plan.read_text())['config_file']
  return shlex.join(['python', '-m', 'smft_jax.sweep', f'--config={file}'])


def _table(
  head: Sequence[str],
  rows: Sequence[Sequence[Any]],
  names: Sequence[str],
  analysis: Mapping[str, Any],
) -> Table:
  """A table whose row of our method is in bold."""
  own = names.index(analysis['own']) if analysis['own'] in names else None
  return {'head': head, 'rows': rows, 'own': own}


def _by_drop(methods: Mapping[str, Any]) -> list[str]:
  """The least lost first; then those that do not reach the target."""

  def rank(name: str) -> tuple[bool, float]:
    drop = methods[name]['drop_mean']
    return drop is None, drop or 0.0

  return sorted(methods, key=rank)


def _settings(settings: Mapping[str, Any]) -> str:
  """Settings by the last part of their keys, without the method's name."""
  return ', '.join(
    f'{key.split(".")[-1]}={value:g}'
    if isinstance(value, float)
    else f'{key.split(".")[-1]}={value}'
    for key, value in settings.items()
    if key != 'method.name'
  )


def _times(ratio: float) -> str:
  return f'{ratio:.{1 if ratio < 20 else 0}f} ×'


def _area(measure: Mapping[str, Any]) -> str | None:
  if measure['mean'] is None:
    return None
  std = '' if measure['std'] is None else f' ± {measure["std"]:.3f}'
  return f'{measure["mean"]:.3f}{std}'


def _count(value: float | None, unit: str = '') -> str | None:
  """Three digits with an SI prefix."""
  if value is None:
    return None
  for scale, prefix in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if value >= scale:
      return f'{value / scale:.3g} {prefix}{unit}'
  return f'{value:.3g} {unit}'.strip()
