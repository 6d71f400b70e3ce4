"""Records which slots texts read, token by token, as numpy arrays.

Shapes: T tokens of a text including its beginning and end tokens, A accesses of
a token over all memory layers, N slots.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax.data import batches
from smft_jax.data import encoding
from smft_jax.data import task
from smft_jax.data import tokenizers
from smft_jax.runtime import preemption
from smft_jax.training import forward


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reads:
  """The reads of one text.

  Attributes:
    text: The text.
    spans: int [T, 2], the characters of each token; (0, 0) for the beginning
      and end tokens.
    slot_ids: int32 [T, A].
  """

  text: task.Text
  spans: np.ndarray
  slot_ids: np.ndarray

  @property
  def words(self) -> np.ndarray:
    """Bool [T], the tokens that have characters."""
    return self.spans[:, 1] > self.spans[:, 0]

  @property
  def slots(self) -> np.ndarray:
    """The distinct slots read at any token, ascending."""
    return np.unique(self.slot_ids)

  def counts(self, slots: np.ndarray) -> np.ndarray:
    """Counts each token's reads of these slots, int [T]."""
    return np.sum(np.isin(self.slot_ids, slots), axis=1)

  def answering(self) -> Reads:
    """Returns the reads from the token that predicts the answer to its end.

    Raises:
      ValueError: If no answer is marked in the text.
    """
    if self.text.answer is None:
      raise ValueError(f'no answer is marked in {self.text.text[:40]!r}')
    inside = np.flatnonzero(touched(self.spans, [self.text.answer]))
    part = slice(max(inside[0] - 1, 0), inside[-1] + 1)
    return dataclasses.replace(
      self, spans=self.spans[part], slot_ids=self.slot_ids[part]
    )


def read_texts(
  graphdef: nnx.GraphDef,
  params: nnx.State,
  texts: Sequence[task.Text],
  tokenizer: tokenizers.Tokenizer,
  *,
  max_length: int,
  batch_size: int = 64,
) -> list[Reads]:
  """Runs a model over texts and records the reads of its memory.

  Each text is read by itself, in parts of at most `max_length` tokens.
  """
  rows = encoding.tokenize(texts, tokenizer, max_length=max_length)
  length = batches.bucket_length(rows.longest)
  parts: list[list[np.ndarray]] = [[] for _ in texts]
  starts = range(0, len(rows), batch_size)
  for start in preemption.interruptible(starts):
    chosen = np.arange(start, min(start + batch_size, len(rows)))
    filled = np.pad(chosen, (0, batch_size - len(chosen)), mode='edge')
    batch = batches.pad(rows.take(filled), length, tokenizer.pad_id)
    slot_ids = np.asarray(_slot_ids(graphdef, params, batch))
    for place, row in enumerate(chosen):
      into = parts[rows.sources[row]]
      # Every part has the beginning; the text has it once.
      first = len(tokenizer.beginning) if into else 0
      into.append(slot_ids[place, first : rows.lengths[row]])
  encoded = tokenizer.encode_batch_with_offsets([t.text for t in texts])
  beginning = [(0, 0)] * len(tokenizer.beginning)
  return [
    Reads(
      text=text,
      spans=np.array([*beginning, *offsets, (0, 0)]),
      slot_ids=np.concatenate(part),
    )
    for text, (_, offsets), part in zip(texts, encoded, parts, strict=True)
  ]


def touched(spans: np.ndarray, wanted: Sequence[task.Span]) -> np.ndarray:
  """Marks tokens, given as spans [T, 2], that overlap a wanted span.

  Example:
    >>> touched(np.array([(0, 0), (0, 3), (4, 7)]), [(2, 4)]).tolist()
    [False, True, False]
  """
  starts, ends = spans[:, 0], spans[:, 1]
  found = np.zeros(len(spans), bool)
  for start, end in wanted:
    found |= (starts < end) & (ends > start) & (ends > starts)
  return found


@functools.partial(jax.jit, static_argnums=0)
def _slot_ids(graphdef, params, batch):
  """Returns slot ids [B, L, A] of all memory layers."""
  _, accesses = forward.loss_and_accesses(graphdef, params, batch)
  return jnp.concatenate(accesses.slot_ids, axis=-1)
