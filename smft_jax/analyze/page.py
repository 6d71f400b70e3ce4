"""One page about what a run's memory learned, in words and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
import pathlib
from typing import Any

from smft_jax.analyze import heat_map
from smft_jax.analyze import words as analysis_words
from smft_jax.report import chart as figures
from smft_jax.report import old_page as page
from smft_jax.report import old_run as report
from smft_jax.report import old_summary as summary
from smft_jax.store import atomic

_WAYS = {
  'base': 'no rows (the base)',
  'core_only': 'trained rows of its core set',
  'all_but_core': 'all other rows of its lesson',
  'lesson': 'all rows of its lesson',
  'run': 'all rows of the run',
}

# Lessons that changed a row: as many as this or more are counted together.
_MANY = 6


def write(
  workdir: pathlib.Path,
  numbers: Mapping[str, Any],
  maps: Sequence[heat_map.HeatMap],
  results: Mapping[str, Any],
  config: Mapping[str, Any],
  records: Sequence[Mapping[str, Any]],
) -> None:
  """Writes analysis.html.

  Args:
    workdir: Where to.
    numbers: What analysis.json holds.
    maps: The heat maps to show.
    results: What results.json holds.
    config: The resolved config.
    records: What metrics.jsonl holds.
  """
  body = [
    page.tiles(_tiles(numbers)),
    f'<p>{page.safe(summary.headline(results))}</p>',
    *_slots(numbers),
    *_fewer(numbers),
    *_maps(numbers, maps),
    *_health(numbers),
    *report.body(workdir, results, config, records),
  ]
  text = page.document(
    f'{report.title(results)} · analysis',
    analysis_words.where(numbers),
    body,
    figures.STYLE + heat_map.STYLE,
  )
  atomic.write_text(workdir / 'analysis.html', text)


def _tiles(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
  """The numbers that people look for first."""
  facts = numbers['facts']
  core = sum(fact['core'] for fact in facts)
  changed = sum(fact['core_trained'] for fact in facts)
  found = [
    (f'{analysis_words.middle(facts, "core"):g}', 'slots hold a fact (median)')
  ]
  if core:
    found.append((f'{changed / core:.0%}', 'of these were trained'))
  if 'answered' in numbers:
    share = f'{numbers["answered"]["core_only"]:.0%}'
    found.append((share, 'of the questions answered with these rows alone'))
  aligned = numbers['alignment']['core']['inside']
  if aligned is not None:
    told = 'of their reads on names and values, by chance'
    found.append((f'{aligned["share"]:.0%}', f'{told} {aligned["chance"]:.0%}'))
  return found


def _slots(numbers: Mapping[str, Any]) -> list[str]:
  """Which slots hold a fact, and whether they were trained."""
  head = ('', 'median', 'paper', 'half of them', 'all', 'facts')
  found = [
    '<h2>Which slots hold a fact, and were they trained?</h2>',
    _paragraph(analysis_words.trained(numbers)),
    page.table(head, analysis_words.table(numbers)),
    '<p class="soft">The core set of a fact: slots that every text telling it'
    ' reads, of those that its question with the answer reads.</p>',
  ]
  answered = numbers.get('answered')
  if answered:
    found += [
      '<h3>Questions answered, by the rows put into the base</h3>',
      page.bars(
        [
          (name, answered[key], f'{answered[key]:.0%}')
          for key, name in _WAYS.items()
        ]
      ),
    ]
  listed = [
    (
      fact['fact'],
      str(fact['core']),
      str(fact['core_trained']),
      ', '.join(map(str, fact['core_slots_trained'][:12]))
      + (' …' if fact['core_trained'] > 12 else ''),
    )
    for fact in numbers['facts']
  ]
  columns = ('fact', 'core set', 'trained', 'trained slots, best first')
  found.append(
    page.details('Every fact and its slots', page.table(columns, listed))
  )
  return found


def _fewer(numbers: Mapping[str, Any]) -> list[str]:
  """Whether fewer slots would have done."""
  if 'by_rows' not in numbers:
    return []
  looks = {
    'core': ('rows of its core set', 'blue', ''),
    'lesson': ('rows of its lesson', 'orange', '8 4'),
  }
  lines = []
  for kind, (label, color, dashes) in looks.items():
    curve = numbers['by_rows'][kind]
    points = zip(curve['rows'], curve['answered'], strict=True)
    lines.append(
      figures.Series(
        label=label,
        points=tuple((math.log10(rows), share) for rows, share in points),
        color=color,
        dashes=dashes,
      )
    )
  return [
    '<h2>Would fewer have done?</h2>',
    *map(_paragraph, analysis_words.fewer(numbers)),
    report.picture(
      {
        'series': lines,
        'x_label': 'best rows put into the base (each step tenfold)',
        'y_label': 'questions answered',
        'show': summary.percent,
        'show_x': lambda x: f'{10**x:.3g}',
        'y_range': (0.0, 1.0),
        'height': 280,
      }
    ),
    '<p class="soft">Rows of the finished table, by the rank that the run gave'
    ' them. Those left out were trained all the same: a run with a smaller t'
    ' could do better or worse.</p>',
    page.details(
      'Every lesson',
      page.table(
        ('lesson', 'rows changed', 'facts answered', 'rows enough for these'),
        [
          (str(one['lesson'] + 1), one['rows'], one['answered'], one['enough'])
          for one in numbers['enough_for_lessons']
        ],
      ),
    ),
  ]


def _maps(
  numbers: Mapping[str, Any], maps: Sequence[heat_map.HeatMap]
) -> list[str]:
  """Where in the texts the slots are read."""
  rows: list[tuple[str, ...]] = []
  for kind, name in analysis_words.KINDS.items():
    for place, where in analysis_words.PLACES.items():
      found = numbers['alignment'][kind][place]
      if found is not None:
        low, high = found['chance_low'], found['chance_high']
        rows.append(
          (
            name,
            where,
            f'{found["share"]:.1%}',
            f'{found["chance"]:.1%} ({low:.1%}–{high:.1%})',
            f'{found["ratio"]:.2f}',
          )
        )
  head = ('reads of', '', 'share', 'chance', 'ratio')
  shown = [heat_map.to_html(drawn) for drawn in maps]
  return [
    '<h2>Where in the text are they read?</h2>',
    *shown[:1],
    page.details('Facts of other lessons', '\n'.join(shown[1:])),
    *map(_paragraph, analysis_words.aligned(numbers)),
    page.details('All places', page.table(head, rows) if rows else ''),
    '<p class="soft">Chance: the reads of each text permuted over its words; in'
    ' brackets where 95% of 200 permutations lie.</p>',
  ]


def _health(numbers: Mapping[str, Any]) -> list[str]:
  """Whether the memory is healthy."""
  found = numbers['health']
  usage = found['usage']
  overlap, curve = found['overlap'], found['curve']
  facts = [
    ('slots', f'{usage["slots"]:,}'),
    ('never read', f'{usage["dead_slots"]:,}'),
    ('top 1% of the slots', f'{usage["top_1_percent_share"]:.1%} of the reads'),
    ('from uniform', f'{usage["kl_to_uniform"]:.2f} nats'),
    ('reads that moved', f'{found["drift"]:.2%}'),
  ]
  frequency = [
    (bin['label'], bin['slots'], f'{bin["slots"]:,}')
    for bin in found.get('document_frequency', ())
  ]
  scored = list(zip(curve['ranks'], curve['scores'], strict=True))
  t = found['t']
  by_lessons = overlap['by_lessons']
  counts = [*by_lessons[: _MANY - 1], sum(by_lessons[_MANY - 1 :])]
  names = ['1 lesson', *(f'{n} lessons' for n in range(2, _MANY))]
  shared = [
    (name, rows, f'{rows:,}')
    for name, rows in zip([*names, f'{_MANY} or more'], counts, strict=False)
    if rows
  ]
  stream = {
    label: tuple(enumerate(overlap[key], start=1))
    for key, label in (
      ('seen_before', 'changed by an earlier lesson'),
      ('rewritten', 'changed by a later lesson'),
    )
  }
  looks = (('blue', ''), ('orange', '8 4'))
  return [
    '<h2>Is the memory healthy?</h2>',
    *map(_paragraph, analysis_words.healthy(numbers)),
    page.facts(facts),
    '<h3>Slots by the share of background texts that read them</h3>'
    if frequency
    else '',
    page.bars(frequency),
    f'<h3>Scores by rank, and the cut at t = {t}</h3>',
    report.picture(
      {
        'series': [
          figures.Series(
            label='changed', points=_thinned(scored[:t]), color='blue'
          ),
          figures.Series(
            label='not changed',
            points=_thinned(scored[t - 1 :]),
            color='gray',
            dashes='3 4',
          ),
        ],
        'x_label': 'rank of the slot in a step',
        'y_label': 'mean score',
        'show': lambda y: f'{y:.2g}',
        'height': 240,
      }
    ),
    '<h3>Rows by how many lessons changed them</h3>',
    page.bars(shared),
    '<h3>Rows that lessons share</h3>',
    report.picture(
      {
        'series': [
          figures.Series(label=label, points=points, color=color, dashes=dashes)
          for (label, points), (color, dashes) in zip(
            stream.items(), looks, strict=True
          )
        ],
        'x_label': 'lesson',
        'y_label': "share of the lesson's rows",
        'show': summary.percent,
        'y_range': (0.0, 1.0),
        'height': 240,
      }
    ),
  ]


def _thinned(points: Sequence[tuple[float, float]]) -> tuple:
  """At most some 150 points, the last among them."""
  return (*points[: -1 : max(1, len(points) // 150)], points[-1])


def _paragraph(text: str) -> str:
  return f'<p>{page.safe(text)}</p>'
