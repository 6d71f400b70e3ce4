"""How evenly the slots of a table are read: measures of access counts [N].

A fresh table can collapse to few slots, and a trained one can have hubs, slots
that most tokens read. What is learned there is soon overwritten.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing


def usage(counts: numpy.typing.ArrayLike) -> float:
  """Computes the share of slots that were read.

  Example:
    >>> usage([3, 0, 1, 0])
    0.5
  """
  return float(np.mean(_validated(counts) > 0))


def dead_slots(counts: numpy.typing.ArrayLike) -> int:
  """Counts the slots that were not read.

  Example:
    >>> dead_slots([3, 0, 1, 0])
    2
  """
  return int(np.sum(_validated(counts) == 0))


def top_1_percent_share(counts: numpy.typing.ArrayLike) -> float:
  """Computes the share of reads by the most read 1% of slots, at least one.

  Example:
    >>> top_1_percent_share([3, 0, 1, 0])
    0.75
  """
  counts_N = np.sort(_validated(counts))
  top = math.ceil(len(counts_N) / 100)
  return float(counts_N[-top:].sum() / counts_N.sum())


def kl_to_uniform(counts: numpy.typing.ArrayLike) -> float:
  """Computes the KL divergence of the reads from uniform: sum p_i log(N p_i).

  Returns:
    Nats: 0 if all slots are read equally, log(N) if one slot has all reads.

  Example:
    >>> round(kl_to_uniform([5, 5, 0, 0]), 3)
    0.693
  """
  counts_N = _validated(counts)
  p = counts_N[counts_N > 0] / counts_N.sum()
  return float(np.sum(p * np.log(p * len(counts_N))))


def measure(counts: numpy.typing.ArrayLike) -> dict[str, float | int]:
  """Computes all measures, as in results.json.

  Args:
    counts: [N], access counts as from `ranking.count_accesses`.

  Returns:
    The four measures by name, `slots` (N) and `reads`.

  Raises:
    ValueError: If all counts are 0, or one is negative or NaN.

  Example:
    >>> measure([3, 0, 1, 0])['dead_slots'], measure([3, 0, 1, 0])['reads']
    (2, 4)
  """
  return {
    'usage': usage(counts),
    'top_1_percent_share': top_1_percent_share(counts),
    'kl_to_uniform': kl_to_uniform(counts),
    'dead_slots': dead_slots(counts),
    'slots': int(np.size(counts)),
    'reads': int(_validated(counts).sum()),
  }


def _validated(counts: numpy.typing.ArrayLike) -> np.ndarray:
  counts_N = np.asarray(counts, np.float64)
  if counts_N.ndim != 1 or not np.all(counts_N >= 0) or not counts_N.sum():
    raise ValueError(
      'counts must be [N], none negative and not all 0, got'
      f' {counts_N.shape} with sum {counts_N.sum():g}'
    )
  return counts_N
