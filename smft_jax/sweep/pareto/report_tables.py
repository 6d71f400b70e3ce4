"""The tables of a comparison, as pieces of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smft_jax.report import old_page as page
from smft_jax.sweep.pareto import words as pareto_words


def equal_learning(
  analysis: Mapping[str, Any], table: Mapping[str, Any]
) -> str:
  """Every method at one recall.

  Args:
    analysis: as `analysis.analyse` gives it.
    table: its equal_learning, or the one at our own reach.
  """
  methods = table['methods']
  if not methods:
    return '<p>No point of the comparison has finished.</p>'
  names = _by_drop(methods)
  rows: list[Sequence[Any]] = []
  for name in names:
    method = methods[name]
    ratio = method['ratio']
    rows.append(
      (
        analysis['labels'][name],
        'not reached'
        if method['drop_mean'] is None
        else pareto_words.spread(method['drop_mean'], method['drop_std']),
        None if ratio is None else f'{pareto_words.times(ratio)} ×',
        f'{method["seeds"]} of {method["seeds_run"]}',
        pareto_words.spread(
          method['best_recall_mean'], method['best_recall_std']
        ),
        method['points'],
        method['settings'],
        method['tuned'],
      )
    )
  rows += [
    (
      f'{analysis["labels"][name]} (reference)',
      pareto_words.spread(point['drop_mean'], point['drop_std']),
      None,
      None,
      pareto_words.spread(point['recall_mean'], point['recall_std']),
      len(point['names']),
      1,
      None,
    )
    for name, point in analysis['references'].items()
  ]
  own = analysis['labels'][analysis['own']]
  head = (
    f'at a recall of {pareto_words.share(table["target"])}',
    'known facts lost',
    f'as much as {own}',
    'seeds that get there',
    'best recall',
    'points',
    'settings',
    'validation points',
  )
  return page.table(head, rows, _place(names, analysis['own']))


def costs(analysis: Mapping[str, Any]) -> str:
  """What learning so much took, and what it did to other things."""
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
      _number(at[name]['lesson_s']),
      _share(at[name]['retention']),
      _share(at[name]['locality']),
      _settings(at[name]['settings']),
    )
    for name in names
  ]
  if not rows:
    return ''
  head = (
    '', 'parameters changed', 'bytes changed', 'FLOPs a lesson',
    'seconds a lesson', 'earlier lessons kept', 'locality', 'measured with',
  )  # fmt: skip
  return (
    '<p class="soft">Of each method, the setting with the least lost among'
    ' those that get to the recall above in the mean over seeds, or else the'
    ' one with the best recall. Seconds were taken on one machine and are no'
    ' benchmark.</p>' + page.table(head, rows, _place(names, analysis['own']))
  )


def fronts(analysis: Mapping[str, Any]) -> str:
  """The dominated area of each method, and whether ours lies below it."""
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
        _plus_minus(volumes[name]),
        f'{below} of {len(seeds)} seeds' if seeds else None,
        f'{whole} of {len(seeds)} seeds' if seeds else None,
      )
    )
  own = analysis['labels'][analysis['own']]
  head = (
    '',
    'dominated area',
    f'{own} loses less wherever both reach',
    'and reaches as far',
  )
  return page.table(head, rows, _place(names, analysis['own'])) if rows else ''


def ablation(panel: Mapping[str, Any]) -> str:
  """Recall and drop at each place of a sweep, or what fronts come to."""
  if panel['kind'] == 'sweep':
    head = ['', panel['x_label'], 'recall', 'known facts lost', 'seeds']
    return page.table(head, _sweep_rows(panel))
  head = [
    '',
    'at a recall of',
    'known facts lost',
    'dominated area',
    'best recall',
  ]
  return page.table(head, _front_rows(panel))


def _sweep_rows(panel: Mapping[str, Any]) -> Iterable[Sequence[Any]]:
  for line in panel['facets'][0]['lines']:
    for point in line['points']:
      yield (
        line['label'],
        point['x'],
        pareto_words.spread(point['recall_mean'], point['recall_std']),
        pareto_words.spread(point['drop_mean'], point['drop_std']),
        len(point['seeds']),
      )


def _front_rows(panel: Mapping[str, Any]) -> Iterable[Sequence[Any]]:
  for facet in panel['facets']:
    where = ''
    if facet['value'] is not None:
      where = f', {panel["x_label"]} = {facet["value"]}'
    for line in facet['lines']:
      yield (
        f'{line["label"]}{where}',
        _share(facet['recall']),
        'not reached'
        if line['drop_mean'] is None
        else pareto_words.spread(line['drop_mean'], line['drop_std']),
        _plus_minus(line['hypervolume']),
        _share(line['best_recall_mean']),
      )


def points(analysis: Mapping[str, Any]) -> str:
  """Every setting of every method, over seeds."""
  rows = [
    (
      analysis['labels'][point['method']],
      pareto_words.spread(point['recall_mean'], point['recall_std']),
      pareto_words.spread(point['drop_mean'], point['drop_std']),
      _share(point['recall_seen']),
      _share(point['retention']),
      len(point['seeds']),
      _settings(point['settings']),
    )
    for point in [*analysis['points'], *analysis['references'].values()]
  ]
  head = (
    '', 'recall', 'known facts lost', 'recall, phrasings trained on',
    'earlier lessons kept', 'seeds', 'settings',
  )  # fmt: skip
  return page.table(head, rows) if rows else ''


def _by_drop(methods: Mapping[str, Any]) -> list[str]:
  """The least lost first; then those that do not get there."""

  def rank(name: str) -> tuple[bool, float]:
    drop = methods[name]['drop_mean']
    return drop is None, drop or 0.0

  return sorted(methods, key=rank)


def _place(names: Sequence[str], own: str) -> int | None:
  return names.index(own) if own in names else None


def _settings(settings: Mapping[str, Any]) -> str:
  """What a point set, without the names of sections and of its method."""
  return ', '.join(
    f'{key.split(".")[-1]}={value:g}'
    if isinstance(value, float)
    else f'{key.split(".")[-1]}={value}'
    for key, value in settings.items()
    if key != 'method.name'
  )


def _share(value: float | None) -> str | None:
  return None if value is None else pareto_words.share(value)


def _plus_minus(measure: Mapping[str, Any]) -> str | None:
  if measure['mean'] is None:
    return None
  std = '' if measure['std'] is None else f' ± {measure["std"]:.3f}'
  return f'{measure["mean"]:.3f}{std}'


def _number(value: float | None) -> str | None:
  return None if value is None else f'{value:.3g}'


def _count(value: float | None, unit: str = '') -> str | None:
  """Three digits, and k, M, G, T for thousands of thousands."""
  if value is None:
    return None
  for scale, prefix in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if value >= scale:
      return f'{value / scale:.3g} {prefix}{unit}'
  return f'{value:.3g} {unit}'.strip()
