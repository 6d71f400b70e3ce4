"""Whether a value table is used: measures of access counts [N].

A fresh table can collapse, so that few slots are ever read, and a trained one
can have hubs, slots that most tokens read: what is learned into either is soon
overwritten (PAPER, section 2).
"""

from __future__ import annotations

from collections.abc import Mapping
import math

import numpy as np
import numpy.typing

# At least so many slots read, and at most so large a share of the reads by the
# top 1% of them. Ours: one report has 82% after 20M tokens, one of hubs 35%.
_LEAST_USAGE = 0.5
_MOST_TOP_SHARE = 0.35

# Reads per slot below which an unread one says nothing.
_ENOUGH_READS = 10


def usage(counts: numpy.typing.ArrayLike) -> float:
  """Share of the slots that were read.

  Example:
    >>> usage([3, 0, 1, 0])
    0.5
  """
  return float(np.mean(_checked(counts) > 0))


def dead_slots(counts: numpy.typing.ArrayLike) -> int:
  """Slots that were not read.

  Example:
    >>> dead_slots([3, 0, 1, 0])
    2
  """
  return int(np.sum(_checked(counts) == 0))


def top_1_percent_share(counts: numpy.typing.ArrayLike) -> float:
  """Share of the reads that the 1% of the slots read most has, at least one.

  Example:
    >>> top_1_percent_share([3, 0, 1, 0])
    0.75
  """
  counts_N = np.sort(_checked(counts))
  top = math.ceil(len(counts_N) / 100)
  return float(counts_N[-top:].sum() / counts_N.sum())


def kl_to_uniform(counts: numpy.typing.ArrayLike) -> float:
  """KL divergence of the reads from uniform ones: sum_i p(i) log(N p(i)).

  Returns:
    Nats: 0 where all slots are read alike, log(N) where one has all reads.

  Example:
    >>> round(kl_to_uniform([5, 5, 0, 0]), 3)
    0.693
  """
  counts_N = _checked(counts)
  p = counts_N[counts_N > 0] / counts_N.sum()
  return float(np.sum(p * np.log(p * len(counts_N))))


def measure(counts: numpy.typing.ArrayLike) -> dict[str, float | int]:
  """All measures, as results.json has them.

  Args:
    counts: [N], how often each slot was read, such as
      `ranking.count_accesses` gives.

  Returns:
    By name the four measures, `slots` (N) and `reads`.

  Raises:
    ValueError: If nothing was read, or a count is negative or no number.

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
    'reads': int(_checked(counts).sum()),
  }


def sentence(measured: Mapping[str, float]) -> str:
  """What `measure` found, and whether it is healthy, in plain words.

  Example:
    >>> print(sentence(measure([9, 11] * 50)))
    Memory: 100.0% of the slots are read, the top 1% have 1.1% of the reads, 0.01 nats from uniform: healthy (at least 50%, at most 35%).
  """  # noqa: E501
  told = (
    f'Memory: {measured["usage"]:.1%} of the slots are read, the top 1% have'
    f' {measured["top_1_percent_share"]:.1%} of the reads,'
    f' {measured["kl_to_uniform"]:.2f} nats from uniform'
  )
  if measured['reads'] < _ENOUGH_READS * measured['slots']:
    return f'{told}: too few reads counted to judge it.'
  healthy = (
    measured['usage'] >= _LEAST_USAGE
    and measured['top_1_percent_share'] <= _MOST_TOP_SHARE
  )
  bounds = f'at least {_LEAST_USAGE:.0%}, at most {_MOST_TOP_SHARE:.0%}'
  return f'{told}: {"healthy" if healthy else "not healthy"} ({bounds}).'


def _checked(counts: numpy.typing.ArrayLike) -> np.ndarray:
  counts_N = np.asarray(counts, np.float64)
  if counts_N.ndim != 1 or not np.all(counts_N >= 0) or not counts_N.sum():
    raise ValueError(
      'counts must be [N], none negative and not all of them 0, got'
      f' {counts_N.shape} with a sum of {counts_N.sum():g}'
    )
  return counts_N
