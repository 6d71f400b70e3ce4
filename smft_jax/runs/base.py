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
from smft_jax.data import people
from smft_jax.data import task as task_lib
from smft_jax.data import token_cache
from smft_jax.data import tokenizers
from smft_jax.data.world import world
from smft_jax.models import build
from smft_jax.models import layers
from smft_jax.runs import corpus
from smft_jax.runs import fit
from smft_jax.runs import model as model_lib
from smft_jax.runs import pretrain
from smft_jax.runs import sets
from smft_jax.runtime import agreement
from smft_jax.runtime import compile_cache
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
  compile_cache.use(cache(experiment) / 'compiled')
  folder = _folder(experiment, task)
  processes.on_main('the tokenizer', _write_tokenizer, experiment, task, folder)
  tokenizer = _read_tokenizer(folder)
  sets.check(experiment, task, tokenizer)
  found = find(experiment, folder, lambda: task)
  if found is not None:
    return found
  config = model_lib.config_of(experiment, tokenizer.vocab_size)
  graphdef, like = build.shapes(config)
  owner = {'config': _base_config(experiment)}
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
  compile_cache.use(cache(experiment) / 'compiled')
  stored = folder / 'params'
  if not processes.on_main('the base', stored.is_dir):
    return None
  tokenizer = _read_tokenizer(folder)
  config = model_lib.config_of(experiment, tokenizer.vocab_size)
  graphdef, like = build.shapes(config)
  owner = {'config': _base_config(experiment)}
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
    token_cache.tokenized(
      folder, task.pretraining, tokenizer, settings.max_length
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
def pretraining_rows(base: Base, max_length: int) -> encoding.Encoded:
  """Returns a base's pretraining texts as rows; cached."""
  return token_cache.tokenized(
    base.folder, base.task.pretraining, base.tokenizer, max_length
  )


def make_task(experiment: config_lib.Experiment) -> task_lib.Task:
  """Reads the data that a config names, and checks the model against it.

  Raises:
    ValueError: If the data cannot be read, or the model cannot be built.
  """
  path, kind = experiment.base.path, experiment.data.kind
  if not path:
    model_lib.check(experiment)
  sources = {'world': world, 'people': people, 'facts': facts}
  source = sources.get(kind, documents)
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
  """Makes the folder of cached bases.

  Raises:
    UserError: If it cannot be made or written, or processes do not share it.
  """
  root = cache(experiment)
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
  folder.mkdir(parents=True, exist_ok=True)
  if experiment.base.path:
    tokenizer = hf.load_tokenizer(experiment.base.path)
  elif experiment.data.kind == 'world':
    tokenizer = tokenizers.train_word_level(task.vocabulary_texts())
  elif experiment.data.tokenizer:
    tokenizer = tokenizers.read(paths.expand(experiment.data.tokenizer))
  else:
    tokenizer = tokenizers.train_byte_level_bpe(
      (text.text for text in task.pretraining),
      experiment.data.tokenizer_vocab_size,
    )
  tokenizer.write(folder)


def _folder(
  experiment: config_lib.Experiment, task: task_lib.Task
) -> pathlib.Path:
  """Returns the folder of a config's base in the cache.

  Only the pretraining texts count, so that a base serves other documents.
  """
  config = json.dumps(_base_config(experiment), sort_keys=True)
  digest = hashlib.sha256(config.encode())
  digest.update(_tokenizer_key(experiment, task).encode())
  for text in task.pretraining:
    digest.update(f'{text.text}\0{text.answer}\0'.encode())
  background = experiment.background
  if experiment.base.kind == 'fitted' and background is not None:
    for text in corpus.texts(background.corpus, task):
      digest.update(f'{text.text}\0'.encode())
  kind = 'world' if experiment.data.kind == 'world' else 'text'
  return cache(experiment) / f'base-{kind}-{digest.hexdigest()[:16]}'


def _base_config(experiment: config_lib.Experiment) -> dict[str, Any]:
  """Returns the part of a config that a base depends on."""
  config = config_lib.to_dict(experiment)
  parts = {k: config[k] for k in ('seed', 'model', 'memory', 'base')}
  if experiment.base.kind == 'fitted':
    parts['background'] = config['background']
  for name in ('cache_dir', 'path'):  # weights count by their content
    parts['base'].pop(name)
  parts['model'].pop('remat')
  return parts


def _tokenizer_key(experiment, task) -> str:
  """Identifies the tokenizer and the weights, apart from pretraining texts."""
  if experiment.base.path:
    return processes.on_main(
      'the weights', model_lib.digest, experiment.base.path
    )
  if experiment.data.kind != 'world':
    if experiment.data.tokenizer:
      path = paths.expand(experiment.data.tokenizer)
      return tokenizers.read(path).fingerprint()
    return str(experiment.data.tokenizer_vocab_size)
  # A word-level tokenizer must know the words of the stream, too.
  words = set(' '.join(task.vocabulary_texts()).split())
  return ' '.join(sorted(words))


def cache(experiment: config_lib.Experiment) -> pathlib.Path:
  """Returns the folder of cached bases."""
  root = experiment.base.cache_dir or '~/.cache/smft_jax'
  return paths.expand(root).absolute()
