"""Builds the batches of the steps on the documents of a stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from smft_jax.config import sections
from smft_jax.data import batches
from smft_jax.data import encoded
from smft_jax.data import encoding
from smft_jax.data import packing
from smft_jax.data import stream as stream_lib
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers
from smft_jax.runs import base as base_lib


class DocumentBatch(NamedTuple):
  """The batch of one step on a document.

  Attributes:
    batch: The batch, as `train_step` takes it.
    rows: int [B'], rows of the document in it; the rest are replayed.
    num_tokens: Tokens in it, in all processes together.
  """

  batch: batches.Batch
  rows: np.ndarray
  num_tokens: int


def encode_documents(
  settings: sections.StreamConfig,
  task: task_lib.Task,
  tokenizer: tokenizers.Tokenizer,
  max_length: int,
) -> list[encoding.Encoded]:
  """Encodes the training texts of each streamed document.

  Args:
    settings: The stream.
    task: The data.
    tokenizer: The base's.
    max_length: Tokens in a row, unless the stream sets it.

  Returns:
    The rows of each document.
  """
  return [
    encoding.tokenize(
      document.augmentations,
      tokenizer,
      max_length=settings.max_length or max_length,
      context_weight=settings.context_weight,
      answer_weight=settings.answer_weight,
    )
    for document in task.documents[: settings.max_documents]
  ]


def pack(
  settings: sections.StreamConfig, texts: list[encoding.Encoded], seed: int
) -> list[encoding.Encoded]:
  """Puts the texts of each document into common rows.

  Args:
    settings: The stream.
    texts: Rows of one text each, of each document.
    seed: The run's seed.
  """
  length = settings.max_length
  assert length is not None
  return [
    packing.pack(document, length, seed * 1_000_003 + index)
    for index, document in enumerate(texts)
  ]


def batch_length(rows: Iterable[encoded.Rows]) -> int:
  """Returns L, one for the whole stream so that the step compiles once."""
  return batches.bucket_length(max(r.longest for r in rows), 4)


class LessonBatches:
  """The batches of a stream's steps; keeps no state.

  Attributes:
    reuses_rows: Whether steps repeat the rows of documents and see no others,
      so that hidden states of them are worth keeping.
    packed: Whether texts share rows.

  Args:
    settings: The stream.
    base: The model before the stream, with its data and tokenizer.
    replay_fraction: Share of each batch that is pretraining text.
    max_length: Tokens in a row, unless the stream sets it.
    seed: The run's seed.
  """

  def __init__(
    self,
    settings: sections.StreamConfig,
    base: base_lib.Base,
    *,
    replay_fraction: float,
    max_length: int,
    seed: int,
  ):
    self._settings = settings
    self._seed = seed * 1_000_003
    self._pad_id = base.tokenizer.pad_id
    self._layout = base.layout
    self._texts = encode_documents(
      settings, base.task, base.tokenizer, max_length
    )
    self.packed = settings.packed
    self._rows = self._texts
    if self.packed:
      self._rows = pack(settings, self._texts, seed)
    every: list[encoded.Rows] = list(self._rows)
    size = settings.batch_size
    self._num_replayed = min(max(round(replay_fraction * size), 1), size - 1)
    if not replay_fraction:
      self._num_replayed = 0
    if self._num_replayed:
      self._pretraining = base_lib.pretraining_rows(base, max_length)
      every.append(self._pretraining)
    self._length = batch_length(every)
    self._most_counted = max(
      (_most_counted(rows, settings) for rows in self._rows),
      default=0,
    )
    self.reuses_rows = (
      not self._num_replayed
      and settings.steps_per_document * size
      >= 2 * max(map(len, self._rows), default=0)
    )

  def num_texts(self, index: int) -> int:
    """Returns the number of texts of a document."""
    return len(self._texts[index])

  def step(self, index: int, step: int) -> DocumentBatch:
    """Builds the batch of a step, a pure function of the arguments.

    Each process makes its own part of it.

    Args:
      index: The document's place in the stream.
      step: The step on that document, from 0.
    """
    rows = self._rows[index]
    size = self._settings.batch_size
    num_own = size - self._num_replayed
    local = stream_lib.local_rows(self._layout, size)
    chosen = batches.row_indices(len(rows), step, num_own, self._seed + index)
    tokens = int(np.sum(rows.lengths[chosen]))
    part = rows.take(chosen[local[local < num_own]])
    batch = batches.pad(part, self._length, self._pad_id)
    if not self._num_replayed and self._layout is None:
      batch = batches.counting(
        batch, self._most_counted, self._settings.num_micro_batches
      )
    if self._num_replayed:
      replayed = batches.row_indices(
        len(self._pretraining),
        index * self._settings.steps_per_document + step,
        self._num_replayed,
        self._seed + len(self._rows),
      )
      tokens += int(np.sum(self._pretraining.lengths_of(replayed)))
      part = self._pretraining.take(replayed[local[local >= num_own] - num_own])
      old = batches.pad(part, self._length, self._pad_id)
      batch = batches.Batch(
        np.concatenate([batch.tokens, old.tokens]),
        np.concatenate([batch.mask, old.mask]),
        np.concatenate([batch.loss_weights, old.loss_weights]),
        # Only the document's own accesses select slots.
        ranked=np.concatenate([_ranked(batch), np.zeros_like(old.mask)]),
        segments=None
        if batch.segments is None and old.segments is None
        else np.concatenate([_segments(batch), _segments(old)]),
      )
    batch = stream_lib.assemble(self._layout, batch, size)
    return DocumentBatch(batch, chosen, tokens)

  def texts(self, index: int) -> batches.Batch:
    """Returns all texts of a document, a row each."""
    return self._whole(self._texts, index)

  def rows(self, index: int) -> batches.Batch:
    """Returns all rows of a document, of which steps take some."""
    return self._whole(self._rows, index)

  def _whole(self, documents, index: int) -> batches.Batch:
    """Returns a whole document, its rows repeated up to those of the longest.

    One shape for all documents, so that they share a program.
    """
    rows = documents[index]
    most = max(map(len, documents))
    filled = np.resize(np.arange(len(rows)), most)
    batch = batches.pad(
      rows.take(filled), batch_length(documents), self._pad_id
    )
    is_repeat = np.arange(most) >= len(rows)
    return batch._replace(ranked=_ranked(batch) & ~is_repeat[:, None])


def _ranked(batch: batches.Batch) -> np.ndarray:
  return batch.mask if batch.ranked is None else batch.ranked


def _segments(batch: batches.Batch) -> np.ndarray:
  """Returns the segments of a batch, int32 [B, L], one a row unless packed."""
  if batch.segments is None:
    return batch.mask.astype(np.int32)
  return batch.segments


def _most_counted(
  rows: encoding.Encoded, settings: sections.StreamConfig
) -> int:
  """Returns the most tokens with a loss that a micro-batch of rows can have.

  A batch repeats rows where an epoch ends, or if there are fewer rows.
  """
  if not len(rows):
    return 0
  repeats = -(-settings.batch_size // len(rows)) + 1
  counted = np.sort(np.tile(rows.counted, repeats))
  size = settings.batch_size // settings.num_micro_batches
  return int(counted[-size:].sum())
