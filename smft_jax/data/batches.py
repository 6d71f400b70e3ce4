"""Pads rows of token ids to batches, in numpy and without state.

Several short rows may be packed into one before, see `packing`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from smft_jax.data import encoding
from smft_jax.data import shuffle

# Most rows whose whole order is kept in memory.
_MOST_ORDERED = 2**20


class Batch(NamedTuple):
  """Rows of equal length.

  Attributes:
    tokens: int32 [B, L].
    mask: bool [B, L]; True at tokens, False at padding.
    loss_weights: float32 [B, L]; weight of the loss of predicting
      `tokens[:, i]` from the tokens before it; 0 at the first token and at
      padding.
    ranked: bool [B, L]; True at the tokens whose accesses rank slots; None
      if it equals `mask`.
    segments: int32 [B, L]; number of a token's text within its row, from 1; 0
      at padding; None if each row holds one text.
    counted: int32 [P]; places in the flattened tokens that include all whose
      loss weight is not 0; the rest are 0, the first token, which has none.
      Or [n, P], those in each of n micro-batches. None counts all.
  """

  tokens: np.ndarray
  mask: np.ndarray
  loss_weights: np.ndarray
  ranked: np.ndarray | None = None
  segments: np.ndarray | None = None
  counted: np.ndarray | None = None


def counting(batch: Batch, most: int, num_parts: int = 1) -> Batch:
  """Lists the places of a batch that bear loss, if they are few.

  Args:
    batch: B rows, all of them made by this process.
    most: Places in any batch, or micro-batch, that shares a program with this
      one.
    num_parts: n, micro-batches of which part i has the rows i, i + n and so on.

  Returns:
    The batch, with `counted` if at most half of its tokens need to be.
  """
  size = bucket_length(most, 16)
  if 2 * size * num_parts > batch.tokens.size:
    return batch
  counted = np.zeros((num_parts, size), np.int32)
  for part, listed in enumerate(counted):
    places = np.flatnonzero(batch.loss_weights[part::num_parts])
    listed[: len(places)] = places
  return batch._replace(counted=counted if num_parts > 1 else counted[0])


def pad(rows: encoding.Encoded, length: int, pad_id: int) -> Batch:
  """Pads every row at its end.

  Args:
    rows: B rows.
    length: L, at least the longest row.
    pad_id: The padding token.

  Raises:
    ValueError: A row is longer than `length`; rows are never cut.
  """
  rows.check_length(length)
  mask = np.arange(length) < rows.lengths[:, None]
  tokens = np.full(mask.shape, pad_id, np.int32)
  tokens[mask] = rows.tokens
  loss_weights = np.zeros(mask.shape, np.float32)
  loss_weights[mask] = rows.loss_weights
  segments = None
  if rows.segments is not None:
    segments = np.zeros(mask.shape, np.int32)
    segments[mask] = rows.segments
  ranked = None
  if rows.ranked is not None:
    ranked = np.zeros(mask.shape, bool)
    ranked[mask] = rows.ranked
  return Batch(tokens, mask, loss_weights, ranked, segments)


def row_indices(
  num_rows: int, step: int, batch_size: int, seed: int
) -> np.ndarray:
  """Draws the rows of a step's batch: shuffled epochs, end to end.

  A pure function, so a resumed run sees the same batches. The last batch of an
  epoch is completed from the next epoch. Memory does not grow with the rows:
  the order of more than a million is computed place by place, see `shuffle`.

  Args:
    num_rows: Number of rows, at least 1.
    step: Step, from 0.
    batch_size: B; may exceed `num_rows`.
    seed: Seed of the orders.

  Returns:
    Integers [B] in [0, num_rows).

  Raises:
    ValueError: There are no rows, or the step or the size is out of range.

  Example:
    >>> epoch = [row_indices(4, step, 2, seed=5) for step in (0, 1)]
    >>> sorted(np.concatenate(epoch).tolist())
    [0, 1, 2, 3]
  """
  if not num_rows:
    raise ValueError('no rows to make a batch of')
  if step < 0 or batch_size < 1:
    raise ValueError(
      f'step must be at least 0 and batch_size at least 1, not {step} and '
      f'{batch_size}'
    )
  first, last = step * batch_size, (step + 1) * batch_size
  chosen = []
  for epoch in range(first // num_rows, (last - 1) // num_rows + 1):
    begins = epoch * num_rows
    part = slice(max(first - begins, 0), min(last - begins, num_rows))
    if num_rows > _MOST_ORDERED:
      places = np.arange(part.start, part.stop)
      chosen.append(shuffle.shuffled(places, num_rows, seed, epoch))
    else:
      chosen.append(_epoch(num_rows, seed, epoch)[part])
  return np.concatenate(chosen)


# Every batch needs the order of its epoch, which is slow for many rows.
@functools.lru_cache(maxsize=4)
def _epoch(num_rows: int, seed: int, epoch: int) -> np.ndarray:
  return np.random.default_rng([seed, epoch]).permutation(num_rows)


def bucket_length(longest: int, multiple: int = 8) -> int:
  """Rounds `longest` up, so that few different lengths are compiled.

  Example:
    >>> bucket_length(17), bucket_length(24)
    (24, 24)
  """
  return -(-longest // multiple) * multiple
