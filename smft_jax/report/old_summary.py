"""What results say, in words, in a few numbers and in lines to draw.

All functions take results as `results.json` holds them (DESIGN, section 5) and
leave out what was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smft_jax.evaluation import scores
from smft_jax.report import chart as figures
from smft_jax.runtime import progress
from smft_jax.store import atomic

_TARGETS = ('target', 'target_unseen_phrasing')

_NAMES = {
  'target': 'new, phrasings trained on',
  'target_unseen_phrasing': 'new, unseen phrasings',
  'known': 'known before (held out)',
  'never_seen': 'never taught (control)',
}


def headline(results: Mapping[str, Any]) -> str:
  """What came out, in a sentence or two of plain words.

  Example:
    >>> new = {'metric': 'nll', 'before': 4.0, 'after': 3.0}
    >>> old = {'metric': 'nll', 'before': 2.0, 'after': 2.02}
    >>> old['relative_drop'] = 0.01
    >>> print(headline({'target': new, 'held_out': {'wikitext2_test': old}}))
    The loss on the new documents fell by 25.0%, from 4.000 to 3.000 nats per token. The loss on wikitext2 test rose by 1.0%.
  """  # noqa: E501
  results = atomic.to_json(results)  # what is not a number was not measured
  targets = measured_targets(results)
  target = targets.get('target')
  new = targets.get('target_unseen_phrasing', target)
  if target and is_loss(target):
    new = target
  name, kept = _main_held_out(results)
  if new is None and kept is None:
    return 'Nothing was measured.'
  if new is None and kept.get('after') is not None:
    return f'Healed memory: {_healed(results["held_out"])}.'
  if new is None:
    value = value_of(kept, 'before')
    return f'The base model: {measure_of(kept)} {value} on {plain(name)}.'
  told = []
  before, after = value_of(new, 'before'), value_of(new, 'after')
  if is_loss(new):
    moved = _moved(scores.relative_drop(**_ends(new)))
    is_nll = new['metric'] == 'nll'
    what = 'loss on' if is_nll else f'{new["metric"]} of'
    unit = ' nats per token' if is_nll else ''
    told.append(
      f'The {what} the new documents {moved}, from {before} to {after}{unit}.'
    )
  else:
    unseen = new is not target
    where = ' in phrasings it never trained on' if unseen else ''
    told.append(
      f'It answers {after} of the questions on the new documents{where}'
      f' ({before} before).'
    )
  drop = kept and kept.get('relative_drop')
  if drop is None:
    pass
  elif is_loss(kept):
    told.append(f'The loss on {plain(name)} {_moved(drop)}.')
  elif drop > 0:
    told.append(f'It lost {drop:.1%} of what it knew.')
  else:
    told.append('It lost nothing of what it knew.')
  return ' '.join(told)


def tiles(results: Mapping[str, Any]) -> list[tuple[str, str]]:
  """The numbers that people look for first, as (value, what it is)."""
  found = []
  for key, measure in measured_targets(results).items():
    label = name_of(key, results)
    if is_loss(measure):
      change = scores.relative_drop(**_ends(measure))
      found.append((percent(change, '+'), f'{measure_of(measure)} on {label}'))
    else:
      value = value_of(measure, 'after')
      found.append((value, f'{measure_of(measure)}: {label}'))
  for name, measure in (results.get('held_out') or {}).items():
    drop = measure.get('relative_drop')
    of = f'{measure_of(measure)}: {name_of(name, results)}'
    if drop is None or (is_control(name) and not is_loss(measure)):
      when = 'before' if measure.get('after') is None else 'after'
      found.append((value_of(measure, when), of))
    elif is_loss(measure):
      label = f'{measure_of(measure)} on {plain(name)}'
      found.append((percent(drop, '+'), label))
    else:
      found.append(
        (percent(drop), f'of {measure_of(measure)} lost, {plain(name)}')
      )
  share = results.get('params_changed_fraction')
  if share is not None:
    found.append((percent(share), 'of the parameters changed'))
  seconds = results.get('total_s', results.get('wall_s'))
  if seconds is not None:
    found.append((progress.duration(seconds), 'from start to end'))
  return found


def measured_targets(results: Mapping[str, Any]) -> dict[str, Any]:
  """The targets that have a value before and after, unseen phrasings first."""
  found = {key: results.get(key) or {} for key in reversed(_TARGETS)}
  return {
    key: measure
    for key, measure in found.items()
    if measure.get('before') is not None and measure.get('after') is not None
  }


def retention_charts(results: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Arguments of `figures.line_chart` for the retention curve.

  Recall and its like share one chart, from 0 to 100%. Losses share another,
  as changes from before the stream. The one with the target comes first.
  """
  curve = results.get('retention_curve') or []
  held_out = results.get('held_out') or {}
  looks = {'target_unseen_phrasing': ('blue', ''), 'target': ('blue', '2 5')}
  target, unseen = (results.get(key) for key in _TARGETS)
  if target and (is_loss(target) or not unseen):
    looks = {'target': ('blue', ''), 'target_unseen_phrasing': ('blue', '2 5')}
  others = iter([('orange', ''), ('green', '8 4'), ('purple', '8 3 2 3')])
  for name in held_out:
    control = is_control(name)
    looks[name] = ('gray', '3 4') if control else next(others, ('green', ''))
  shares: list[figures.Series] = []
  losses: list[figures.Series] = []
  for name, (color, dashes) in looks.items():
    measure = (results if name in _TARGETS else held_out).get(name)
    points = _points(curve, name)
    if measure is None or len(points) < 2:
      continue
    if is_loss(measure):
      first = points[0][1]
      points = tuple((x, y / first - 1) for x, y in points)
    line = figures.Series(
      label=name_of(name, results), points=points, color=color, dashes=dashes
    )
    (losses if is_loss(measure) else shares).append(line)
  found: list[dict[str, Any]] = []
  if shares:
    measures = [results.get('target') or {}, *held_out.values()]
    named = next(m for m in measures if m and not is_loss(m))
    found.append(
      {
        'series': shares,
        'y_label': measure_of(named),
        'y_range': (0.0, 1.0),
        'show': percent,
      }
    )
  if losses:
    found.append(
      {
        'series': losses,
        'y_label': 'change of NLL (lower is better)',
        'show': lambda y: percent(y, '+') if y else '0%',
      }
    )
  found.sort(key=lambda c: 'blue' not in {line.color for line in c['series']})
  for after_the_first in found[1:]:
    after_the_first['height'] = 240
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
  # No screen shows more than some hundred points; the last one is the result.
  thinned = [*points[: -1 : max(1, len(points) // 200)], points[-1]]
  line = figures.Series(
    label='pretraining of the base', points=tuple(thinned), color='green'
  )
  return [
    {
      'series': [line],
      'x_label': 'steps',
      'y_label': 'loss, nats per token',
      'show': lambda y: f'{y:.3g}',
      'height': 240,
    }
  ]


def name_of(key: str, results: Mapping[str, Any]) -> str:
  """What a person calls an evaluation set."""
  target, unseen = (results.get(k) for k in _TARGETS)
  if key in _TARGETS and target and is_loss(target):
    # Losses are of the documents' own text, and of answers on it.
    return (
      'the new documents'
      if key == 'target'
      else 'answers about the new documents'
    )
  if key == 'target' and not unseen:
    return 'the new documents'
  return _NAMES.get(key, plain(key))


def measure_of(measure: Mapping[str, Any]) -> str:
  """What a person calls a metric."""
  return plain(measure['metric']).replace('nll', 'NLL').replace('f1', 'F1')


def value_of(measure: Mapping[str, Any], when: str) -> str:
  """A value as text: '84.2%' of a recall, '2.310' of a loss."""
  value = measure.get(when)
  if value is None:
    return 'unknown'
  return f'{value:.3f}' if is_loss(measure) else f'{value:.1%}'


def is_loss(measure: Mapping[str, Any]) -> bool:
  """Whether less of the metric is better."""
  return str(measure['metric']).endswith(('nll', 'perplexity'))


def is_control(name: str) -> bool:
  """Whether a set was never taught, so that a change is not forgetting."""
  return name.startswith('never')


def percent(share: float, sign: str = '') -> str:
  """A share in percent, three digits of it.

  Example:
    >>> percent(0.8421), percent(-0.0046, '+'), percent(1.0)
    ('84.2%', '-0.46%', '100%')
  """
  return f'{100 * share:{sign}.3g}%'


def plain(name: str) -> str:
  """A key as words."""
  return name.replace('_', ' ')


def _main_held_out(results: Mapping[str, Any]) -> tuple[str, Any]:
  """The held-out set that tells forgetting: of the kind the target is of."""
  held_out = results.get('held_out') or {}
  target = results.get('target')
  candidates = [name for name in held_out if not is_control(name)]
  alike = [
    name
    for name in candidates
    if target is None or is_loss(held_out[name]) == is_loss(target)
  ]
  if target and is_loss(target):
    # Among losses that of running text tells most; answers are few tokens.
    alike.sort(key=lambda name: name == 'known')
  name = next(iter(alike or candidates), '')
  return name, held_out.get(name)


def _points(
  curve: Sequence[Mapping[str, Any]], name: str
) -> tuple[tuple[float, float], ...]:
  """Where a set was measured along the stream."""
  measured = (
    (
      at['documents'],
      (at if name in _TARGETS else at.get('held_out') or {}).get(name),
    )
    for at in curve
  )
  return tuple((x, y) for x, y in measured if y is not None)


def _healed(held_out: Mapping[str, Any]) -> str:
  """Every measure but the controls, as it came and as it is."""
  return ', '.join(
    f'{measure_of(one)} on {plain(name)} {value_of(one, "before")} before and'
    f' {value_of(one, "after")} after'
    for name, one in held_out.items()
    if not is_control(name)
  )


def _moved(change: float) -> str:
  return f'{"rose" if change >= 0 else "fell"} by {abs(change):.1%}'


def _ends(measure: Mapping[str, Any]) -> dict[str, Any]:
  return {key: measure[key] for key in ('metric', 'before', 'after')}
