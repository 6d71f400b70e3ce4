"""The base model of a run: made or healed once, then found in the cache.

A base is pretrained from scratch or healed: weights that were trained without
memory get memory layers, and only these train. Its folder is named by a hash of
everything the base depends on (pretraining texts, model, memory, training,
seed, weights), so that a changed config makes another base:

  tokenizer.json  tokenizer_config.json  tokens-*.npz  pretraining/STEP
  params/STEP  background-*.npz
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import pathlib
import shutil
import time

from absl import logging
from flax import nnx

from smft_jax import hf
from smft_jax import memory
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.data import documents
from smft_jax.data import edits
from smft_jax.data import encoded
from smft_jax.data import facts
from smft_jax.data import people
from smft_jax.data import task as task_lib
from smft_jax.data import text
from smft_jax.data import tokenizers
from smft_jax.data.world import world
from smft_jax.models import build
from smft_jax.models import layers
from smft_jax.runs import base_cache
from smft_jax.runs import corpus as corpus_lib
from smft_jax.runs import fit
from smft_jax.runs import model as model_lib
from smft_jax.runs import pretrain
from smft_jax.runs import sets
from smft_jax.runtime import claim
from smft_jax.runtime import compile_cache
from smft_jax.runtime import preemption
from smft_jax.runtime import processes
from smft_jax.sharded import layout as layout_lib
from smft_jax.store import checkpoint
from smft_jax.store import checksum
from smft_jax.store import paths
from smft_jax.store import records as records_lib


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Base:
  """A pretrained memory model and its data.

  Attributes:
    folder: Its folder in the cache.
    read_task: Reads its data, and the stream to learn.
    tokenizer: Its tokenizer.
    graphdef: The model.
    params: The model's Variables.
    fingerprint: Hash of the parameters.
    layout: Its layout on a mesh; None for one device.
  """

  folder: pathlib.Path
  read_task: Callable[[], task_lib.Task]
  tokenizer: tokenizers.Tokenizer
  graphdef: nnx.GraphDef
  params: nnx.State
  fingerprint: str
  layout: layout_lib.Layout | None = None

  @functools.cached_property
  def task(self) -> task_lib.Task:
    """The data, read when it is first asked for."""
    return self.read_task()

  @property
  def config(self) -> layers.TransformerConfig:
    """The model's config."""
    return nnx.merge(self.graphdef, self.params).config


def find_or_make(
  experiment: config_lib.Experiment,
  task: task_lib.Task,
  writer: records_lib.MetricsWriter,
) -> Base:
  """Reads an experiment's base from the cache, or trains it.

  Args:
    experiment: The run's config.
    task: Its data, from `make_task`.
    writer: Takes 'pretrain' events.

  Returns:
    The base.

  Raises:
    ValueError: If the data or the cached base cannot be used.
  """
  compile_cache.use(base_cache.root(experiment) / 'compiled')
  folder = base_cache.folder(experiment, task)
  processes.on_main('the tokenizer', _write_tokenizer, experiment, task, folder)
  tokenizer = _read_tokenizer(folder)
  sets.check(experiment, task, tokenizer)
  mine = claim.Claim(folder / 'making')
  found = _find_or_claim(experiment, folder, task, mine)
  if found is not None:
    return found
  with claim.held(mine):
    return _make(experiment, folder, task, tokenizer, writer)


def _find_or_claim(
  experiment, folder: pathlib.Path, task: task_lib.Task, mine: claim.Claim
) -> Base | None:
  """Finds a base, perhaps after waiting for a run that makes it.

  Returns:
    The base; None if it is for this run to make, which then has the claim.
  """
  holder = None
  while True:
    found = find(experiment, folder, lambda: task)
    if found is not None:
      return found
    if holder == '':
      return None
    before = holder
    holder = processes.on_main(
      'the base', _take, mine, base_cache.root(experiment)
    )
    # Once more after taking the claim: it may have been made just before.
    if holder and holder != before:
      logging.info('%s makes the base in %s: waiting for it', holder, folder)
    if holder:
      preemption.check()
      time.sleep(claim.POLL_S)


def _take(mine: claim.Claim, root: pathlib.Path) -> str:
  with base_cache.writing(root):
    return mine.take()


def _make(experiment, folder, task, tokenizer, writer) -> Base:
  """Makes a base that the cache lacks."""
  config = model_lib.config_of(experiment, tokenizer.vocab_size)
  graphdef, like = build.shapes(config)
  owner = {'config': base_cache.config(experiment)}
  logging.info('base not found, %s it into %s', experiment.base.doing, folder)
  if experiment.base.kind == 'fitted':
    params = fit.fit(experiment, folder, task, tokenizer, graphdef, like)
    checkpoint.save(folder / 'params', 0, params, owner=owner)
  else:
    params = _train(
      experiment, folder, task, tokenizer, graphdef, like, owner, writer
    )
  return _base(folder, lambda: task, tokenizer, graphdef, params)


def find(
  experiment: config_lib.Experiment,
  folder: pathlib.Path,
  read_task: Callable[[], task_lib.Task],
) -> Base | None:
  """Reads a base from its folder in the cache, without its data.

  Args:
    experiment: The run's config.
    folder: The folder.
    read_task: Reads the data.

  Returns:
    The base; None if the folder has none.

  Raises:
    ValueError: If the base there is damaged, or of another config.
  """
  compile_cache.use(base_cache.root(experiment) / 'compiled')
  stored = folder / 'params'
  if not processes.on_main('the base', stored.is_dir):
    return None
  tokenizer = _read_tokenizer(folder)
  config = model_lib.config_of(experiment, tokenizer.vocab_size)
  graphdef, like = build.shapes(config)
  owner = {'config': base_cache.config(experiment)}
  found = checkpoint.restore_newest(stored, like, owner)
  if found is None:
    return None
  logging.info('base found in %s', folder)
  return _base(folder, read_task, tokenizer, graphdef, found[1])


def _base(folder, read_task, tokenizer, graphdef, params) -> Base:
  return Base(
    folder=folder,
    read_task=read_task,
    tokenizer=tokenizer,
    graphdef=graphdef,
    params=params,
    fingerprint=checksum.fingerprint(params),
    layout=memory.layout_of(nnx.merge(graphdef, params)),
  )


def _train(
  experiment, folder, task, tokenizer, graphdef, like, owner, writer
) -> nnx.State:
  """Returns the parameters of a base, after pretraining or healing it."""
  settings, seed = experiment.base, experiment.seed
  config = nnx.merge(graphdef, like).config
  if settings.path:
    params = hf.load_params(settings.path, like)
    params = build.make_some(config, seed, params, memory.MemoryParam)
  else:
    _, params = build.make(config, seed)
  params = pretrain.train(
    settings,
    nnx.merge(graphdef, params),
    corpus_lib.find('pretraining', task).rows(
      folder,
      tokenizer,
      settings.max_length,
      pack_seed=seed if settings.packed else None,
    ),
    writer,
    pad_id=tokenizer.pad_id,
    seed=seed,
    max_skipped=experiment.max_skipped,
    folder=folder / 'pretraining',
    owner=owner,
  )
  checkpoint.save(folder / 'params', settings.steps, params, owner=owner)
  if processes.is_main():
    shutil.rmtree(folder / 'pretraining', ignore_errors=True)
  return params


@functools.lru_cache(maxsize=1)
def pretraining_rows(base: Base, max_length: int) -> encoded.Rows:
  """Returns a base's pretraining texts as rows; cached."""
  return corpus_lib.find('pretraining', base.task).rows(
    base.folder, base.tokenizer, max_length
  )


def make_task(experiment: config_lib.Experiment) -> task_lib.Task:
  """Reads the data that a config names, and checks the model against it.

  Raises:
    ValueError: If the data cannot be read, or the model cannot be built.
  """
  path, kind = experiment.base.path, experiment.data.kind
  if not path:
    model_lib.check(experiment)
  sources = {
    'world': world,
    'people': people,
    'facts': facts,
    'edits': edits,
    'text': text,
  }
  source = sources.get(kind, documents)
  task = source.make_task(experiment.data)
  if path:
    model_lib.check_weights(path, task, words=kind == 'world')
    model_lib.check(experiment)
  corpus_lib.check(experiment, task)
  if experiment.stream is not None and not task.documents:
    raise schema.UserError(
      'there is no document to stream: raise config.data.num_new, or leave'
      ' config.stream out'
    )
  return task


def _read_tokenizer(folder: pathlib.Path) -> tokenizers.Tokenizer:
  try:
    return tokenizers.read(folder)
  except schema.UserError as error:
    raise schema.UserError(
      f'{error}; remove {folder} to make the base again'
    ) from None


def _write_tokenizer(experiment, task, folder) -> None:
  """Writes the tokenizer into the folder, unless it has one."""
  if (folder / 'tokenizer.json').exists():
    return
  with base_cache.writing(base_cache.root(experiment)):
    folder.mkdir(parents=True, exist_ok=True)
  if experiment.base.path:
    tokenizer = hf.load_tokenizer(experiment.base.path)
  elif experiment.data.kind == 'world':
    tokenizer = tokenizers.train_word_level(task.vocabulary_texts())
  elif experiment.data.tokenizer:
    tokenizer = tokenizers.read(paths.expand(experiment.data.tokenizer))
  elif task.prepared is not None:
    tokenizer = tokenizers.read(task.prepared.folder)
  else:
    tokenizer = tokenizers.train_byte_level_bpe(
      (text.text for text in task.pretraining),
      experiment.data.tokenizer_vocab_size,
    )
  with base_cache.writing(base_cache.root(experiment)):
    tokenizer.write(folder)
