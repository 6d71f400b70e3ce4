"""Where bases are kept, and under which names.

A base's folder is named by a hash of all that it depends on.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import hashlib
import json
import pathlib
import tempfile
from typing import Any

from absl import logging

from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers
from smft_jax.runs import corpus
from smft_jax.runs import model as model_lib
from smft_jax.runtime import agreement
from smft_jax.runtime import disk
from smft_jax.runtime import processes
from smft_jax.store import paths


def check(experiment: config_lib.Experiment) -> None:
  """Makes the folder of cached bases.

  One that cannot be written may still hold the base.

  Raises:
    UserError: If it cannot be made, or processes do not share it.
  """
  path = root(experiment)
  if processes.on_main('the cache', _make, path):
    agreement.check_shared(path, 'config.base.cache_dir')


def _make(path: pathlib.Path) -> bool:
  """Makes the cache; returns whether it can be written."""
  with writing(path):
    path.mkdir(parents=True, exist_ok=True)
  try:
    with tempfile.TemporaryFile(dir=path):
      return True
  except OSError as error:
    logging.warning('%s: only what it holds is used', _unwritable(path, error))
    return False


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """Within the context, names the cache if it cannot be written.

  Raises:
    UserError: If it cannot, other than for lack of room.
  """
  try:
    yield
  except OSError as error:
    if error.errno in disk.FULL:
      raise
    raise schema.UserError(_unwritable(path, error)) from None


def _unwritable(path: pathlib.Path, error: OSError) -> str:
  return f'config.base.cache_dir: {path} cannot be written: {error.strerror}'


def folder(
  experiment: config_lib.Experiment, task: task_lib.Task
) -> pathlib.Path:
  """Returns the folder of a config's base in the cache.

  Only the pretraining texts count, so that a base serves other documents.
  """
  described = json.dumps(config(experiment), sort_keys=True)
  digest = hashlib.sha256(described.encode())
  digest.update(_tokenizer_key(experiment, task).encode())
  for text in task.pretraining:
    digest.update(f'{text.text}\0{text.answer}\0'.encode())
  background = experiment.background
  rows = [task.prepared]
  if experiment.base.kind == 'fitted' and background is not None:
    found = corpus.find(background.corpus, task)
    for text in found.texts:
      digest.update(f'{text.text}\0'.encode())
    rows.append(found.prepared)
  for prepared in filter(None, rows):
    digest.update(prepared.fingerprint().encode())
  kind = 'world' if experiment.data.kind == 'world' else 'text'
  return root(experiment) / f'base-{kind}-{digest.hexdigest()[:16]}'


def config(experiment: config_lib.Experiment) -> dict[str, Any]:
  """Returns the part of a config that a base depends on."""
  whole = config_lib.to_dict(experiment)
  parts = {k: whole[k] for k in ('seed', 'model', 'memory', 'base')}
  if experiment.base.kind == 'fitted':
    parts['background'] = whole['background']
    parts['background'].pop('counts')  # those of a base that is made before
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
    if task.prepared is not None:
      return task.prepared.facts['tokenizer']
    return str(experiment.data.tokenizer_vocab_size)
  # A word-level tokenizer must know the words of the stream, too.
  words = set(' '.join(task.vocabulary_texts()).split())
  return ' '.join(sorted(words))


def root(experiment: config_lib.Experiment) -> pathlib.Path:
  """Returns the folder of cached bases."""
  given = experiment.base.cache_dir or '~/.cache/smft_jax'
  return paths.expand(given).absolute()
