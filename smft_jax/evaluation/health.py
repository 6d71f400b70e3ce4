"""How evenly the slots of a table are read: measures of access counts [N].

A fresh table can collapse to few slots, and a trained one can have hubs, slots
that most tokens read. What is learned there is soon overwritten.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing


def measure(counts: numpy.typing.ArrayLike) -> dict[str, float | int]:
  """Measures how evenly slots are read.

  Args:
    counts: [N], access counts as from `ranking.count_accesses`.

  Returns:
    - `usage`: share of slots that were read.
    - `top_1_percent_share`: share of reads by the most read 1% of slots, at
      least one slot.
    - `kl_to_uniform`: sum_i p_i log(N p_i) with shares p_i of the reads, in
      nats: 0 if all slots are read equally, log(N) if one slot has all reads.
    - `dead_slots`: number of slots that were not read.
    - `slots`, `reads`: N and the sum of the counts.

  Raises:
    ValueError: If all counts are 0, or one is negative or NaN.

  Example:
    >>> measured = measure([3, 0, 1, 0])
    >>> measured['usage'], measured['top_1_percent_share']
    (0.5, 0.75)
  """
  counts_N = np.asarray(counts, np.float64)
  if counts_N.ndim != 1 or not np.all(counts_N >= 0) or not counts_N.sum():
    raise ValueError(
      'counts must be [N], none negative and not all 0, got'
      f' {counts_N.shape} with sum {counts_N.sum():g}'
    )
  num_slots, reads = len(counts_N), counts_N.sum()
  p = counts_N[counts_N > 0] / reads
  top = np.sort(counts_N)[-math.ceil(num_slots / 100) :]
  return {
    'usage': float(np.mean(counts_N > 0)),
    'top_1_percent_share': float(top.sum() / reads),
    'kl_to_uniform': float(np.sum(p * np.log(p * num_slots))),
    'dead_slots': int(np.sum(counts_N == 0)),
    'slots': num_slots,
    'reads': int(reads),
  }
