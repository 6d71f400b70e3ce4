"""Loads a checkpoint's tokenizer; that of a GGUF is converted first.

llama.cpp names how a text is split before byte pairs are merged
(`tokenizer.ggml.pre`) and keeps the rules in its code. Here they are spelled
out as the models' own tokenizer.json has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
import pathlib
from typing import Any

from smft_jax import schema
from smft_jax.data import tokenizers
from smft_jax.hf import gguf as hf_gguf

# Kinds of tokens in `tokenizer.ggml.token_type`.
_CONTROL, _USER_DEFINED = 3, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Splitting:
  """What a `tokenizer.ggml.pre` implies.

  Attributes:
    before: What splits a text before its bytes become letters.
    by_bytes: Whether `ByteLevel` splits, too, as in GPT-2.
    normalizer: Name of the normalisation, if any.
    whole_words: Whether a word that is a token is not merged from its parts.
    add_bos: Whether texts begin with bos, if the metadata does not say.
  """

  before: tuple[Mapping[str, Any], ...] = ()
  by_bytes: bool = True
  normalizer: str | None = None
  whole_words: bool = False
  add_bos: bool = False


def _isolated(digits: str) -> Mapping[str, Any]:
  """Returns the split of Llama 3 and Qwen2, which differ in digits."""
  parts = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r'[^\r\n\p{L}\p{N}]?\p{L}+',
    digits,
    r' ?[^\s\p{L}\p{N}]+[\r\n]*',
    r'\s*[\r\n]+',
    r'\s+(?!\S)',
    r'\s+',
  )
  return {
    'type': 'Split',
    'pattern': {'Regex': '|'.join(parts)},
    'behavior': 'Isolated',
    'invert': False,
  }


_SPLITTINGS = {
  'gpt-2': _Splitting(),
  'llama-bpe': _Splitting(
    before=(_isolated(r'\p{N}{1,3}'),),
    by_bytes=False,
    whole_words=True,
    add_bos=True,
  ),
  'qwen2': _Splitting(
    before=(_isolated(r'\p{N}'),), by_bytes=False, normalizer='NFC'
  ),
  'smollm': _Splitting(before=({'type': 'Digits', 'individual_digits': True},)),
}


def load_tokenizer(folder: str | os.PathLike) -> tokenizers.Tokenizer:
  """Reads a checkpoint's tokenizer, as `data.tokenizers.read` does.

  Args:
    folder: As for `load_model`.

  Raises:
    UserError: If there is none, or it cannot be used.
  """
  path = pathlib.Path(folder)
  if not hf_gguf.is_gguf(path):
    return tokenizers.read(path)
  file = hf_gguf.opened(path)
  config, settings = _config(file), hf_gguf.read_settings(path)
  contents = json.dumps(_tokenizer(file, config))
  try:
    return tokenizers.from_contents(contents, config, settings)
  except schema.UserError as error:
    raise schema.UserError(f'{path}: its tokenizer: {error}') from None


def write(path: pathlib.Path, folder: pathlib.Path) -> None:
  """Writes tokenizer.json and tokenizer_config.json of a GGUF into a folder.

  Raises:
    UserError: If the file has no tokenizer, or one that is not supported.
  """
  file = hf_gguf.opened(path)
  config = _config(file)
  for name, contents in (
    ('tokenizer.json', _tokenizer(file, config)),
    ('tokenizer_config.json', config),
  ):
    text = json.dumps(contents, indent=2, ensure_ascii=False)
    (folder / name).write_text(text + '\n', encoding='utf-8')


def _config(file: hf_gguf.File) -> dict[str, Any]:
  """Returns the contents of tokenizer_config.json."""
  model = file.get('tokenizer.ggml.model', str)
  if model != 'gpt2':
    raise _unsupported(file, 'tokenizer.ggml.model', model, "'gpt2'")
  splitting = _splitting(file)
  tokens = file.get('tokenizer.ggml.tokens', tuple[str, ...])
  special = {}
  for name in ('bos', 'eos', 'unknown', 'padding'):
    key = f'tokenizer.ggml.{name}_token_id'
    if name != 'eos' and key not in file.metadata:
      continue
    token_id = file.get(key, int)
    if not 0 <= token_id < len(tokens):
      raise _unsupported(file, key, token_id, f'an id below {len(tokens)}')
    short = {'unknown': 'unk', 'padding': 'pad'}.get(name, name)
    special[f'{short}_token'] = tokens[token_id]
  template = file.metadata.get('tokenizer.chat_template')
  return {
    # `transformers` needs the class that reads the other file.
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'add_bos_token': file.get(
      'tokenizer.ggml.add_bos_token', bool, splitting.add_bos
    ),
    'add_eos_token': file.get('tokenizer.ggml.add_eos_token', bool, False),
    'clean_up_tokenization_spaces': False,
    **special,
    **({} if template is None else {'chat_template': template}),
  }


def _tokenizer(file: hf_gguf.File, config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the contents of tokenizer.json."""
  splitting = _splitting(file)
  tokens = file.get('tokenizer.ggml.tokens', tuple[str, ...])
  merges = file.get('tokenizer.ggml.merges', tuple[str, ...])
  kinds = file.get(
    'tokenizer.ggml.token_type', tuple[int, ...], [1] * len(tokens)
  )
  if len(kinds) != len(tokens):
    raise schema.UserError(
      f'{file.path}: tokenizer.ggml.token_type has {len(kinds)} entries for'
      f' {len(tokens)} tokens; the file is damaged'
    )
  by_bytes = {
    'type': 'ByteLevel',
    'add_prefix_space': False,
    'trim_offsets': False,
    'use_regex': splitting.by_bytes,
  }
  normalizer = splitting.normalizer
  return {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': [
      {
        'id': i,
        'content': token,
        'single_word': False,
        'lstrip': False,
        'rstrip': False,
        'normalized': False,
        'special': kind == _CONTROL,
      }
      for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
      if kind in (_CONTROL, _USER_DEFINED)
    ],
    'normalizer': normalizer and {'type': normalizer},
    'pre_tokenizer': {
      'type': 'Sequence',
      'pretokenizers': [*splitting.before, by_bytes],
    },
    'post_processor': {
      'type': 'Sequence',
      'processors': [by_bytes, *_around(config, tokens)],
    },
    'decoder': by_bytes,
    'model': {
      'type': 'BPE',
      'dropout': None,
      'unk_token': None,
      'continuing_subword_prefix': None,
      'end_of_word_suffix': None,
      'fuse_unk': False,
      'byte_fallback': False,
      'ignore_merges': splitting.whole_words,
      'vocab': {token: i for i, token in enumerate(tokens)},
      'merges': [merge.split(' ') for merge in merges],
    },
  }


def _around(
  config: Mapping[str, Any], tokens: Sequence[str]
) -> list[dict[str, Any]]:
  """Returns the processor that puts bos before a text and eos after it."""
  texts = []
  for name, before in (('bos', True), ('eos', False)):
    token = config.get(f'{name}_token')
    if config[f'add_{name}_token'] and token is not None:
      texts.append((token, before))
  if not texts:
    return []

  def template(*sequences: str) -> list[dict[str, Any]]:
    pieces: list[dict[str, Any]] = []
    for number, sequence in enumerate(sequences):
      pair = [
        {'SpecialToken': {'id': token, 'type_id': number}} for token, _ in texts
      ]
      text = {'Sequence': {'id': sequence, 'type_id': number}}
      split = sum(before for _, before in texts)
      pieces += [*pair[:split], text, *pair[split:]]
    return pieces

  return [
    {
      'type': 'TemplateProcessing',
      'single': template('A'),
      'pair': template('A', 'B'),
      'special_tokens': {
        token: {'id': token, 'ids': [tokens.index(token)], 'tokens': [token]}
        for token, _ in texts
      },
    }
  ]


def _splitting(file: hf_gguf.File) -> _Splitting:
  name = file.get('tokenizer.ggml.pre', str)
  if name not in _SPLITTINGS:
    raise _unsupported(
      file, 'tokenizer.ggml.pre', name, ' or '.join(map(repr, _SPLITTINGS))
    )
  return _SPLITTINGS[name]


def _unsupported(
  file: hf_gguf.File, key: str, value: Any, wanted: str
) -> schema.UserError:
  return schema.UserError(
    f'{file.path}: {key} = {schema.brief(value)} is not supported; expected'
    f' {wanted}'
  )
