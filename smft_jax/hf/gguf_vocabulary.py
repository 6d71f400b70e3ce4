"""How a GGUF's tokenizer makes tokens, in the words of tokenizer.json.

llama.cpp names how a text is split before byte pairs are merged
(`tokenizer.ggml.pre`) and keeps the rules in its code. Here they are spelled
out as the models' own tokenizer.json has them. Of a SentencePiece model it has
scores, and the pieces that a piece is merged from follow from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from smft_jax import schema
from smft_jax.hf import gguf as hf_gguf

# Kinds of tokens in `tokenizer.ggml.token_type`.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4

_SPACE = '▁'  # in the pieces of SentencePiece


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
  """The tokens, and how a text becomes them.

  Attributes:
    tokens: Tokens by id.
    kinds: Kind of each.
    parts: Normaliser, pre-tokeniser, decoder and model.
    processors: What is done to offsets in the end.
    adds_bos: Whether texts begin with bos, if the metadata does not say.
  """

  tokens: tuple[str, ...]
  kinds: tuple[int, ...]
  parts: Mapping[str, Any]
  processors: tuple[Mapping[str, Any], ...] = ()
  adds_bos: bool


def read(file: hf_gguf.File) -> Vocabulary:
  """Reads the vocabulary from a file's metadata.

  Raises:
    UserError: If it is missing, damaged or not supported.
  """
  model = file.get('tokenizer.ggml.model', str)
  kinds = {'gpt2': _byte_level, 'llama': _sentencepiece}
  if model not in kinds:
    raise file.unsupported(
      'tokenizer.ggml.model', model, ' or '.join(map(repr, kinds))
    )
  return kinds[model](file)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Splitting:
  """What a `tokenizer.ggml.pre` implies.

  Attributes:
    before: What splits a text before its bytes become letters.
    by_bytes: Whether `ByteLevel` splits, too, as in GPT-2.
    normalizer: The normaliser, if any.
    whole_words: Whether a word that is a token is not merged from its parts.
    adds_bos: As in `Vocabulary`.
  """

  before: tuple[Mapping[str, Any], ...] = ()
  by_bytes: bool = True
  normalizer: Mapping[str, Any] | None = None
  whole_words: bool = False
  adds_bos: bool = False


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
    adds_bos=True,
  ),
  'qwen2': _Splitting(
    before=(_isolated(r'\p{N}'),), by_bytes=False, normalizer={'type': 'NFC'}
  ),
  'smollm': _Splitting(before=({'type': 'Digits', 'individual_digits': True},)),
}


def _byte_level(file: hf_gguf.File) -> Vocabulary:
  """Returns a vocabulary of merged bytes, as of GPT-2."""
  name = file.get('tokenizer.ggml.pre', str)
  if name not in _SPLITTINGS:
    raise file.unsupported(
      'tokenizer.ggml.pre', name, ' or '.join(map(repr, _SPLITTINGS))
    )
  splitting = _SPLITTINGS[name]
  by_bytes = {
    'type': 'ByteLevel',
    'add_prefix_space': False,
    'trim_offsets': False,
    'use_regex': splitting.by_bytes,
  }
  tokens, kinds = _tokens(file)
  merges = file.get('tokenizer.ggml.merges', tuple[str, ...])
  return Vocabulary(
    tokens=tokens,
    kinds=kinds,
    parts={
      'normalizer': splitting.normalizer,
      'pre_tokenizer': {
        'type': 'Sequence',
        'pretokenizers': [*splitting.before, by_bytes],
      },
      'decoder': by_bytes,
      'model': {
        'type': 'BPE',
        'ignore_merges': splitting.whole_words,
        'vocab': _ids(tokens),
        'merges': [merge.split(' ') for merge in merges],
      },
    },
    processors=(by_bytes,),
    adds_bos=splitting.adds_bos,
  )


def _sentencepiece(file: hf_gguf.File) -> Vocabulary:
  """Returns a vocabulary of pieces with scores, as of Llama 2."""
  tokens, kinds = _tokens(file)
  scores = _for_each(file, 'scores', tuple[float, ...], tokens)
  spaced = {'type': 'Replace', 'pattern': {'String': ' '}, 'content': _SPACE}
  normalizers: list[Mapping[str, Any]] = [spaced]
  decoders = [
    {'type': 'Replace', 'pattern': {'String': _SPACE}, 'content': ' '},
    {'type': 'ByteFallback'},
    {'type': 'Fuse'},
  ]
  if file.get('tokenizer.ggml.add_space_prefix', bool, True):
    normalizers.insert(0, {'type': 'Prepend', 'prepend': _SPACE})
    strip = {'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0}
    decoders.append(strip)
  unknown = [
    t for t, kind in zip(tokens, kinds, strict=True) if kind == UNKNOWN
  ]
  return Vocabulary(
    tokens=tokens,
    kinds=kinds,
    parts={
      'normalizer': {'type': 'Sequence', 'normalizers': normalizers},
      'pre_tokenizer': None,
      'decoder': {'type': 'Sequence', 'decoders': decoders},
      'model': {
        'type': 'BPE',
        'unk_token': unknown[0] if unknown else None,
        'fuse_unk': True,
        'byte_fallback': True,
        'vocab': _ids(tokens),
        'merges': _merges(tokens, kinds, scores),
      },
    },
    adds_bos=True,
  )


def _merges(
  tokens: Sequence[str], kinds: Sequence[int], scores: Sequence[float]
) -> list[tuple[str, str]]:
  """Returns the pairs that make a piece, those of the best piece first."""
  normal = {
    token: score
    for token, kind, score in zip(tokens, kinds, scores, strict=True)
    if kind == NORMAL
  }
  pairs = [
    (piece[:cut], piece[cut:])
    for piece in sorted(normal, key=normal.__getitem__, reverse=True)
    for cut in range(1, len(piece))
  ]
  return [(a, b) for a, b in pairs if a in normal and b in normal]


def _tokens(file: hf_gguf.File) -> tuple[tuple[str, ...], tuple[int, ...]]:
  """Returns tokens and their kinds."""
  tokens = file.get('tokenizer.ggml.tokens', tuple[str, ...])
  return tokens, _for_each(file, 'token_type', tuple[int, ...], tokens)


def _for_each(
  file: hf_gguf.File, name: str, hint: Any, tokens: Sequence[str]
) -> Any:
  """Returns a list of the metadata that has an entry for each token."""
  key = f'tokenizer.ggml.{name}'
  found = file.get(key, hint)
  if len(found) != len(tokens):
    raise schema.UserError(
      f'{file.path}: {key} has {len(found)} entries for {len(tokens)} tokens;'
      ' the file is damaged'
    )
  return found


def _ids(tokens: Sequence[str]) -> dict[str, int]:
  return {token: i for i, token in enumerate(tokens)}
