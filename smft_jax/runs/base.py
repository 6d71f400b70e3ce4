"""The base model of a run: made or healed once, cached, found again.

A base is made from scratch, or out of weights that were trained without memory:
these get memory layers, and only the memory is trained, which is healing them.
It is a folder named by a hash of all that it depends on (pretraining texts,
model, memory, training, seed, weights), so a changed config makes another one:

  tokenizer.json  tokenizer_config.json  tokens-*.npz  pretraining/STEP
  params/STEP  background-*.npz
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import tempfile
from typing import Any

from absl import logging
from flax import nnx

from smft_jax import hf
from smft_jax import memory
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.data import documents
from smft_jax.data import encoding
from smft_jax.data import facts
from smft_jax.data import packing
from smft_jax.data import stream as stream_lib
from smft_jax.data import task as task_lib
from smft_jax.data import token_cache
from smft_jax.data import tokenizers
from smft_jax.data.world import world
from smft_jax.methods import pretraining
from smft_jax.models import transformer
from smft_jax.runs import model as model_lib
from smft_jax.runs import resume
from smft_jax.runtime import agreement
from smft_jax.runtime import divergence
from smft_jax.runtime import preemption
from smft_jax.runtime import processes
from smft_jax.runtime import progress
from smft_jax.sharded import layout as layout_lib
from smft_jax.store import checkpoint
from smft_jax.store import checksum
from smft_jax.store import records as records_lib
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib

# A change to how bases are made that old ones do not show: raise it.
_FORMAT = 4

# Steps of pretraining between two entries of metrics.jsonl.
_RECORD_EVERY = 25


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Base:
  """A pretrained memory model with the data it belongs to.

  Attributes:
    folder: Where it is cached.
    task: Its data, and the stream to learn.
    tokenizer: Its tokenizer.
    graphdef: The model.
    params: Its Variables.
    fingerprint: Hash of the parameters.
    layout: How it lies on a mesh; None without one.
  """

  folder: pathlib.Path
  task: task_lib.Task
  tokenizer: tokenizers.Tokenizer
  graphdef: nnx.GraphDef
  params: nnx.State
  fingerprint: str
  layout: layout_lib.Layout | None = None


def find_or_make(
  experiment: config_lib.Experiment,
  task: task_lib.Task,
  writer: records_lib.MetricsWriter,
) -> Base:
  """The base of an experiment: from the cache, else trained now.

  Args:
    experiment: The run's config.
    task: Its data, see `make_task`.
    writer: Takes 'pretrain' events.

  Returns:
    The base.

  Raises:
    ValueError: If the data or the cached base cannot be used.
  """
  folder = _folder(experiment, task)
  processes.on_main('the tokenizer', _keep_tokenizer, experiment, task, folder)
  try:
    tokenizer = tokenizers.read(folder)
  except schema.UserError as error:
    raise schema.UserError(
      f'{error}; remove {folder} to make the base again'
    ) from None
  config = model_lib.config_of(experiment, tokenizer.vocab_size)
  graphdef, params = transformer.make(config, experiment.seed)
  owner = {'config': _parts(experiment)}
  found = checkpoint.restore_newest(folder / 'params', params, owner)
  if found:
    logging.info('base found in %s', folder)
    params = found[1]
  else:
    path = experiment.base.path
    if path:
      params = hf.load_params(path, params)
    doing = 'healing' if path else 'pretraining'
    logging.info('base not found, %s it into %s', doing, folder)
    params = _pretrain(
      experiment, nnx.merge(graphdef, params), task, tokenizer, folder, writer
    )
    checkpoint.save(
      folder / 'params', experiment.base.steps, params, owner=owner
    )
    if processes.is_main():
      shutil.rmtree(folder / 'pretraining', ignore_errors=True)
  return Base(
    folder=folder,
    task=task,
    tokenizer=tokenizer,
    graphdef=graphdef,
    params=params,
    fingerprint=checksum.fingerprint(params),
    layout=memory.layout_of(nnx.merge(graphdef, params)),
  )


@functools.lru_cache(maxsize=1)
def pretraining_rows(base: Base, max_length: int) -> encoding.Encoded:
  """What a base was trained on, as rows; runs that share it share them."""
  return token_cache.tokenized(
    base.folder, base.task.pretraining, base.tokenizer, max_length
  )


def make_task(experiment: config_lib.Experiment) -> task_lib.Task:
  """The data that the config names; also checks what it can be checked for.

  Raises:
    ValueError: If the data cannot be read, or the model cannot be built.
  """
  path, kind = experiment.base.path, experiment.data.kind
  if not path:
    model_lib.check(experiment)
  source = {'world': world, 'facts': facts}.get(kind, documents)
  task = source.make_task(experiment.data)
  if path:
    model_lib.check_weights(path, task, words=kind == 'world')
    model_lib.check(experiment)
  if experiment.stream is not None and not task.documents:
    raise schema.UserError(
      'there is no document to stream: raise config.data.num_new, or leave'
      ' config.stream out'
    )
  return task


def check_cache(experiment: config_lib.Experiment) -> None:
  """Makes the folder that bases are cached in.

  Raises:
    UserError: If it cannot be made or written, or processes do not share it.
  """
  root = _cache(experiment)
  processes.on_main('the cache', _make_cache, root)
  agreement.check_shared(root, 'config.base.cache_dir')


def _make_cache(root: pathlib.Path) -> None:
  try:
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=root):
      pass
  except OSError as error:
    raise schema.UserError(
      f'config.base.cache_dir: {root} cannot be written: {error.strerror}'
    ) from None


def _pretrain(experiment, model, task, tokenizer, folder, writer) -> nnx.State:
  """Trains on the pretraining texts; resumes where it was."""
  settings = experiment.base
  rows = token_cache.tokenized(
    folder, task.pretraining, tokenizer, settings.max_length
  )
  if settings.packed:
    rows = packing.pack(rows, settings.max_length, experiment.seed)
  texts = stream_lib.Batches(
    rows=rows,
    batch_size=settings.batch_size,
    seed=experiment.seed,
    pad_id=tokenizer.pad_id,
    layout=memory.layout_of(model),
  )
  state = state_lib.init(model, pretraining_method(experiment))
  saved, owner = folder / 'pretraining', {'config': _parts(experiment)}
  found = resume.restore(saved, state, owner)
  waited_s = 0.0  # by the runs that this one resumes
  if found:
    state, waited_s = found[0], found[1].get('input_wait_s', 0.0)
    logging.info('resumes after step %d, from %s', int(state.step), saved)
  start = int(state.step)
  watch = divergence.Watch(
    'healing' if settings.path else 'pretraining',
    min(experiment.max_skipped, settings.steps),
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
        resume.save(saved, state, owner, {'input_wait_s': input_wait_s})
      if stop and not last:
        watch.finish()
        preemption.check()
  watch.finish()
  return state.params


def _keep_tokenizer(experiment, task, folder) -> None:
  """Puts the tokenizer into the folder, unless it is there."""
  if (folder / 'tokenizer.json').exists():
    return
  folder.mkdir(parents=True, exist_ok=True)
  if experiment.base.path:
    tokenizer = tokenizers.read(pathlib.Path(experiment.base.path))
  elif experiment.data.kind == 'world':
    tokenizer = tokenizers.train_word_level(task.vocabulary_texts())
  elif experiment.data.tokenizer:
    tokenizer = tokenizers.read(pathlib.Path(experiment.data.tokenizer))
  else:
    tokenizer = tokenizers.train_byte_level_bpe(
      (text.text for text in task.pretraining),
      experiment.data.tokenizer_vocab_size,
    )
  tokenizer.write(folder)


def pretraining_method(experiment: config_lib.Experiment) -> method_lib.Method:
  """How the base that the config describes is trained."""
  settings = experiment.base
  return pretraining.make(
    steps=settings.steps,
    warmup_steps=settings.warmup_steps,
    learning_rate=settings.learning_rate,
    value_learning_rate=settings.value_learning_rate,
    weight_decay=settings.weight_decay,
    trainable=memory.MemoryParam if settings.path else nnx.Param,
  )


def _folder(
  experiment: config_lib.Experiment, task: task_lib.Task
) -> pathlib.Path:
  """Where the base of this config and these pretraining texts is cached.

  Of the data only what the base is made from counts: the same base serves
  other documents.
  """
  parts = _parts(experiment)
  digest = hashlib.sha256(json.dumps([_FORMAT, parts], sort_keys=True).encode())
  digest.update(_tokenizer_key(experiment, task).encode())
  for text in task.pretraining:
    digest.update(f'{text.text}\0{text.answer}\0'.encode())
  kind = 'world' if experiment.data.kind == 'world' else 'text'
  return _cache(experiment) / f'base-{kind}-{digest.hexdigest()[:16]}'


def _parts(experiment: config_lib.Experiment) -> dict[str, Any]:
  """What of the config makes the base."""
  config = config_lib.to_dict(experiment)
  parts = {k: config[k] for k in ('seed', 'model', 'memory', 'base')}
  for name in ('cache_dir', 'path'):  # what lies there counts, not where
    parts['base'].pop(name)
  if not experiment.base.packed:  # bases from before it was a choice are these
    parts['base'].pop('packed')
  if experiment.model.memory_placement == 'beside':
    parts['output_gate'] = True  # which bases of former versions lack
  return parts


def _tokenizer_key(experiment, task) -> str:
  """What tokenizer and weights hang on beside the pretraining texts."""
  if experiment.base.path:
    return processes.on_main(
      'the weights', model_lib.digest, experiment.base.path
    )
  if experiment.data.kind != 'world':
    if experiment.data.tokenizer:
      path = pathlib.Path(experiment.data.tokenizer)
      return tokenizers.read(path).fingerprint()
    return str(experiment.data.tokenizer_vocab_size)
  # Word-level: it must be able to spell what will be streamed, too.
  words = set(' '.join(task.vocabulary_texts()).split())
  return ' '.join(sorted(words))


def _cache(experiment: config_lib.Experiment) -> pathlib.Path:
  root = experiment.base.cache_dir or '~/.cache/smft_jax'
  return pathlib.Path(root).expanduser().absolute()
