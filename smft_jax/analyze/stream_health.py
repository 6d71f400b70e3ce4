"""What a stream of lessons does to a memory, beside `health`'s counts.

How often the background reads each slot, where the cut at t falls among the
scores, how much later lessons write over earlier ones, and whether texts still
read the slots that they read before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import itertools
from typing import Any

import numpy as np
import numpy.typing

# Shares of the background's documents; a bin ends at each.
_EDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

# A lesson that shares more of its rows than this with earlier ones writes over
# most of what they left; ours.
_MOST_REWRITTEN = 0.5


def frequency_histogram(
  document_frequency: numpy.typing.ArrayLike, num_documents: float
) -> list[dict[str, Any]]:
  """How many slots the background reads how often.

  Args:
    document_frequency: [N], in how many documents each slot is read.
    num_documents: How many documents there are.

  Returns:
    Bins in order, each a `label` and the number of `slots` in it: those never
    read, and then by the share of the documents that read them.

  Example:
    >>> [bin['slots'] for bin in frequency_histogram([0, 1, 50, 900], 1000)]
    [1, 1, 0, 0, 0, 1, 0, 1]
  """
  frequency_N = np.asarray(document_frequency, np.float64)
  place_N = np.searchsorted(_EDGES, frequency_N / num_documents)
  place_N = np.where(frequency_N == 0, 0, place_N + 1)
  slots = np.bincount(place_N, minlength=len(_EDGES) + 1)
  bins = itertools.pairwise((0.0, *_EDGES))
  labels = ['never', *(f'{100 * low:g}–{100 * high:g}%' for low, high in bins)]
  return [
    {'label': label, 'slots': int(count)}
    for label, count in zip(labels, slots, strict=True)
  ]


def lesson_overlap(lessons: Sequence[np.ndarray]) -> dict[str, Any]:
  """How lessons share the rows they change.

  Args:
    lessons: Of each lesson in its order the slots it changed; at least one.

  Returns:
    `rows`: rows of each lesson; `seen_before`: of each lesson the share of
    these that an earlier lesson had changed; `rewritten`: of each lesson the
    share that a later lesson changed too; `all_rows`: how many rows any lesson
    changed; `by_lessons`: how many of these 1, 2, ... lessons changed.

  Example:
    >>> found = lesson_overlap([np.array([1, 2]), np.array([2, 3])])
    >>> found['seen_before'], found['rewritten'], found['by_lessons']
    ([0.0, 0.5], [0.5, 0.0], [2, 1])
  """
  slots, times = np.unique(np.concatenate(lessons), return_counts=True)

  def shares(ordered: Sequence[np.ndarray]) -> list[float]:
    found, earlier = [], np.zeros(0, np.int64)
    for lesson in ordered:
      known = np.isin(lesson, earlier).sum()
      found.append(float(known / max(len(lesson), 1)))
      earlier = np.union1d(earlier, lesson)
    return found

  return {
    'rows': [len(lesson) for lesson in lessons],
    'seen_before': shares(lessons),
    'rewritten': shares(lessons[::-1])[::-1],
    'all_rows': len(slots),
    'by_lessons': np.bincount(times)[1:].tolist(),
  }


def slot_drift(before: np.ndarray, after: np.ndarray) -> float:
  """The share of reads that are of other slots than before.

  Args:
    before: int [..., A], the slots that tokens read of one model.
    after: The same of another.

  Returns:
    From 0, where every token reads the slots it read, to 1.

  Raises:
    ValueError: If they are not of the same tokens.

  Example:
    >>> slot_drift(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [3, 5]]))
    0.25
  """
  if before.shape != after.shape:
    raise ValueError(
      f'slot ids of the same tokens are alike in shape, got {before.shape} and'
      f' {after.shape}'
    )
  both = zip(
    before.reshape(-1, before.shape[-1]),
    after.reshape(-1, after.shape[-1]),
    strict=True,
  )
  kept = sum(int(np.isin(old, new).sum()) for old, new in both)
  return 1 - kept / before.size


def score_curve(scores: np.ndarray, t: int, most: int = 4) -> dict[str, Any]:
  """How scores fall with rank, and where the cut at t is.

  Args:
    scores: [steps, N], the scores of the slots in some steps.
    t: How many slots a step changes.
    most: Ranks are shown up to so many times t.

  Returns:
    `ranks` and `scores`, the mean over the steps of the score at each rank;
    `at_cut`: the score at rank t over that at rank 1; `kept`: the share of the
    sum of all scores that the best t have.

  Example:
    >>> curve = score_curve(np.array([[4.0, 1.0, 3.0, 0.0]]), t=2)
    >>> curve['scores'], curve['at_cut'], curve['kept']
    ([4.0, 3.0, 1.0, 0.0], 0.75, 0.875)
  """
  falling = np.sort(np.maximum(scores, 0), axis=1)[:, ::-1].mean(axis=0)
  end = min(most * t, len(falling))
  total = falling.sum()
  return {
    'ranks': list(range(1, end + 1)),
    'scores': falling[:end].tolist(),
    'at_cut': float(falling[min(t, end) - 1] / falling[0]) if total else 0.0,
    'kept': float(falling[:t].sum() / total) if total else 0.0,
  }


def sentences(found: Mapping[str, Any]) -> list[str]:
  """What `lesson_overlap`, `score_curve` and `slot_drift` found, in words.

  Args:
    found: Their results as `overlap`, `curve` and `drift`, and `t`.
  """
  overlap, curve = found['overlap'], found['curve']
  before = float(np.mean(overlap['seen_before']))
  told = [
    f'A lesson changes {np.mean(overlap["rows"]):.0f} rows on average, and all'
    f' {len(overlap["rows"])} lessons {overlap["all_rows"]} different ones.',
    f"{before:.0%} of a lesson's rows had been changed by an earlier lesson: "
    + (
      f'lessons keep mostly apart (at most {_MOST_REWRITTEN:.0%}).'
      if before <= _MOST_REWRITTEN
      else f'lessons write over each other (more than {_MOST_REWRITTEN:.0%}).'
    ),
    f'The best {found["t"]} slots of a step have {curve["kept"]:.0%} of the sum'
    f' of all scores; the last of them scores {curve["at_cut"]:.0%} of the'
    ' first.',
  ]
  drift = found['drift']
  told.append(
    'Texts read the very slots that they read before the stream: none moved.'
    if not drift
    else f'{drift:.1%} of what texts read is of other slots than before the'
    ' stream: statistics counted before it fit that much less.'
  )
  return told
