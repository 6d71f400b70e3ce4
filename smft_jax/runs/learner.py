"""Learns one document of a stream: builds its batches and takes the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import contextlib
import dataclasses
import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import flops
from smft_jax import memory
from smft_jax.config import sections
from smft_jax.data import batches
from smft_jax.data import encoding
from smft_jax.data import stream as stream_lib
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers
from smft_jax.runs import base as base_lib
from smft_jax.runtime import divergence
from smft_jax.runtime import preemption
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib

# Share of the steps on a document over which a rate falls, if it does. Large
# rates learn most, and their last steps leave noise that smaller ones average.
_DECAY = 0.25


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


def batch_length(rows: Iterable[encoding.Encoded]) -> int:
  """Returns L, one for the whole stream so that the step compiles once."""
  return batches.bucket_length(max(r.longest for r in rows), 4)


class Learner:
  """Takes the steps on the documents of a stream; keeps no training state.

  Hidden states below the memory are computed once per document where that
  changes nothing but rounding (only values train, nothing is replayed) and
  saves work (steps repeat rows).

  Args:
    settings: The stream.
    method: The way of finetuning.
    base: The model before the stream, with its data and tokenizer.
    max_length: Tokens in a row, unless the stream sets it.
    seed: The run's seed.
  """

  def __init__(
    self,
    settings: sections.StreamConfig,
    method: method_lib.Method,
    base: base_lib.Base,
    *,
    max_length: int,
    seed: int,
  ):
    self._settings = settings
    self._method = method
    self._seed = seed * 1_000_003
    self._pad_id = base.tokenizer.pad_id
    self._layout = base.layout
    documents = base.task.documents[: settings.max_documents]
    self._names = [document.id for document in documents]
    self._rows = encode_documents(
      settings, base.task, base.tokenizer, max_length
    )
    every = list(self._rows)
    size, fraction = settings.batch_size, method.replay_fraction
    self._num_replayed = min(max(round(fraction * size), 1), size - 1)
    if not fraction:
      self._num_replayed = 0
    if self._num_replayed:
      self._pretraining = base_lib.pretraining_rows(base, max_length)
      every.append(self._pretraining)
    self._length = batch_length(every)
    self._most_rows = max(map(len, self._rows), default=0)
    self._most_counted = max(
      (_most_counted(rows, settings) for rows in self._rows),
      default=0,
    )
    self._reuses_hidden = (
      method.trainable is memory.MemoryValue
      and not self._num_replayed
      and settings.steps_per_document * size >= 2 * self._most_rows
    )

  def learn(
    self,
    state: state_lib.TrainState,
    index: int,
    watch: divergence.Watch | None = None,
    first: int = 0,
    waiting: Callable[
      [], contextlib.AbstractContextManager
    ] = contextlib.nullcontext,
  ) -> tuple[state_lib.TrainState, dict[str, float]]:
    """Takes the steps on one document.

    Stops after the current step if the run is asked to stop or too many steps
    were skipped; `state.step` then tells how far it came.

    Args:
      state: The state; donated.
      index: The document's place in the stream.
      watch: Checks every step for divergence; None checks nothing.
      first: Steps on this document that were already taken.
      waiting: Context in which batches are made, such as `Progress.waiting`.

    Returns:
      The next state and numbers: the last step's `loss`, `slots_accessed` and
      `slots_updated`; `tokens`; `lesson_s`, the seconds it took.
    """
    began = time.monotonic()
    if state.method.begin_document is not None:
      changed = state.method.begin_document(index, len(self._rows))
      state = dataclasses.replace(state, extras={**state.extras, **changed})
    hidden = self._hidden(state, index)
    if state.method.per_document and not first:
      state = self.begin(state, index, hidden)
    tokens = 0
    for step in range(first, self._settings.steps_per_document):
      with waiting():
        made = self.batch(index, step)
      tokens += made.num_tokens
      if self._method.decays:
        state = self._with_rate(state, step)
      state, values = step_lib.train_step(
        state,
        made.batch,
        None if hidden is None else hidden[made.rows],
        self._settings.micro_batch_size,
      )
      if watch is not None:
        watch.update(
          values,
          f'step {step + 1} on document {self._names[index]!r},'
          f' {divergence.format_rows(made.rows)} of its texts',
        )
      if preemption.requested() or (watch is not None and watch.exceeded):
        break
    values = {
      name: float(values[name])
      for name in ('loss', 'slots_accessed', 'slots_updated')
      if name in values
    }
    values['lesson_s'] = round(time.monotonic() - began, 4)
    return state, values | {'tokens': tokens}

  def _with_rate(
    self, state: state_lib.TrainState, step: int
  ) -> state_lib.TrainState:
    """Sets the learning rate of a step on a document, for one that falls."""
    left = 1 - step / self._settings.steps_per_document
    share = min(1.0, left / _DECAY)
    rate = jnp.float32(self._method.hyperparameters['learning_rate'] * share)
    return dataclasses.replace(
      state, extras={**state.extras, 'learning_rate': rate}
    )

  def begin(
    self,
    state: state_lib.TrainState,
    index: int,
    hidden: jax.Array | None = None,
  ) -> state_lib.TrainState:
    """Selects the slots of a document, for a method that is `per_document`.

    Args:
      state: The state; donated.
      index: The document's place in the stream.
      hidden: Hidden states of its rows, if they were computed.
    """
    whole = self.document(index)
    return step_lib.begin_document(state, whole, hidden, index + 1)

  def flops(self, state: state_lib.TrainState) -> int:
    """Counts the matrix-product operations of the steps on a document."""
    made = self.batch(0, 0)
    hidden, below = self._hidden(state, 0), 0
    if hidden is not None:
      whole = self.document(0)
      below = flops.matmul_flops(
        step_lib.hidden_below_memory,
        state.graphdef,
        state.params,
        whole.tokens,
        whole.mask,
      )
      hidden = hidden[made.rows]
    step = flops.matmul_flops(
      functools.partial(
        step_lib.train_step, micro_batch_size=self._settings.micro_batch_size
      ),
      state,
      made.batch,
      hidden,
    )
    return below + step * self._settings.steps_per_document

  def batch(self, index: int, step: int) -> DocumentBatch:
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
      tokens += int(np.sum(self._pretraining.lengths[replayed]))
      part = self._pretraining.take(replayed[local[local >= num_own] - num_own])
      old = batches.pad(part, self._length, self._pad_id)
      batch = batches.Batch(
        np.concatenate([batch.tokens, old.tokens]),
        np.concatenate([batch.mask, old.mask]),
        np.concatenate([batch.loss_weights, old.loss_weights]),
        # Only the document's own accesses select slots.
        ranked=np.concatenate([batch.mask, np.zeros_like(old.mask)]),
      )
    batch = stream_lib.assemble(self._layout, batch, size)
    return DocumentBatch(batch, chosen, tokens)

  def document(self, index: int) -> batches.Batch:
    """Returns all rows of a document, repeated up to those of the longest.

    One shape for all documents, so that they share a program.
    """
    rows = self._rows[index]
    filled = np.resize(np.arange(len(rows)), self._most_rows)
    batch = batches.pad(rows.take(filled), self._length, self._pad_id)
    is_repeat = np.arange(self._most_rows) >= len(rows)
    return batch._replace(ranked=batch.mask & ~is_repeat[:, None])

  def _hidden(
    self, state: state_lib.TrainState, index: int
  ) -> jax.Array | None:
    """Returns the hidden states of a document's rows, if steps reuse them."""
    if not self._reuses_hidden:
      return None
    whole = self.document(index)
    return step_lib.hidden_below_memory(
      state.graphdef, state.params, whole.tokens, whole.mask
    )


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
