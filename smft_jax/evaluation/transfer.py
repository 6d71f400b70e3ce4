"""Transfer and forgetting between the lessons of a stream.

Documents learned between two measurements are a group. With G groups, R[i, j]
is the recall of group j after i groups were learned: row 0 is the model before
the stream, R[j+1, j] a group just learned, and R[G] the end. Recall is the mean
over the documents of a group, in unseen phrasings if there are any.

- `backward_transfer` (Lopez-Paz and Ranzato, arXiv:1706.08840, eq. 3): mean
  over j < G-1 of R[G, j] - R[j+1, j]; negative if later lessons overwrote
  earlier ones.
- `forward_transfer` (eq. 4 there, relative to the model before the stream):
  mean over j > 0 of R[j, j] - R[0, j].
- `forgetting` (Chaudhry et al., arXiv:1801.10112, eq. 3): mean over j < G-1 of
  the largest R[i, j] with j < i < G, less R[G, j].
- `retention_of_earlier`: over j < G-1, sum of R[G, j] / sum of R[j+1, j]: the
  share of what earlier lessons taught that is left at the end. No background
  corpus protects it.

Groups without questions are skipped; the mean of nothing is None.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
import statistics
from typing import Any

# Numbers, or None for groups without questions.
Row = Sequence[Any]


def accuracy_matrix(
  measured: Iterable[tuple[int, Iterable[tuple[int, float]]]],
) -> list[list[float | None]]:
  """Computes R from the recall of the same documents at every measurement.

  Args:
    measured: (documents learned so far, (index, recall) of documents), the
      first one before the stream. Documents without questions, or that are not
      asked about, are left out.

  Returns:
    [G + 1, G]: a row for each measurement, a column for each group. None for
    groups without questions.

  Example:
    >>> accuracy_matrix([(0, [(0, 0.0), (1, 0.2), (2, 0.0)]),
    ...                  (1, [(0, 1.0), (1, 0.2), (2, 0.0)]),
    ...                  (3, [(0, 0.5), (1, 1.0), (2, 0.5)])])
    [[0.0, 0.1], [1.0, 0.1], [0.5, 0.75]]
  """
  measured = list(measured)
  starts = [done for done, _ in measured]
  matrix = []
  for _, by_document in measured:
    by_group: list[list[float]] = [[] for _ in starts]
    for index, recall in by_document:
      by_group[bisect.bisect_right(starts, index) - 1].append(recall)
    # What comes after the last measurement is no group.
    matrix.append([_mean(recalls) for recalls in by_group[:-1]])
  return matrix


def measures(matrix: Sequence[Row]) -> dict[str, float | None]:
  """Computes the four measures; None with fewer than two groups.

  Args:
    matrix: From `accuracy_matrix`.

  Example:
    >>> found = measures([[0.0, 0.2], [1.0, 0.3], [0.75, 0.9]])
    >>> {name: round(value, 6) for name, value in found.items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'backward_transfer': -0.25, 'forward_transfer': 0.1, 'forgetting': 0.25,
     'retention_of_earlier': 0.75}
  """
  last = len(matrix) - 1
  # A group without questions has None in all rows.
  groups = [j for j in range(last) if None not in [row[j] for row in matrix]]
  earlier = [
    (
      matrix[j + 1][j],
      max(row[j] for row in matrix[j + 1 : last]),
      matrix[-1][j],
    )
    for j in groups
    if j < last - 1
  ]
  taught = sum(learned for learned, _, _ in earlier)
  kept = sum(final for _, _, final in earlier)
  return {
    'backward_transfer': _mean(
      final - learned for learned, _, final in earlier
    ),
    'forward_transfer': _mean(matrix[j][j] - matrix[0][j] for j in groups if j),
    'forgetting': _mean(best - final for _, best, final in earlier),
    'retention_of_earlier': kept / taught if taught else None,
  }


def locality(before: Sequence[str], after: Sequence[str]) -> float:
  """Computes the share of answers that stayed the same, right or wrong.

  Args:
    before: Answers of the model before the stream.
    after: Answers to the same questions.

  Example:
    >>> locality(['Lisbon', 'a baker'], ['Lisbon', 'a tailor'])
    0.5
  """
  return statistics.fmean(a == b for a, b in zip(before, after, strict=True))


def _mean(values: Iterable[float]) -> float | None:
  known = [*values]
  return statistics.fmean(known) if known else None
