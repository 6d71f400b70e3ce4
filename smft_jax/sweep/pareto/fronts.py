"""Fronts of points (recall, drop): more of the first, less of the second.

A front is a list of points from little recall to much, none of which another
dominates, so that drop grows along it too. Nothing here knows of methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

Point = tuple[float, float]

# Differences of recall and drop below this are noise of floating point.
_NOISE = 1e-9


def front(points: Iterable[Point]) -> list[Point]:
  """The points that no other dominates, from little recall to much.

  A point dominates another if it has as much recall and as little drop, and is
  better in one of them. Of equal points one stays.

  Example:
    >>> front([(0.0, 0.0), (0.5, 0.2), (0.4, 0.3), (0.9, 0.6)])
    [(0.0, 0.0), (0.5, 0.2), (0.9, 0.6)]
  """
  kept: list[Point] = []
  for point in sorted(points, key=lambda point: (-point[0], point[1])):
    if not kept or point[1] < kept[-1][1]:
      kept.append(point)
  return kept[::-1]


def drop_at(front_: Sequence[Point], recall: float) -> float | None:
  """The drop at which a front reaches a recall, linear between neighbours.

  Args:
    front_: as `front` gives it.
    recall: the recall asked for. Below the front's first point it costs what
      that point does.

  Returns:
    The drop, or None where the front does not reach so far.

  Example:
    >>> learned = [(0.0, 0.0), (0.5, 0.2), (0.9, 0.6)]
    >>> round(drop_at(learned, 0.7), 6), drop_at(learned, 0.95)
    (0.4, None)
  """
  if not front_ or recall > front_[-1][0] + _NOISE:
    return None
  before = front_[0]
  for point in front_:
    if recall <= point[0]:
      width = point[0] - before[0]
      share = (recall - before[0]) / width if width > 0 else 1.0
      return before[1] + min(max(share, 0.0), 1.0) * (point[1] - before[1])
    before = point
  return front_[-1][1]


def area(front_: Sequence[Point]) -> float:
  """The hypervolume: the area of (recall, 1 - drop) that a front dominates.

  The reference point is recall 0 with everything lost. It is the area of
  steps, since what lies between two points was not measured. Recall and drop
  are clipped to [0, 1].

  Example:
    >>> round(area([(0.0, 0.0), (0.5, 0.2), (0.9, 0.6)]), 6)
    0.56
  """
  total, before = 0.0, 0.0
  for recall, drop in front_:
    recall = min(max(recall, 0.0), 1.0)
    total += max(recall - before, 0.0) * (1 - min(max(drop, 0.0), 1.0))
    before = max(before, recall)
  return total


class Match(NamedTuple):
  """How a front fares against another, at every recall the other reaches.

  Attributes:
    below: whether it never has the larger drop where both reach, and somewhere
      the smaller one.
    dominates: whether it is below and reaches as far.
    excess: the most by which its drop is larger than the other's, where both
      reach; at most 0 where it is nowhere larger.
    recall: where that is.
  """

  below: bool
  dominates: bool
  excess: float
  recall: float


def match(own: Sequence[Point], other: Sequence[Point]) -> Match:
  """Holds a front against another.

  Both are linear between their points, so the points of both are the only
  places to look at.

  Args:
    own: as `front` gives it, not empty.
    other: the same.

  Example:
    >>> match([(0.0, 0.0), (0.9, 0.1)], [(0.0, 0.0), (0.8, 0.4)])
    Match(below=True, dominates=True, excess=0.0, recall=0.0)
  """
  end = min(own[-1][0], other[-1][0])
  levels = sorted({min(point[0], end) for point in (*own, *other)})
  differences: list[tuple[float, float]] = []
  for level in levels:
    ours, theirs = drop_at(own, level), drop_at(other, level)
    if ours is not None and theirs is not None:
      differences.append((ours - theirs, level))
  excess, recall = max(differences, key=lambda d: (d[0], -d[1]))
  below = excess <= _NOISE and min(differences)[0] < -_NOISE
  reaches = own[-1][0] >= other[-1][0] - _NOISE
  return Match(below, below and reaches, excess, recall)
