"""Learns one document of a stream."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import dataclasses
import functools
import time

import jax
import jax.numpy as jnp

from smft_jax import flops
from smft_jax import memory
from smft_jax.config import sections
from smft_jax.runs import base as base_lib
from smft_jax.runs import lesson_batches
from smft_jax.runtime import divergence
from smft_jax.runtime import preemption
from smft_jax.training import forward
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib

# Share of the steps on a document over which a rate falls, if it does. Large
# rates learn most, and their last steps leave noise that smaller ones average.
_DECAY = 0.25


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
    self._names = [d.id for d in base.task.documents[: settings.max_documents]]
    self.batches = lesson_batches.LessonBatches(
      settings,
      base,
      replay_fraction=method.replay_fraction,
      max_length=max_length,
      seed=seed,
    )
    self._reuses_hidden = (
      method.trainable is memory.MemoryValue and self.batches.reuses_rows
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
      changed = state.method.begin_document(
        index, self.batches.num_texts(index)
      )
      state = dataclasses.replace(state, extras={**state.extras, **changed})
    hidden = self._hidden(state, index)
    if state.method.per_document and not first:
      of_texts = None if self.batches.packed else hidden
      state = self.begin(state, index, of_texts)
    tokens = 0
    for step in range(first, self._settings.steps_per_document):
      with waiting():
        made = self.batches.step(index, step)
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
      hidden: Hidden states of its texts, if they were computed.
    """
    whole = self.batches.texts(index)
    return step_lib.begin_document(state, whole, hidden, index + 1)

  def flops(self, state: state_lib.TrainState) -> int:
    """Counts the matrix-product operations of the steps on a document."""
    made = self.batches.step(0, 0)
    hidden, below = self._hidden(state, 0), 0
    if hidden is not None:
      whole = self.batches.rows(0)
      below = flops.matmul_flops(
        forward.hidden_below_memory,
        state.graphdef,
        state.params,
        whole.tokens,
        whole.mask,
        whole.segments,
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

  def _hidden(
    self, state: state_lib.TrainState, index: int
  ) -> jax.Array | None:
    """Returns the hidden states of a document's rows, if steps reuse them."""
    if not self._reuses_hidden:
      return None
    whole = self.batches.rows(index)
    return forward.hidden_below_memory(
      state.graphdef, state.params, whole.tokens, whole.mask, whole.segments
    )
