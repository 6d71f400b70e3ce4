"""The results of a run as a few numbers and one table.

Functions take results as results.json has them, and leave out what was not
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smft_jax.report import page
from smft_jax.runtime import progress

TARGETS = ('target_unseen_phrasing', 'target', 'target_after_examples')
HEAD = ('set', 'metric', 'before', 'after', 'lost')
EDITS_HEAD = ('edits', 'before', 'right after', 'after all', 'exactly')

_NAMES = {
  'target': 'new, phrasings trained on',
  'target_unseen_phrasing': 'new, unseen phrasings',
  'target_after_examples': 'new, after other questions',
  'known': 'known before (held out)',
  'never_seen': 'never taught (control)',
}


def rows(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
  """Rows of the results table, with columns `HEAD`; targets come first.

  Example:
    >>> known = {'metric': 'recall', 'before': 1.0, 'after': 0.954}
    >>> rows({'held_out': {'known': known | {'relative_drop': 0.046}}})
    [('known before (held out)', 'recall', '100.0%', '95.4%', '4.60%')]
  """
  found: list[tuple[str, ...]] = [
    (name_of(key, results), *_row(measure), '')
    for key, measure in measured_targets(results).items()
  ]
  for name, measure in (results.get('held_out') or {}).items():
    drop = measure.get('relative_drop')
    # What was never taught cannot be lost.
    lost = '' if drop is None or is_control(name) else f'{drop:.2%}'
    found.append((name_of(name, results), *_row(measure), lost))
  return found


def lines(results: Mapping[str, Any]) -> list[str]:
  """The results table and the memory's health as lines of text.

  Example:
    >>> text = {'metric': 'nll', 'before': 2.0, 'after': 2.5}
    >>> text['relative_drop'] = 0.25
    >>> for line in lines({'held_out': {'wikitext': text}}):
    ...   print(line)
    set       metric  before  after    lost
    wikitext  NLL      2.000  2.500  25.00%
  """
  table = rows(results)
  if not table:
    return ['nothing was measured']
  found = page.columns([HEAD, *table], left=2)
  kept = unchanged(results)
  if kept:
    found.append(
      'answers unchanged: '
      + ', '.join(f'{value} {name}' for name, value in kept)
    )
  if results.get('edits'):
    found += ['', *page.columns([EDITS_HEAD, *edits(results)], left=1)]
  memory = memory_health(results)
  if memory:
    found.append(
      'memory: ' + ', '.join(f'{name} {value}' for name, value in memory)
    )
  return found


def unchanged(results: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Name and value of each share of answers that did not change.

  Example:
    >>> found = {'num': 500, 'share': 0.99, 'right': {'num': 0, 'share': None}}
    >>> unchanged({'answers_unchanged': found})
    [('of 500 to held-out questions', '99.0%')]
  """
  found = results.get('answers_unchanged') or {}
  named = (
    ('to held-out questions', found),
    ('that were right', found.get('right') or {}),
  )
  return [
    (f'of {one["num"]:,} {name}', f'{one["share"]:.1%}')
    for name, one in named
    if one.get('share') is not None
  ]


def edits(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
  """Rows of the table of edits, with columns `EDITS_HEAD`.

  Example:
    >>> shares = {'before': 0.0, 'right_after': 1.0, 'after': 0.96}
    >>> found = {'num': 50, 'reliability': shares}
    >>> edits({'edits': {**found, 'exact': {'reliability': shares}}})
    [('reliability', '0.0%', '100.0%', '96.0%', '96.0%')]
  """
  found = results.get('edits') or {}

  def share(measure: Mapping[str, Any], when: str) -> str:
    return 'unknown' if measure[when] is None else f'{measure[when]:.1%}'

  return [
    (
      name,
      *(
        share(found[name], when) for when in ('before', 'right_after', 'after')
      ),
      share(found['exact'][name], 'after'),
    )
    for name in ('reliability', 'generalisation', 'locality')
    if name in found
  ]


def memory_health(results: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Name and value of each measure of `evaluation.health`."""
  health = results.get('memory_health')
  if not health:
    return []
  return [
    ('slots', f'{health["slots"]:,}'),
    ('read', f'{health["usage"]:.1%}'),
    ('reads by the top 1%', f'{health["top_1_percent_share"]:.1%}'),
    ('KL to uniform', f'{health["kl_to_uniform"]:.2f} nats'),
  ]


def tiles(results: Mapping[str, Any]) -> list[tuple[str, str]]:
  """The numbers that people look for first, as (value, meaning)."""
  found = []
  for name, metric, before, after, lost in rows(results):
    if not lost:
      found.append((after or before, f'{metric}: {name}'))
    elif is_loss({'metric': metric.lower()}):
      found.append((lost, f'{metric} increase: {name}'))
    else:
      found.append((lost, f'{metric} lost: {name}'))
  share = results.get('params_changed_fraction')
  if share is not None:
    found.append((page.percent(share), 'of the parameters changed'))
  seconds = results.get('total_s', results.get('wall_s'))
  if seconds is not None:
    found.append((progress.duration(seconds), 'from start to end'))
  return found


def title(results: Mapping[str, Any]) -> str:
  """The method and seed of a run.

  Example:
    >>> title({'method': 'sparse_memory', 'seed': 1})
    'sparse memory, seed 1'
  """
  method = plain(str(results.get('method') or 'base model'))
  seed = results.get('seed')
  return method if seed is None else f'{method}, seed {seed}'


def measured_targets(results: Mapping[str, Any]) -> dict[str, Any]:
  """The targets with a value before and after, unseen phrasings first."""
  found = {key: results.get(key) or {} for key in TARGETS}
  return {
    key: measure
    for key, measure in found.items()
    if measure.get('before') is not None and measure.get('after') is not None
  }


def name_of(key: str, results: Mapping[str, Any]) -> str:
  """What to call an evaluation set."""
  target, unseen = results.get('target'), results.get('target_unseen_phrasing')
  if key in TARGETS[:2] and target and is_loss(target):
    # Losses are those of the documents' text, and of answers about it.
    if key == 'target':
      return 'the new documents'
    return 'answers about the new documents'
  if key == 'target' and not unseen:
    return 'the new documents'
  return _NAMES.get(key, plain(key))


def metric_of(measure: Mapping[str, Any]) -> str:
  """What to call a metric."""
  return plain(measure['metric']).replace('nll', 'NLL').replace('f1', 'F1')


def value_of(measure: Mapping[str, Any], when: str) -> str:
  """A value as text: '84.2%' for a recall, '2.310' for a loss."""
  value = measure.get(when)
  if value is None:
    return 'unknown'
  return page.number(value) if is_loss(measure) else f'{value:.1%}'


def is_loss(measure: Mapping[str, Any]) -> bool:
  """Whether less of the metric is better."""
  return str(measure['metric']).endswith(('nll', 'perplexity'))


def is_control(name: str) -> bool:
  """Whether a set was never taught, so that it cannot be forgotten."""
  return name.startswith('never')


def plain(name: str) -> str:
  """A key as words."""
  return name.replace('_', ' ')


def _row(measure: Mapping[str, Any]) -> tuple[str, str, str]:
  before, after = (
    '' if measure.get(when) is None else value_of(measure, when)
    for when in ('before', 'after')
  )
  return metric_of(measure), before, after
