"""Packs several short rows into one, so that less of a batch is padding.

Not for a background that is counted by texts: there a row is a document.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smft_jax.data import encoding


def pack(rows: encoding.Encoded, length: int, seed: int) -> encoding.Encoded:
  """Joins rows end to end into about as few as their lengths allow.

  Best fit: each row, in an order drawn from the seed, goes where it leaves the
  least room. A row that fits nowhere begins a new one. Every row becomes a
  segment, whole and exactly once.

  Args:
    rows: Rows of one text each.
    length: Most tokens in a packed row, at least the longest row.
    seed: Seed of the order.

  Raises:
    ValueError: A row is longer than `length`; rows are never cut.

  Example:
    >>> rows = encoding.Encoded(
    ...   tokens=np.array([5, 6, 7, 5, 8], np.int32),
    ...   loss_weights=np.array([0, 1, 1, 0, 1], np.float32),
    ...   starts=np.array([0, 3, 5]),
    ...   sources=np.array([0, 1]),
    ... )
    >>> packed = pack(rows, 7, seed=1)
    >>> packed.tokens.tolist(), packed.segments.tolist()
    ([5, 6, 7, 5, 8], [1, 1, 1, 2, 2])
  """
  rows.check_length(length)
  order = np.random.default_rng(seed).permutation(len(rows))
  packed = _best_fit(rows.lengths[order].tolist(), length)
  counts = np.array([len(members) for members in packed], np.int64)
  first = np.cumsum([0, *counts])
  places = np.array([i for members in packed for i in members], np.int64)
  taken = rows.take(order[places])
  numbers = np.arange(len(rows)) - np.repeat(first[:-1], counts) + 1
  return encoding.Encoded(
    tokens=taken.tokens,
    loss_weights=taken.loss_weights,
    starts=taken.starts[first],
    sources=taken.sources[first[:-1]],
    segments=np.repeat(numbers, taken.lengths).astype(np.int32),
    ranked=taken.ranked,
  )


def _best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
  """Groups the indices of lengths that share a row, in order of arrival."""
  packed: list[list[int]] = []
  with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
  rooms = 0  # bit r is set where `with_room[r]` is not empty
  for index, length in enumerate(lengths):
    fitting = rooms >> length
    if fitting:
      room = length + (fitting & -fitting).bit_length() - 1
      place = with_room[room].pop()
      if not with_room[room]:
        rooms ^= 1 << room
    else:
      room, place = capacity, len(packed)
      packed.append([])
    packed[place].append(index)
    with_room[room - length].append(place)
    rooms |= 1 << (room - length)
  return packed
