"""Pareto fronts of points (recall, drop): more recall, less drop.

A front is a list of points by increasing recall, none of which dominates
another, so that drop increases too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

Point = tuple[float, float]

# Smaller differences of recall and drop are floating-point noise.
_NOISE = 1e-9


def front(points: Iterable[Point]) -> list[Point]:
  """Returns the points that no other point dominates, by increasing recall.

  A point dominates another if it has no less recall and no more drop, and is
  better in one of them. Of equal points one is kept.

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
  """Returns the drop at a recall, linear between neighbors.

  Args:
    front_: A front.
    recall: The recall. Below the front's first point, the drop is that of the
      first point.

  Returns:
    The drop, or None where the front does not reach this recall.

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
  """Returns the hypervolume: the area of (recall, 1 - drop) dominated.

  The reference point is recall 0 with everything lost. The area is bounded by
  steps, because nothing between two points was measured. Recall and drop are
  clipped to [0, 1].

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
  """How one front compares with another.

  Attributes:
    below: Whether its drop is nowhere larger and somewhere smaller, at the
      recalls that both reach.
    dominates: Whether it is below and reaches as far.
  """

  below: bool
  dominates: bool


def match(own: Sequence[Point], other: Sequence[Point]) -> Match:
  """Compares a front with another; neither may be empty.

  Both are linear between their points, so only the recalls of their points
  need comparing.

  Example:
    >>> match([(0.0, 0.0), (0.9, 0.1)], [(0.0, 0.0), (0.8, 0.4)])
    Match(below=True, dominates=True)
  """
  end = min(own[-1][0], other[-1][0])
  differences: list[float] = []
  for level in {min(point[0], end) for point in (*own, *other)}:
    ours, theirs = drop_at(own, level), drop_at(other, level)
    if ours is not None and theirs is not None:
      differences.append(ours - theirs)
  below = max(differences) <= _NOISE and min(differences) < -_NOISE
  reaches = own[-1][0] >= other[-1][0] - _NOISE
  return Match(below, below and reaches)
