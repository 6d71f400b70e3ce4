"""Pretrains or heals a base model; resumes where an earlier run stopped."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from absl import logging
from flax import nnx

from smft_jax import memory
from smft_jax.config import sections
from smft_jax.data import encoded
from smft_jax.data import stream as stream_lib
from smft_jax.methods import pretraining
from smft_jax.runs import resume
from smft_jax.runtime import divergence
from smft_jax.runtime import preemption
from smft_jax.runtime import progress
from smft_jax.store import records as records_lib
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib

# Steps between two entries of metrics.jsonl.
_RECORD_EVERY = 25


def make_method(settings: sections.BaseConfig) -> method_lib.Method:
  """Builds the method that a base is trained with."""
  return pretraining.make(
    steps=settings.steps,
    warmup_steps=settings.warmup_steps,
    learning_rate=settings.learning_rate,
    value_learning_rate=settings.value_learning_rate,
    weight_decay=settings.weight_decay,
    trainable=memory.MemoryParam if settings.path else nnx.Param,
  )


def train(
  settings: sections.BaseConfig,
  model: nnx.Module,
  rows: encoded.Rows,
  writer: records_lib.MetricsWriter,
  *,
  pad_id: int,
  seed: int,
  max_skipped: int,
  folder: pathlib.Path,
  owner: Mapping[str, Any],
) -> nnx.State:
  """Trains on the pretraining texts.

  Args:
    settings: The base's config.
    model: The model; its Variables are donated.
    rows: The pretraining texts, packed or not.
    writer: Takes 'pretrain' events.
    pad_id: Id of padding.
    seed: Seed of the order of rows.
    max_skipped: Skipped steps in a row at which to stop.
    folder: Folder of the checkpoints.
    owner: As in `checkpoint.save`.

  Returns:
    The trained Variables.
  """
  texts = stream_lib.Batches(
    rows=rows,
    batch_size=settings.batch_size,
    seed=seed,
    pad_id=pad_id,
    layout=memory.layout_of(model),
  )
  state = state_lib.init(model, make_method(settings))
  found = resume.restore(folder, state, owner)
  waited_s = 0.0  # in the runs that this one resumes
  if found:
    state, waited_s = found[0], found[1]['input_wait_s']
    logging.info('resuming after step %d from %s', int(state.step), folder)
  start = int(state.step)
  watch = divergence.Watch(
    'healing' if settings.path else 'pretraining',
    min(max_skipped, settings.steps),
    f'lower config.base.learning_rate = {settings.learning_rate} or'
    f' config.base.value_learning_rate = {settings.value_learning_rate}',
    int(state.skipped_in_a_row),
  )
  writer.truncate(lambda r: r['event'] == 'pretrain' and r['step'] > start)
  with progress.Progress(
    'heal' if settings.path else 'pretrain', settings.steps, start=start
  ) as bar:
    for step in range(start, settings.steps):
      with bar.waiting():
        batch, chosen = texts.batch(step), texts.row_indices(step)
      state, values = step_lib.train_step(state, batch)
      watch.update(values, f'step {step + 1}, {divergence.format_rows(chosen)}')
      bar.update(step + 1, tokens=texts.num_tokens(step), loss=values['loss'])
      done = step + 1
      input_wait_s = round(waited_s + bar.waited_s, 3)
      if done % _RECORD_EVERY == 0 or done == settings.steps:
        writer.write(
          'pretrain',
          step=done,
          loss=float(values['loss']),
          steps_skipped=int(state.skipped),
          input_wait_s=input_wait_s,
        )
      stop = watch.exceeded or preemption.requested()
      last = done == settings.steps
      if stop or last or done % settings.checkpoint_every == 0:
        resume.save(folder, state, owner, {'input_wait_s': input_wait_s})
      if stop and not last:
        watch.finish()
        preemption.check()
  watch.finish()
  return state.params
