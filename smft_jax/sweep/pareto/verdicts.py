"""What a comparison showed, in sentences with numbers, goals missed included.

A verdict is a dict: `kind`, `met` (True, False, or None where nothing was to be
met or it cannot be told), `sentence`, and the numbers that the sentence says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import itertools
from typing import Any

from smft_jax.sweep.pareto import words as pareto_words

GOAL = 5.0


def verdicts(
  analysis: Mapping[str, Any], report: Mapping[str, Any]
) -> list[dict[str, Any]]:
  """All verdicts: drops at equal learning, fronts, order of the ablations.

  Args:
    analysis: what `analysis.analyse` found.
    report: REPORT of the sweep's config; `goal` and `labels` are read.
  """
  names = analysis['labels']
  found = [
    {
      'kind': 'missing',
      'method': method,
      'met': None,
      'sentence': (
        f'{pareto_words.capital(names[method])} has no finished point here, so'
        ' nothing is said about it.'
      ),
    }
    for method in analysis['missing']
  ]
  goal = float(report.get('goal', GOAL))
  for part in ('equal_learning', 'equal_learning_at_own_reach'):
    table = analysis[part]
    if table and analysis['own'] in table['methods']:
      found += [
        _ratio(analysis, table, rival, goal, part)
        for rival in analysis['headline']
        if rival in table['methods']
      ]
  found += [
    _dominates(analysis, rival)
    for rival in analysis['domination']
    if analysis['domination'][rival]['seeds']
  ]
  for name, panel in analysis['panels'].items():
    found += _orders(name, panel)
    found += _course(name, panel) if panel['kind'] == 'sweep' else []
  return found


def _ratio(
  analysis: Mapping[str, Any],
  table: Mapping[str, Any],
  rival: str,
  goal: float,
  part: str,
) -> dict[str, Any]:
  """The rival's drop over that of our method, at the same recall."""
  ours = table['methods'][analysis['own']]
  theirs = table['methods'][rival]
  own_name = analysis['labels'][analysis['own']]
  name = analysis['labels'][rival]
  drop, rival_drop = ours['drop_mean'], theirs['drop_mean']
  found: dict[str, Any] = {
    'kind': 'drop_ratio',
    'at': part,
    'rival': rival,
    'recall': table['target'],
    'drop': drop,
    'rival_drop': rival_drop,
    'ratio': theirs['ratio'],
    'ratio_by_seed': _ratios(ours['drops'], theirs['drops']),
    'goal': goal,
    'met': None,
  }
  sentence = (
    f'At a recall of {pareto_words.share(table["target"])} of the new facts,'
    f' {own_name} lost {pareto_words.spread(drop, ours["drop_std"])} of what it'
    ' knew'
  )
  if rival_drop is None:
    best = pareto_words.share(theirs['best_recall_mean'])
    found['sentence'] = (
      f'{sentence}; {name} does not get there: its best recall is {best}.'
    )
    return found
  lost = pareto_words.spread(rival_drop, theirs['drop_std'])
  sentence += f' and {name} {lost}'
  if theirs['seeds'] < theirs['seeds_run']:
    sentence += f' ({theirs["seeds"]} of {theirs["seeds_run"]} seeds get there)'
  both = [
    seed
    for seed, own_drop in ours['drops'].items()
    if own_drop is not None and theirs['drops'].get(seed) is not None
  ]
  ratio, each = theirs['ratio'], found['ratio_by_seed'].values()
  if not both:
    rest = 'they have no seed in common to compare'
  elif ratio is None:
    # Any loss is more than five times nothing.
    found['met'] = rival_drop > 0
    rest = f'{own_name} lost nothing, {name} ' + (
      f'did, so the goal of {goal:g} times is met'
      if found['met']
      else f'neither, so the goal of {goal:g} times is missed'
    )
  else:
    found['met'] = ratio >= goal
    rest = (
      f'{pareto_words.times(ratio)} times as much, so the goal of {goal:g}'
      f' times {"is met" if found["met"] else "is missed"}'
    )
    if len(each) == len(both) > 1:
      low, high = map(pareto_words.times, (min(each), max(each)))
      rest += f' (over seeds {low} to {high} times)'
  found['sentence'] = f'{sentence}: {rest}.'
  return found


def _ratios(
  ours: Mapping[str, float | None], theirs: Mapping[str, float | None]
) -> dict[str, float]:
  """Seed by seed, where there is something to divide by."""
  ratios = {}
  for seed, drop in ours.items():
    rival_drop = theirs.get(seed)
    if drop is not None and drop > 0 and rival_drop is not None:
      ratios[seed] = rival_drop / drop
  return ratios


def _dominates(analysis: Mapping[str, Any], rival: str) -> dict[str, Any]:
  """Whether our front lies below the rival's at every recall it reaches."""
  match = analysis['domination'][rival]
  own_name = pareto_words.capital(analysis['labels'][analysis['own']])
  name = analysis['labels'][rival]
  seeds = match['seeds']
  others = [at for at in seeds.values() if not at['dominates']]
  found = {
    'kind': 'dominates',
    'rival': rival,
    'seeds': len(seeds),
    'dominated': len(seeds) - len(others),
    'met': match['everywhere'],
  }
  every = f'all {len(seeds)} seeds' if len(seeds) > 1 else 'the one seed run'
  if not others:
    found['sentence'] = (
      f'{own_name} loses less than {name} at every recall that {name} came to,'
      f' in {every}.'
    )
    return found
  far = max(others, key=lambda at: at['rival_best_recall'] - at['best_recall'])
  reach = ''
  if far['rival_best_recall'] > far['best_recall'] + 1e-9:
    reach = (
      f'{name} came to a recall of'
      f' {pareto_words.share(far["rival_best_recall"])} where'
      f' {own_name.lower()} came to {pareto_words.share(far["best_recall"])}'
    )
  if all(at['below'] for at in seeds.values()):
    found['sentence'] = (
      f'{own_name} loses less than {name} at every recall that both came to, in'
      f' {every}, but {reach}.'
    )
    return found
  reasons = [reach] if reach else []
  worst = max(others, key=lambda at: at['most_excess'])
  if worst['most_excess'] > 1e-9:
    reasons.append(
      f'at a recall of {pareto_words.share(worst["at_recall"])}, {name} lost'
      f' {100 * worst["most_excess"]:.2g} percentage points less'
    )
  found['sentence'] = (
    f'{own_name} does not lose less than {name} everywhere; it does in'
    f' {found["dominated"]} of {len(seeds)} seeds. At worst,'
    f' {" and ".join(reasons) or "the two are equal"}.'
  )
  return found


def _orders(name: str, panel: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Whether the lines of an ablation came out in the expected order."""
  found = []
  for facet in panel['facets'] if len(panel['order']) > 1 else ():
    lines = {
      line['key']: line
      for line in facet['lines']
      if line['hypervolume']['mean'] is not None
    }
    title = panel['title']
    if facet['value'] is not None:
      title += f' ({panel["x_label"]} = {facet["value"]})'
    missing = [
      name
      for key, name in zip(panel['order'], panel['order_labels'], strict=True)
      if key not in lines
    ]
    verdict: dict[str, Any] = {
      'kind': 'order',
      'panel': name,
      'facet': facet['value'],
      'order': panel['order'],
    }
    if missing:
      verdict |= {
        'met': None,
        'sentence': (
          f'{title}: the order is open, as there is no'
          f' {" and no ".join(missing)}.'
        ),
      }
      found.append(verdict)
      continue
    ordered = [lines[key] for key in panel['order']]
    areas = [line['hypervolume']['mean'] for line in ordered]
    drops = [line['drop_mean'] for line in ordered]
    by_area, by_drop = _falls(areas), _falls([-drop for drop in drops])
    said = ', '.join(
      f'{line["label"]} lost'
      f' {pareto_words.spread(line["drop_mean"], line["drop_std"])}'
      f' (area {area:.3f})'
      for line, area in zip(ordered, areas, strict=True)
    )
    outcome = {
      (True, True): 'the expected order holds, by drop and by area',
      (True, False): 'the expected order holds by area, not by drop',
      (False, True): 'the expected order holds by drop, not by area',
      (False, False): 'the expected order does not hold',
    }[by_area, by_drop]
    verdict |= {
      'met': by_area and by_drop,
      'by_area': by_area,
      'by_drop': by_drop,
      'recall': facet['recall'],
      'sentence': (
        f'{title}: at a recall of {pareto_words.share(facet["recall"])},'
        f' {said}; {outcome}.'
      ),
    }
    found.append(verdict)
  return found


def _course(name: str, panel: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Where a sweep begins and ends, and the largest step of drop in between."""
  found = []
  lines = [line for facet in panel['facets'] for line in facet['lines']]
  for line in lines:
    points = [p for p in line['points'] if p['recall_mean'] is not None]
    if not points:
      continue
    who = f'{pareto_words.capital(line["label"])}: ' if len(lines) > 1 else ''
    if any(isinstance(point['x'], str) for point in points):
      told = '; '.join(map(_place, points))
    else:
      told = f'from {_place(points[0])} to {_place(points[-1])}'
    sentence = f'{who}{panel["x_label"]}: {told}.'
    if len(points) > 2 and not isinstance(points[0]['x'], str):
      before, after = max(
        itertools.pairwise(points),
        key=lambda pair: pair[1]['drop_mean'] - pair[0]['drop_mean'],
      )
      if after['drop_mean'] > before['drop_mean']:
        sentence += (
          f' The largest step of loss is from {before["x"]:g}'
          f' ({pareto_words.share(before["drop_mean"])}) to {after["x"]:g}'
          f' ({pareto_words.share(after["drop_mean"])}).'
        )
    found.append(
      {'kind': 'sweep', 'panel': name, 'met': None, 'sentence': sentence}
    )
  return found


def _place(point: Mapping[str, Any]) -> str:
  x = point['x'] if isinstance(point['x'], str) else f'{point["x"]:g}'
  recall = pareto_words.share(point['recall_mean'])
  return f'{x} (recall {recall}, lost {pareto_words.share(point["drop_mean"])})'


def _falls(values: Sequence[float]) -> bool:
  return all(a > b for a, b in itertools.pairwise(values))
