"""What an analysis found, in sentences and in the paper's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smft_jax.analyze import stream_health
from smft_jax.evaluation import health

# A lesson that needs less than this of its rows needs fewer; ours.
_MOST_NEEDED = 0.9

KINDS = {
  'core': 'the core set',
  'trained': 'slots that the lesson changed',
  'background': 'slots that the background reads most',
}
"""What the kinds of slots are called whose reads are looked at."""

PLACES = {
  'inside': 'on names and values',
  'first': 'on the first word of one',
  'last': 'on the last word of one',
  'before': 'on the word before one',
}
"""Where words stand about entities, as `alignment.PLACES`."""


def headlines(numbers: Mapping[str, Any]) -> list[str]:
  """The answers to the questions that people ask of a memory."""
  return [
    where(numbers),
    trained(numbers),
    *fewer(numbers),
    *aligned(numbers)[:1],
    *healthy(numbers),
  ]


def where(numbers: Mapping[str, Any]) -> str:
  """Which slots hold a fact."""
  facts = numbers['facts']
  told = middle(facts, 'paraphrases')
  return (
    f'A fact is held by {spread(facts, "core", "slots")}: those that all its'
    f' {told:.0f} texts read, and its question too.'
  )


def trained(numbers: Mapping[str, Any]) -> str:
  """Whether the slots that hold a fact were those that were trained."""
  facts = numbers['facts']
  core = sum(fact['core'] for fact in facts)
  common = sum(fact['core_common'] for fact in facts)
  changed = sum(fact['core_trained'] for fact in facts)
  told = (
    f'Of the core sets {_percent(changed, core)} was trained'
    f' ({_percent(changed, core - common)} without slots that most background'
    f' texts read); they are'
    f' {_percent(changed, sum(f["lesson_rows"] for f in facts))} of the rows'
    ' that a lesson changed.'
  )
  answered = numbers.get('answered')
  if answered:
    told += (
      f' With the trained rows of its core set alone a question is answered'
      f' {answered["core_only"]:.0%} of the time, with all other rows of its'
      f' lesson {answered["all_but_core"]:.0%}, with both'
      f' {answered["lesson"]:.0%}, by the run {answered["run"]:.0%}.'
    )
  return told


def fewer(numbers: Mapping[str, Any]) -> list[str]:
  """Whether fewer slots would have done."""
  facts = numbers['facts']
  held = _with(facts, 'enough_rows_of_core')
  lessons = _with(numbers.get('enough_for_lessons', ()), 'enough')
  told = []
  if held:
    told.append(
      f'Of a core set {spread(held, "enough_rows_of_core", "rows")} suffice to'
      f' answer, for the {_percent(len(held), len(facts))} of the facts that'
      ' its rows alone answer.'
    )
  if lessons:
    rows, enough = middle(lessons, 'rows'), middle(lessons, 'enough')
    told.append(
      f'A lesson answers all that it answers with the best {enough:.0f} of the'
      f' {rows:.0f} rows it changed (medians): fewer would'
      f'{"" if enough < _MOST_NEEDED * rows else " not"} have done.'
    )
  return told


def aligned(numbers: Mapping[str, Any]) -> list[str]:
  """How reads of each kind of slots fall on names and values."""
  told = []
  for kind, name in KINDS.items():
    found = numbers['alignment'][kind]
    if found['inside'] is not None:
      shares = ', '.join(
        f'{found[place]["share"]:.0%} {where} (by chance'
        f' {found[place]["chance"]:.0%})'
        for place, where in PLACES.items()
      )
      told.append(f'Reads of {name}: {shares}.')
  return told


def healthy(numbers: Mapping[str, Any]) -> list[str]:
  """Whether the memory is healthy."""
  found = numbers['health']
  return [
    health.sentence(found['usage']),
    *stream_health.sentences(found),
  ]


def table(numbers: Mapping[str, Any]) -> list[tuple[str, ...]]:
  """The paper's table on this run: median, the paper's, quartiles, ends."""
  rows = [
    ('core', 'core set', '100 to 500'),
    ('read_by_every_paraphrase', 'slots that every text reads', ''),
    ('core_read_at_the_answer', 'core slots read at the answer', ''),
    ('core_common', 'core slots that most background texts read', ''),
    ('lesson_rows', 'rows that its lesson changed', ''),
    ('core_trained', 'core slots that its lesson changed', ''),
    ('enough_rows_of_core', 'of these enough to answer', '25 to 100'),
    ('enough_rows_of_lesson', "of the lesson's rows enough to answer", ''),
  ]
  found: list[tuple[str, ...]] = []
  for key, name, paper in rows:
    values = [fact[key] for fact in _with(numbers['facts'], key)]
    if values:
      low, first, half, third, high = np.quantile(
        values, (0, 0.25, 0.5, 0.75, 1)
      )
      found.append(
        (
          name,
          f'{half:g}',
          paper,
          f'{first:g}–{third:g}',
          f'{low:g}–{high:g}',
          str(len(values)),
        )
      )
  return found


def middle(entries: Sequence[Mapping[str, Any]], key: str) -> float:
  """The median of a number over entries.

  Example:
    >>> middle([{'rows': 3}, {'rows': 9}, {'rows': 4}], 'rows')
    4.0
  """
  return float(np.median([entry[key] for entry in entries]))


def spread(entries: Sequence[Mapping[str, Any]], key: str, unit: str) -> str:
  """A number's median and quartiles in words.

  Example:
    >>> spread([{'rows': n} for n in (3, 9, 4, 5, 4)], 'rows', 'rows')
    '4 rows (half of the facts: 4 to 5)'
  """
  low, high = np.quantile([entry[key] for entry in entries], (0.25, 0.75))
  return (
    f'{middle(entries, key):g} {unit} (half of the facts: {low:g} to {high:g})'
  )


def _with(
  entries: Sequence[Mapping[str, Any]], key: str
) -> list[Mapping[str, Any]]:
  """The entries that have a number."""
  return [entry for entry in entries if entry.get(key) is not None]


def _percent(part: float, whole: float) -> str:
  return f'{part / whole:.0%}' if whole else 'none'
