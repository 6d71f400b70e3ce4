"""Weights that were trained without memory, as what a base is healed from.

They lie in a Hugging Face folder: config.json, tokenizer.json, *.safetensors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib

from flax import nnx

from smft_jax import hf
from smft_jax import layers
from smft_jax import schema
from smft_jax import transformer
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers


def before_healing(
  path: str, config: layers.TransformerConfig, seed: int
) -> tuple[nnx.GraphDef, nnx.State]:
  """The model of a folder as it came, on the mesh of the one made of it.

  Args:
    path: The folder.
    config: Of the model with memory.
    seed: What the memory's parameters are drawn from.

  Returns:
    The model, its memory beside the FFNs and not heard yet, and its Variables.
  """
  config = dataclasses.replace(config, memory_placement='beside')
  graphdef, fresh = transformer.make(config, seed)
  return graphdef, hf.load_params(path, fresh)


def digest(path: str) -> str:
  """A hash of all that a base takes from a folder."""
  folder = pathlib.Path(path)
  files = [*folder.glob('*.json'), *folder.glob('*.safetensors')]
  found = hashlib.sha256()
  for file in sorted(files):
    found.update(f'{file.name} {file.stat().st_size}\0'.encode())
    with file.open('rb') as contents:
      found.update(hashlib.file_digest(contents, 'sha256').digest())
  return found.hexdigest()


def check(path: str, task: task_lib.Task, words: bool) -> None:
  """Checks that a folder can be used, as far as that shows without its weights.

  Args:
    path: The folder.
    task: The data of the run.
    words: Whether its texts are made of few words, all of which the tokenizer
      must know.

  Raises:
    UserError: If it cannot: the line names the file.
  """
  config = hf.load_config(path)
  if config.memory is not None:
    raise schema.UserError(
      f'config.base.path: {path} has memory layers already, in'
      ' memory.safetensors; what can be healed is a model without'
    )
  rows, found = config.vocab_size, tokenizers.read(pathlib.Path(path))
  ids = found.inner.get_vocab(with_added_tokens=True).values()
  if max(ids) >= rows:
    raise schema.UserError(
      f'{path}: tokenizer.json has ids up to {max(ids)}, and config.json'
      f' vocab_size = {rows}: it is the tokenizer of another vocabulary'
    )
  if not words:
    return
  for word in sorted(set(' '.join(task.vocabulary_texts()).split())):
    if found.decode(found.encode(word)).replace(' ', '') != word:
      raise schema.UserError(
        f'{path}: tokenizer.json cannot spell {word!r}, which is in the texts'
        ' of config.data: it is the tokenizer of another vocabulary'
      )
