"""Measures what a stream of lessons does to a memory.

Covers how often the background reads each slot, how scores fall with rank, how
many rows lessons share, and how many reads moved to other slots.
"""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import Any

import numpy as np
import numpy.typing

# Upper ends of the bins, as shares of the background's documents.
_EDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def frequency_histogram(
  document_frequency: numpy.typing.ArrayLike, num_documents: float
) -> list[dict[str, Any]]:
  """Counts slots by the share of background documents that read them.

  Args:
    document_frequency: [N], the number of documents that read each slot.
    num_documents: Number of documents.

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
  """Measures how lessons share the rows they change.

  Args:
    lessons: For each lesson, in order, the slots it changed; at least one.

  Returns:
    For each lesson, `rows`, its number of rows, `seen_before`, the share of
    them that an earlier lesson changed, and `rewritten`, the share that a later
    lesson changed; `all_rows`, the number of rows that any lesson changed; and
    `by_lessons`, how many of these were changed by 1, 2, ... lessons.

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
  """Computes the share of reads that moved to other slots.

  Args:
    before: int [..., A], the slots that tokens read in one model.
    after: The same tokens' slots in another model.

  Example:
    >>> slot_drift(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [3, 5]]))
    0.25
  """
  if before.shape != after.shape:
    raise ValueError(
      'slot ids before and after must have one shape, got'
      f' {before.shape} and {after.shape}'
    )
  width = before.shape[-1]
  pairs = zip(before.reshape(-1, width), after.reshape(-1, width), strict=True)
  kept = sum(int(np.isin(old, new).sum()) for old, new in pairs)
  return 1 - kept / before.size


def score_curve(scores: np.ndarray, t: int, most: int = 4) -> dict[str, Any]:
  """Averages scores by rank over steps.

  Args:
    scores: [steps, N], the scores of the slots in each step.
    t: Number of slots that a step changes.
    most: Ranks up to this multiple of t are returned.

  Returns:
    `ranks` and mean `scores`; `at_cut`, the score at rank t over that at rank
    1; `kept`, the best t slots' share of the sum of all scores.

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
