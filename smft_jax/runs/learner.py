"""Learning a document: its batches, what is replayed with them, the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import contextlib
import dataclasses
import time

import numpy as np

from smft_jax import flops
from smft_jax.config import experiment as config_lib
from smft_jax.data import batches
from smft_jax.data import encoding
from smft_jax.data import stream as stream_lib
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers
from smft_jax.runs import base as base_lib
from smft_jax.runtime import divergence
from smft_jax.runtime import preemption
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib


def document_rows(
  experiment: config_lib.Experiment,
  task: task_lib.Task,
  tokenizer: tokenizers.Tokenizer,
) -> list[encoding.Encoded]:
  """The texts of each document that is streamed, as rows."""
  stream = experiment.stream
  assert stream is not None
  return [
    encoding.tokenize(
      document.augmentations,
      tokenizer,
      max_length=stream.max_length or experiment.base.max_length,
      context_weight=stream.context_weight,
      answer_weight=stream.answer_weight,
    )
    for document in task.documents[: stream.max_documents]
  ]


def row_length(rows: Iterable[encoding.Encoded]) -> int:
  """L of the batches, one for the whole stream so that it compiles once."""
  return batches.bucket_length(max(r.longest for r in rows), 4)


class Learner:
  """Takes the steps on the documents of a stream; keeps no state of them.

  Args:
    experiment: The config, with a `stream` and a `method`.
    base: The model that the stream began with; its data and tokenizer count.
  """

  def __init__(self, experiment: config_lib.Experiment, base: base_lib.Base):
    assert experiment.stream is not None
    self._settings = experiment.stream
    self._seed = experiment.seed * 1_000_003
    self._pad_id = base.tokenizer.pad_id
    self._layout = base.layout
    documents = base.task.documents[: self._settings.max_documents]
    self._names = [document.id for document in documents]
    self._rows = document_rows(experiment, base.task, base.tokenizer)
    every = list(self._rows)
    size = self._settings.batch_size
    fraction = getattr(experiment.method, 'replay_fraction', 0.0)
    self._replayed = min(max(round(fraction * size), 1), size - 1)
    if not fraction:
      self._replayed = 0
    if self._replayed:
      self._old = base_lib.pretraining_rows(base, experiment.base.max_length)
      every.append(self._old)
    self._length = row_length(every)

  def learn(
    self,
    state: state_lib.TrainState,
    index: int,
    watch: divergence.Watch | None = None,
    first: int = 0,
    waiting: Callable[
      [], contextlib.AbstractContextManager
    ] = contextlib.nullcontext,
  ):
    """Takes the steps on one document.

    Stops after the step in progress where the run is asked to stop, or too many
    steps are skipped; `state.step` tells how far it came.

    Args:
      state: Before the document, or in it; donated.
      index: Its place in the stream.
      watch: Looks at every step; None for nobody.
      first: Steps on it that were taken before.
      waiting: What batches are made within, such as `Progress.waiting`.

    Returns:
      The state after it, and numbers: the last step's `loss`, `slots_accessed`
      and `slots_updated`, `tokens` seen and `lesson_s`, the seconds it took.
    """
    began = time.monotonic()
    if state.method.begin_document is not None:
      changed = state.method.begin_document(index, len(self._rows))
      state = dataclasses.replace(state, extras={**state.extras, **changed})
    hidden = self._hidden(state, index)
    tokens = 0
    for step in range(first, self._settings.steps_per_document):
      with waiting():
        batch, chosen, size = self.batch(index, step)
      tokens += size
      state, values = step_lib.train_step(
        state, batch, None if hidden is None else hidden[chosen]
      )
      if watch is not None:
        watch.look(
          values,
          f'step {step + 1} on document {self._names[index]!r},'
          f' {divergence.rows_named(chosen)} of its texts',
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

  def flops(self, state: state_lib.TrainState) -> int:
    """Operations of the matrix products in the steps on a document."""
    batch, chosen, _ = self.batch(0, 0)
    hidden = self._hidden(state, 0)
    hidden = None if hidden is None else hidden[chosen]
    step = flops.matmul_flops(step_lib.train_step, state, batch, hidden)
    return step * self._settings.steps_per_document

  def batch(self, index: int, step: int):
    """What a step on a document takes; it depends on the arguments alone.

    Args:
      index: The document's place in the stream.
      step: Which step on it, from 0.

    Returns:
      The batch, which texts of the document it has, and how many tokens.
    """
    rows = self._rows[index]
    whole = self._settings.batch_size
    size = whole - self._replayed
    # Each process makes its own part: first the document's, then what is old.
    here = stream_lib.local_rows(self._layout, whole)
    chosen = batches.row_indices(len(rows), step, size, self._seed + index)
    tokens = int(np.sum(rows.lengths[chosen]))
    part = rows.take(chosen[here[here < size]])
    batch = batches.pad(part, self._length, self._pad_id)
    if self._replayed:
      done = index * self._settings.steps_per_document + step
      again = batches.row_indices(
        len(self._old), done, self._replayed, self._seed + len(self._rows)
      )
      tokens += int(np.sum(self._old.lengths[again]))
      part = self._old.take(again[here[here >= size] - size])
      old = batches.pad(part, self._length, self._pad_id)
      batch = batches.Batch(
        np.concatenate([batch.tokens, old.tokens]),
        np.concatenate([batch.mask, old.mask]),
        np.concatenate([batch.loss_weights, old.loss_weights]),
        # A document is written to slots that it reads, not what is replayed.
        ranked=np.concatenate([batch.mask, np.zeros_like(old.mask)]),
      )
    return stream_lib.assemble(self._layout, batch, whole), chosen, tokens

  def _hidden(self, state: state_lib.TrainState, index: int):
    """Hidden states of a document's rows, where steps are to reuse them."""
    if not self._settings.reuse_hidden:
      return None
    rows = self._rows[index]
    # Filled up to one shape, so that all documents share a program.
    filled = np.resize(np.arange(len(rows)), max(map(len, self._rows)))
    whole = batches.pad(rows.take(filled), self._length, self._pad_id)
    return step_lib.hidden_below_memory(
      state.graphdef, state.params, whole.tokens, whole.mask
    )
