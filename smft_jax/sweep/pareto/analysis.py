"""Learning against forgetting: fronts, equal learning, dominated areas.

Each row of the table is one run: a method with one setting and one seed, with
`recall`, the share of the questions on the new documents that it answers after
the whole stream (in phrasings it never trained on), and `drop`, the share of
earlier knowledge that it lost (`scores.relative_drop`; below 0 for a gain), or
the share of its other answers that changed.

**Front** of a method and seed: those of its points and the untouched model (the
recall before the stream, drop 0) that no other dominates. Its drop is linear
between neighbors, that of the first point below it, and undefined beyond its
last point.

**Equal learning**: the drop of every method at one target recall, the highest
that sparse memory and each headline rival reach with every seed. `drop_mean` is
over the `seeds` that reach it, `reached` whether all do, and `drop_std` the
sample standard deviation (ddof 1; None for one seed). For a method that reaches
the target with no seed, `drop_mean` is None; `best_recall_mean` shows how far
it got. `ratio` is its mean drop over that of sparse memory, over the seeds that
both have; None where sparse memory lost nothing. If sparse memory alone reaches
more, `equal_learning_at_own_reach` is the same table at its own reach. `at` is
the setting that costs are taken from: of those with at least the target recall
in the mean over seeds the one with the least drop, or else the one with the
best recall.

**Hypervolume**: the area of (recall, 1 - drop) that the front of a seed
dominates, in [0, 1]. It can only grow with the number of points.

**Domination**: in each seed that both have, whether the front reaches as far as
the rival's and its drop is nowhere larger and somewhere smaller.

References, such as in-context reading, change no weights: they have one point,
no front, and set no target. Points without recall or drop count as points only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import pathlib
from typing import Any

from smft_jax import schema
from smft_jax.store import atomic
from smft_jax.store import paths
from smft_jax.sweep.pareto import fronts as pareto_fronts
from smft_jax.sweep.pareto import panels as pareto_panels
from smft_jax.sweep.pareto import table

# What a drop is, in words.
_LOST = {'known': 'known facts lost', 'answers': 'other answers changed'}


def forgetting(report: Mapping[str, Any]) -> str:
  """Returns what REPORT of a config says that forgetting is.

  Args:
    report: Its `forgetting` is 'known' (default) or 'answers', see
      `sweep.table`.

  Raises:
    UserError: If it is neither.
  """
  found = report.get('forgetting', 'known')
  return schema.one_of("REPORT['forgetting']", found, _LOST)


def analyse(
  rows: Iterable[table.Row], report: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns what pareto.json holds.

  Args:
    rows: Rows of the table, one for each finished point.
    report: REPORT of the sweep's config; all keys are optional. `own` is the
      method compared with the others ('sparse_memory'), `headline` its rivals
      that set the target (('full', 'lora')), `references` methods without
      training (('in_context',)), `labels` names of methods, `forgetting` what
      the drop is (`forgetting`), and `panels` the ablations (`panels`).

  Returns:
    own, headline, forgetting, lost (the same in words), missing (those of own
    and headline without points), equal_learning, equal_learning_at_own_reach
    (None if that is the same), hypervolume, fronts, domination, points,
    references, panels and labels, as JSON.

  Raises:
    ValueError: If there are no rows.

  Example:
    >>> rows = [
    ...   dict(method=method, seed=0, recall_before=0.0, recall=0.8, drop=drop)
    ...   for method, drop in
    ...   [('sparse_memory', 0.01), ('full', 0.4), ('lora', 0.2)]]
    >>> learned = analyse(rows, {})['equal_learning']
    >>> learned['target'], learned['methods']['lora']['ratio']
    (0.8, 20.0)
  """
  rows = list(rows)
  if not rows:
    raise ValueError('the table has no finished point: nothing to compare')
  own = report.get('own', 'sparse_memory')
  wanted = [own, *report.get('headline', ('full', 'lora'))]
  references = report.get('references', ('in_context',))
  by_method = table.group(
    (row for row in rows if table.MAIN in table.panels_of(row)),
    lambda row: row.get('method'),
  )
  compared = {
    method: by_method[method]
    for method in dict.fromkeys([*wanted, *by_method])
    if method in by_method and method not in references
  }
  points = {m: table.collapse(group) for m, group in compared.items()}
  fronts = {m: table.fronts(group) for m, group in compared.items()}
  present = [method for method in wanted if fronts.get(method)]
  anchors = present or [method for method in fronts if fronts[method]]
  target = table.common_reach(fronts, anchors)
  reach = table.common_reach(fronts, [own]) if fronts.get(own) else None
  further = reach is not None and target is not None and reach > target + 1e-9
  found: dict[str, Any] = {
    'own': own,
    'headline': wanted[1:],
    'forgetting': forgetting(report),
    'lost': _LOST[forgetting(report)],
    'missing': [method for method in wanted if method not in present],
    'equal_learning': _equal_learning(compared, points, fronts, target, own),
    'equal_learning_at_own_reach': (
      _equal_learning(compared, points, fronts, reach, own) if further else None
    ),
    'hypervolume': {
      method: table.hypervolume(group) for method, group in fronts.items()
    },
    'fronts': {
      method: {
        'mean': table.mean_front(points[method], compared[method]),
        'seeds': fronts[method],
      }
      for method in fronts
    },
    'domination': {
      method: _domination(fronts[own], fronts[method])
      for method in fronts
      if fronts.get(own) and method != own
    },
    'points': [point for group in points.values() for point in group],
    'references': {
      method: table.collapse(
        # Nothing is lost where no weight changes.
        [{**row, 'drop': row.get('drop') or 0.0} for row in by_method[method]],
        lambda row: row.get('method'),
      )[0]
      for method in references
      if method in by_method
    },
    'panels': pareto_panels.panels(rows, report),
  }
  found['labels'] = {
    method: table.label(str(method), report.get('labels'))
    for method in dict.fromkeys([*wanted, *by_method])
  }
  return atomic.to_json(found)


def write(
  rows: Iterable[table.Row],
  workdir: str | pathlib.Path,
  report: Mapping[str, Any],
  failed: Sequence[str] = (),
) -> None:
  """Writes pareto.json, pareto.png and report.html.

  Args:
    rows: Rows of the table, one for each finished point.
    workdir: An existing folder.
    report: REPORT of the sweep's config, see `analyse`.
    failed: Names of the points without results.

  Raises:
    ValueError: If there are no rows.
  """
  # Drawing takes a while to import, and only this needs it.
  from smft_jax.sweep.pareto import report as pareto_report

  workdir = paths.expand(workdir)
  analysis = analyse(rows, report)
  analysis['failed'] = list(failed)
  atomic.write_json(workdir / 'pareto.json', analysis)
  pareto_report.write_report(analysis, workdir, report)


def _equal_learning(
  rows: Mapping[str, Sequence[table.Row]],
  points: Mapping[str, Sequence[Mapping[str, Any]]],
  fronts: Mapping[str, table.SeedFronts],
  target: float | None,
  own: str,
) -> dict[str, Any]:
  """Returns the drop of every method at the target recall."""
  if target is None:
    return {'target': None, 'methods': {}}
  methods: dict[str, dict[str, Any]] = {}
  for method, group in fronts.items():
    drops = {
      seed: pareto_fronts.drop_at(front, target)
      for seed, front in group.items()
    }
    reached = {s: drop for s, drop in drops.items() if drop is not None}
    best = [front[-1][0] for front in group.values()]
    tuned = [row['tuned'] for row in rows[method] if row.get('tuned')]
    methods[method] = {
      'drop_mean': table.mean(reached.values()),
      'drop_std': table.std(reached.values()),
      'drops': drops,
      'seeds': len(reached),
      'seeds_run': len(set(map(table.seed_of, rows[method]))),
      'reached': bool(reached) and None not in drops.values(),
      'points': len(rows[method]),
      'settings': len(points[method]),
      'tuned': max(tuned, default=None),
      'best_recall_mean': table.mean(best),
      'best_recall_std': table.std(best),
      'at': _setting_at(points[method], target),
    }
  ours = (methods.get(own) or {}).get('drops', {})
  for found in methods.values():
    found['ratio'] = _ratio(ours, found['drops'])
  return {'target': target, 'methods': methods}


def _ratio(
  ours: Mapping[str, float | None], theirs: Mapping[str, float | None]
) -> float | None:
  """Mean drop over ours, over shared seeds; None where we lost nothing."""
  pairs = [
    (drop, theirs[seed])
    for seed, drop in ours.items()
    if drop is not None and theirs.get(seed) is not None
  ]
  own = table.mean(drop for drop, _ in pairs)
  rival = table.mean(drop for _, drop in pairs)
  if own is None or rival is None or own <= 0:
    return None
  return rival / own


def _setting_at(
  points: Sequence[Mapping[str, Any]], target: float
) -> dict[str, Any] | None:
  """The setting whose costs represent the method at the target."""
  placed = [point for point in points if point['recall_mean'] is not None]
  if not placed:
    return None
  enough = [point for point in placed if point['recall_mean'] >= target - 1e-9]
  if enough:
    chosen = min(enough, key=lambda point: point['drop_mean'])
  else:
    chosen = max(placed, key=lambda point: point['recall_mean'])
  keys = ('settings', 'seeds', 'recall_mean', 'drop_mean')
  return {key: chosen[key] for key in (*keys, *table.MEASURES)}


def _domination(
  own: table.SeedFronts, rival: table.SeedFronts
) -> dict[str, Any]:
  """Compares our front with the rival's, seed by seed."""
  seeds = {
    seed: pareto_fronts.match(own[seed], rival[seed])._asdict()
    for seed in sorted(set(own) & set(rival))
  }
  return {
    'everywhere': bool(seeds) and all(s['dominates'] for s in seeds.values()),
    'seeds': seeds,
  }
