"""Rows of token ids to batches: numpy, and no state.

Rows are padded, not packed, because access counts are per text (for
pretraining, which counts none, see `packing`). A batch is a pure function of
the step, so that a resumed run sees what it would have seen.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from smft_jax.data import encoding


class Batch(NamedTuple):
  """Rows of equal length.

  Attributes:
    tokens: int32 [B, L].
    mask: bool [B, L]; True where there is a token, False at padding.
    loss_weights: float32 [B, L]; weight of the loss of predicting
      `tokens[:, i]` from what comes before it; 0 at the first token and at
      padding.
    ranked: bool [B, L]; True at the tokens whose accesses rank slots; None
      where those are all of `mask`.
    segments: int32 [B, L]; which text of its row a token is of, from 1, and 0
      at padding; None where a row has one text.
  """

  tokens: np.ndarray
  mask: np.ndarray
  loss_weights: np.ndarray
  ranked: np.ndarray | None = None
  segments: np.ndarray | None = None


def pad(rows: encoding.Encoded, length: int, pad_id: int) -> Batch:
  """Pads every row at its end.

  Args:
    rows: B rows.
    length: L, at least the longest row.
    pad_id: Token that fills the padding.

  Raises:
    ValueError: A row is longer than `length`: nothing is ever cut.
  """
  if rows.longest > length:
    raise ValueError(
      f'a row of {rows.longest} tokens does not fit length {length}'
    )
  mask = np.arange(length) < rows.lengths[:, None]
  tokens = np.full(mask.shape, pad_id, np.int32)
  tokens[mask] = rows.tokens
  loss_weights = np.zeros(mask.shape, np.float32)
  loss_weights[mask] = rows.loss_weights
  segments = None
  if rows.segments is not None:
    segments = np.zeros(mask.shape, np.int32)
    segments[mask] = rows.segments
  return Batch(tokens, mask, loss_weights, segments=segments)


def batch_at(
  rows: encoding.Encoded,
  step: int,
  batch_size: int,
  seed: int,
  length: int,
  pad_id: int,
  here: np.ndarray | None = None,
) -> Batch:
  """The batch of one step: epochs end to end, each in an order of its own.

  Args:
    rows: What to draw from, at least one row.
    step: Which batch, from 0.
    batch_size: B; may exceed the number of rows.
    seed: What the orders are made from.
    length: L, at least the longest row.
    pad_id: Token that fills the padding.
    here: Which of its B rows to make, see `feed.rows_here`; None makes all.

  Returns:
    A batch that depends on the arguments alone. The last batch of an epoch is
    filled up from the next one.

  Raises:
    ValueError: There are no rows, or the step or the size is out of range.
  """
  order = rows_at(len(rows), step, batch_size, seed)
  if here is not None:
    order = order[here]
  return pad(rows.take(order), length, pad_id)


def rows_at(num_rows: int, step: int, batch_size: int, seed: int) -> np.ndarray:
  """Which rows `batch_at` takes for a step.

  Args:
    num_rows: How many there are.
    step: As for `batch_at`.
    batch_size: As for `batch_at`.
    seed: As for `batch_at`.

  Returns:
    Integers [B] in [0, num_rows).

  Raises:
    ValueError: As `batch_at` does.

  Example:
    >>> sorted(rows_at(3, 0, 2, seed=5)) == sorted(rows_at(3, 0, 2, seed=5))
    True
  """
  if not num_rows:
    raise ValueError('no rows to make a batch of')
  if step < 0 or batch_size < 1:
    raise ValueError(
      f'step must be at least 0 and batch_size at least 1, not {step} and '
      f'{batch_size}'
    )
  first, last = step * batch_size, (step + 1) * batch_size
  epochs = range(first // num_rows, (last - 1) // num_rows + 1)
  order = np.concatenate([_epoch(num_rows, seed, epoch) for epoch in epochs])
  start = first - epochs[0] * num_rows
  return order[start : start + batch_size]


# Each batch asks for the order of its epoch, which takes long for many rows.
@functools.lru_cache(maxsize=4)
def _epoch(num_rows: int, seed: int, epoch: int) -> np.ndarray:
  return np.random.default_rng([seed, epoch]).permutation(num_rows)


def bucket_length(longest: int, multiple: int = 8) -> int:
  """`longest` rounded up, so that few different lengths are compiled.

  Example:
    >>> bucket_length(17), bucket_length(24)
    (24, 24)
  """
  return -(-longest // multiple) * multiple
