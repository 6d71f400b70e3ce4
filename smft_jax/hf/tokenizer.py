"""Loads a checkpoint's tokenizer; that of a GGUF is converted first."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
from typing import Any

from smft_jax import schema
from smft_jax.data import tokenizers
from smft_jax.hf import config as hf_config
from smft_jax.hf import gguf as hf_gguf
from smft_jax.hf import gguf_vocabulary
from smft_jax.store import paths


def load_tokenizer(folder: str | os.PathLike) -> tokenizers.Tokenizer:
  """Reads a checkpoint's tokenizer, as `data.tokenizers.read` does.

  A token of padding for which the model has no row, added by a trainer perhaps,
  is not used: the end token takes its place, and padding is masked anyway.

  Args:
    folder: As for `load_model`, or the tokenizer.json in the folder.

  Raises:
    UserError: If there is none, or it cannot be used.
  """
  path = paths.expand(folder)
  if path.suffix == '.json' or not hf_gguf.is_gguf(path):
    found = tokenizers.read(path)
    folder = path.parent if path.is_file() else path
    if not (folder / 'config.json').exists():
      return found
    rows = hf_config.read_settings(folder).get('vocab_size')
    if isinstance(rows, int) and found.pad_id >= rows:
      found = dataclasses.replace(found, pad=found.eos)
    return found
  contents, config = _convert(path)
  try:
    return tokenizers.from_contents(
      json.dumps(contents), config, hf_gguf.read_settings(path)
    )
  except schema.UserError as error:
    raise schema.UserError(f'{path}: its tokenizer: {error}') from None


def write(path: pathlib.Path, folder: pathlib.Path) -> None:
  """Writes tokenizer.json and tokenizer_config.json of a GGUF into a folder.

  Raises:
    UserError: If the file has no tokenizer, or one that is not supported.
  """
  contents, config = _convert(path)
  for name, value in (
    ('tokenizer.json', contents),
    ('tokenizer_config.json', config),
  ):
    text = json.dumps(value, indent=2, ensure_ascii=False)
    (folder / name).write_text(text + '\n', encoding='utf-8')


def _convert(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns the contents of tokenizer.json and of tokenizer_config.json."""
  file = hf_gguf.opened(path)
  vocabulary = gguf_vocabulary.read(file)
  config = _config(file, vocabulary)
  special = gguf_vocabulary.CONTROL, gguf_vocabulary.UNKNOWN
  added = [
    {
      'id': i,
      'content': vocabulary.tokens[i],
      'single_word': False,
      'lstrip': False,
      'rstrip': False,
      'normalized': False,
      'special': kind in special,
    }
    for i, kind in enumerate(vocabulary.kinds)
    if kind in (*special, gguf_vocabulary.USER_DEFINED)
  ]
  processors = [*vocabulary.processors, *_around(config, vocabulary.tokens)]
  contents = {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': added,
    'post_processor': {'type': 'Sequence', 'processors': processors},
    **vocabulary.parts,
  }
  return contents, config


def _config(
  file: hf_gguf.File, vocabulary: gguf_vocabulary.Vocabulary
) -> dict[str, Any]:
  """Returns the contents of tokenizer_config.json."""
  config = {
    # `transformers` needs the class that reads the other file.
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'clean_up_tokenization_spaces': False,
  }
  for name, added in (('bos', vocabulary.adds_bos), ('eos', False)):
    key = f'add_{name}_token'
    config[key] = file.get(f'tokenizer.ggml.{key}', bool, added)
  names = {'bos': 'bos', 'eos': 'eos', 'unk': 'unknown', 'pad': 'padding'}
  for name, theirs in names.items():
    key = f'tokenizer.ggml.{theirs}_token_id'
    if name == 'eos' or key in file.metadata:
      token_id, size = file.get(key, int), len(vocabulary.tokens)
      if not 0 <= token_id < size:
        raise file.unsupported(key, token_id, f'an id below {size}')
      config[f'{name}_token'] = vocabulary.tokens[token_id]
  template = file.metadata.get('tokenizer.chat_template')
  if template is not None:
    config['chat_template'] = template
  return config


def _around(
  config: Mapping[str, Any], tokens: tuple[str, ...]
) -> list[dict[str, Any]]:
  """Returns the processor that puts bos before a text and eos after it."""
  begin, end = (
    [config[f'{name}_token']]
    if config[f'add_{name}_token'] and f'{name}_token' in config
    else []
    for name in ('bos', 'eos')
  )
  if not begin + end:
    return []

  def template(sequence, number):
    def special(token):
      return {'SpecialToken': {'id': token, 'type_id': number}}

    text = {'Sequence': {'id': sequence, 'type_id': number}}
    return [*map(special, begin), text, *map(special, end)]

  return [
    {
      'type': 'TemplateProcessing',
      'single': template('A', 0),
      'pair': template('A', 0) + template('B', 1),
      'special_tokens': {
        token: {'id': token, 'ids': [tokens.index(token)], 'tokens': [token]}
        for token in begin + end
      },
    }
  ]
