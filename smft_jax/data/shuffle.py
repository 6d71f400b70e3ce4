"""Shuffles indices, one by one: no order of all rows is ever in memory.

A Feistel network is a bijection of the numbers of 2h bits whatever its rounds
compute. A number that it sends beyond the rows is sent on until it comes back
among them (cycle walking), which is a bijection of the rows.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 6


def shuffled(
  places: np.ndarray, num_rows: int, seed: int, epoch: int
) -> np.ndarray:
  """Returns the rows at some places of an epoch's order.

  Args:
    places: Integers [B] in [0, num_rows).
    num_rows: Number of rows, at least 1 and at most 2**62.
    seed: Seed of the orders.
    epoch: Which order, from 0.

  Returns:
    int64 [B] in [0, num_rows); different places have different rows.

  Example:
    >>> order = shuffled(np.arange(1000), 1000, seed=3, epoch=0)
    >>> sorted(order.tolist()) == list(range(1000))
    True
  """
  half = max(1, -(-(num_rows - 1).bit_length() // 2))
  keys = np.random.SeedSequence([seed, epoch]).generate_state(
    _ROUNDS, np.uint64
  )
  rows = _encipher(places.astype(np.uint64), half, keys)
  # At most 3 of 4 numbers are beyond the rows, so few rounds are needed.
  while (beyond := rows >= num_rows).any():
    rows[beyond] = _encipher(rows[beyond], half, keys)
  return rows.astype(np.int64)


def _encipher(numbers: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
  """Permutes the numbers of 2 * half bits."""
  shift, mask = np.uint64(half), np.uint64(2**half - 1)
  left, right = numbers >> shift, numbers & mask
  for key in keys:
    left, right = right, left ^ (_mix(right, key) & mask)
  return (left << shift) | right


def _mix(numbers: np.ndarray, key: np.uint64) -> np.ndarray:
  """Hashes numbers, each bit on all bits: the finaliser of SplitMix64."""
  x = numbers + key
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))
