"""Rows of token ids of different lengths, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Protocol

import numpy as np


class Rows(Protocol):
  """Rows to draw batches from, in memory or not."""

  def __len__(self) -> int:
    """Returns the number of rows."""
    ...

  @property
  def longest(self) -> int:
    """Length of the longest row; 0 without rows."""
    ...

  def lengths_of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the lengths of the rows with these indices, int64."""
    ...

  def take(self, rows: Sequence[int] | np.ndarray) -> Encoded:
    """Returns the rows with these indices in this order; they may repeat."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
  """Rows of different lengths, end to end; `len` is the number of rows.

  Attributes:
    tokens: int32 [total]; row r is `tokens[starts[r]:starts[r + 1]]`.
    loss_weights: float32 [total], as in `batches.Batch`.
    starts: int64 [rows + 1].
    sources: int64 [rows]; index of the text that a row belongs to, or of the
      first one if it is packed.
    segments: int32 [total], as in `batches.Batch`.
    ranked: bool [total], tokens whose accesses rank slots; None for all.
  """

  tokens: np.ndarray
  loss_weights: np.ndarray
  starts: np.ndarray
  sources: np.ndarray
  segments: np.ndarray | None = None
  ranked: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.sources)

  @property
  def lengths(self) -> np.ndarray:
    """int64 [rows]."""
    return np.diff(self.starts)

  @property
  def longest(self) -> int:
    """Length of the longest row; 0 without rows."""
    return int(self.lengths.max(initial=0))

  @property
  def counted(self) -> np.ndarray:
    """int64 [rows], tokens of each row that bear loss."""
    sums = np.cumsum([0, *(self.loss_weights != 0)])
    return np.diff(sums[self.starts])

  def lengths_of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the lengths of the rows with these indices, int64."""
    rows = np.asarray(rows, np.int64)
    return self.starts[rows + 1] - self.starts[rows]

  def check_length(self, length: int) -> None:
    """Raises ValueError if a row is longer than `length`."""
    if self.longest > length:
      raise ValueError(
        f'a row of {self.longest} tokens does not fit length {length}'
      )

  def take(self, rows: Sequence[int] | np.ndarray) -> Encoded:
    """Returns the rows with these indices in this order; they may repeat."""
    rows = np.asarray(rows, np.int64)
    parts = [slice(self.starts[r], self.starts[r + 1]) for r in rows]
    taken = join(
      [self.tokens[part] for part in parts],
      [self.loss_weights[part] for part in parts],
      self.sources[rows],
    )
    for name in ('segments', 'ranked'):
      values = getattr(self, name)
      if values is not None:
        places = [values[:0], *(values[part] for part in parts)]
        taken = dataclasses.replace(taken, **{name: np.concatenate(places)})
    return taken

  def shared_beginning(self) -> tuple[np.ndarray, np.ndarray]:
    """Finds the beginning that saves most if it is computed once for all rows.

    Questions asked few-shot, or in a chat, begin alike.

    Returns:
      The tokens of the beginning, int32 [P], and which rows have it, bool
      [rows]. Of each of these at least one token is left that bears no loss,
      so that P is 0 for texts.
    """
    if not len(self):
      return self.tokens[:0], np.zeros(0, bool)
    mask = np.arange(self.longest) < self.lengths[:, None]
    tokens, bears_loss = np.full(mask.shape, -1), np.zeros(mask.shape, bool)
    tokens[mask], bears_loss[mask] = self.tokens, self.loss_weights != 0
    # If most rows begin alike, so does the middle one in lexical order.
    middle = tokens[np.lexsort(tokens.T[::-1])[len(self) // 2]]
    same = np.sum(np.cumprod(tokens == middle, axis=1), axis=1)
    before = np.where(
      bears_loss.any(axis=1), bears_loss.argmax(axis=1), self.lengths
    )
    shared = np.maximum(0, np.minimum(same, before - 1))
    saved = [length * np.sum(shared >= length) for length in shared]
    best = shared[np.argmax(saved)]
    return middle[:best].astype(np.int32), shared >= best

  def without_first(self, num_tokens: int) -> Encoded:
    """Returns the rows without their first tokens, which none may lack."""
    places = np.arange(len(self.tokens))
    kept = places - np.repeat(self.starts[:-1], self.lengths) >= num_tokens
    return dataclasses.replace(
      self,
      tokens=self.tokens[kept],
      loss_weights=self.loss_weights[kept],
      starts=self.starts - num_tokens * np.arange(len(self.starts)),
      segments=None if self.segments is None else self.segments[kept],
      ranked=None if self.ranked is None else self.ranked[kept],
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
  """Rows of one kind, and after them those of another; nothing is copied.

  Attributes:
    first: The rows with the lower indices.
    second: The other ones.

  Example:
    >>> one, other = (
    ...   join([np.array(row)], [np.zeros(2)], [0]) for row in ([1, 2], [3, 4])
    ... )
    >>> Joined(one, other).take([1, 0, 1]).tokens.tolist()
    [3, 4, 1, 2, 3, 4]
  """

  first: Rows
  second: Rows

  def __len__(self) -> int:
    return len(self.first) + len(self.second)

  @property
  def longest(self) -> int:
    """Length of the longest row; 0 without rows."""
    return max(self.first.longest, self.second.longest)

  def lengths_of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the lengths of the rows with these indices, int64."""
    rows = np.asarray(rows, np.int64)
    is_first = rows < len(self.first)
    lengths = np.zeros(len(rows), np.int64)
    lengths[is_first] = self.first.lengths_of(rows[is_first])
    lengths[~is_first] = self.second.lengths_of(
      rows[~is_first] - len(self.first)
    )
    return lengths

  def take(self, rows: Sequence[int] | np.ndarray) -> Encoded:
    """Returns the rows with these indices in this order; they may repeat."""
    rows = np.asarray(rows, np.int64)
    is_first = rows < len(self.first)
    found = concatenate(
      [
        self.first.take(rows[is_first]),
        self.second.take(rows[~is_first] - len(self.first)),
      ]
    )
    # The first ones are in front now.
    places = np.empty(len(rows), np.int64)
    places[np.argsort(~is_first, kind='stable')] = np.arange(len(rows))
    return found.take(places)


def join(
  tokens: Sequence[np.ndarray],
  weights: Sequence[np.ndarray],
  sources: Sequence[int] | np.ndarray,
) -> Encoded:
  """Puts rows end to end.

  Args:
    tokens: Ids of each row.
    weights: Loss weights of each row.
    sources: As in `Encoded`.
  """
  lengths = [len(row) for row in tokens]
  return Encoded(
    tokens=np.concatenate([np.zeros(0, np.int32), *tokens]).astype(np.int32),
    loss_weights=np.concatenate([np.zeros(0), *weights]).astype(np.float32),
    starts=np.cumsum([0, *lengths], dtype=np.int64),
    sources=np.asarray(sources, np.int64),
  )


def concatenate(parts: Sequence[Encoded]) -> Encoded:
  """Puts the rows of several one after another."""

  def joined(name: str, dtype: type) -> np.ndarray | None:
    found = [getattr(part, name) for part in parts]
    if all(values is None for values in found):
      return None
    # Rows without are one segment, and ranked whole.
    return np.concatenate(
      [
        np.ones(len(part.tokens), dtype) if values is None else values
        for part, values in zip(parts, found, strict=True)
      ]
    )

  lengths = np.concatenate([part.lengths for part in parts])
  return Encoded(
    tokens=np.concatenate([part.tokens for part in parts]),
    loss_weights=np.concatenate([part.loss_weights for part in parts]),
    starts=np.cumsum([0, *lengths], dtype=np.int64),
    sources=np.concatenate([part.sources for part in parts]),
    segments=joined('segments', np.int32),
    ranked=joined('ranked', bool),
  )
