"""Tokenizers, trained here or read from a checkpoint's folder.

Wraps the `tokenizers` library and guarantees what this package relies on: three
special tokens, text that can neither spell them nor be truncated, and a
fingerprint. Files are those of Hugging Face folders: the tokenizer is in
tokenizer.json, the names of its special tokens in tokenizer_config.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
import hashlib
import json
import pathlib

import tokenizers

from smft_jax import schema
from smft_jax.store import atomic

PAD = '<|pad|>'
BOS = '<|bos|>'
EOS = '<|eos|>'
UNKNOWN = '<|unknown|>'

_FILE = 'tokenizer.json'
_CONFIG = 'tokenizer_config.json'
_KINDS = ('pad', 'bos', 'eos')

# A word-level decoder joins these to the preceding word.
_CLOSING = ('.', ',', ':', ';', '?', '!')


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """Encodes text as token ids, and back; made by `read` or `train_*`.

  Attributes:
    inner: The wrapped tokenizer.
    pad: Token of padding.
    bos: Token that begins rows.
    eos: Token that ends texts.

  Raises:
    ValueError: `inner` lacks one of the special tokens.

  Example:
    >>> tokenizer = train_word_level(['Ada was born in Lisbon.'])
    >>> tokenizer.decode(tokenizer.encode('Ada was in Lisbon.'))
    'Ada was in Lisbon.'
  """

  inner: tokenizers.Tokenizer
  pad: str = PAD
  bos: str = BOS
  eos: str = EOS

  def __post_init__(self) -> None:
    for token in (self.pad, self.bos, self.eos):
      self._special_id(token)
    # Special tokens spelled in a text are plain text; nothing is truncated.
    self.inner.encode_special_tokens = True
    self.inner.no_truncation()
    self.inner.no_padding()

  @property
  def vocab_size(self) -> int:
    """Number of token ids, special ones included."""
    return self.inner.get_vocab_size()

  @property
  def pad_id(self) -> int:
    """Id of the padding token."""
    return self._special_id(self.pad)

  @property
  def bos_id(self) -> int:
    """Id of the token that begins every row."""
    return self._special_id(self.bos)

  @property
  def eos_id(self) -> int:
    """Id of the token that ends every text."""
    return self._special_id(self.eos)

  def encode(self, text: str) -> list[int]:
    """Returns the token ids of `text`, without special tokens."""
    return self.encode_with_offsets(text)[0]

  def encode_with_offsets(
    self, text: str
  ) -> tuple[list[int], list[tuple[int, int]]]:
    """Returns the token ids and the span of characters of each."""
    return self.encode_batch_with_offsets([text])[0]

  def encode_batch_with_offsets(
    self, texts: Sequence[str]
  ) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Encodes many texts at once, faster than `encode_with_offsets`."""
    encodings = self.inner.encode_batch(list(texts), add_special_tokens=False)
    return [(e.ids, e.offsets) for e in encodings]

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text of `ids`, without special tokens."""
    return self.inner.decode([int(i) for i in ids], skip_special_tokens=True)

  def write(self, folder: pathlib.Path) -> None:
    """Writes both files into a folder, for `read`."""
    special = {f'{kind}_token': getattr(self, kind) for kind in _KINDS}
    # `transformers` needs the class that reads the other file.
    special['tokenizer_class'] = 'PreTrainedTokenizerFast'
    atomic.write_json(folder / _CONFIG, special)
    atomic.write_text(folder / _FILE, self.inner.to_str())

  def fingerprint(self) -> str:
    """Returns a hex digest that changes with the tokenizer."""
    parts = [json.loads(self.inner.to_str()), self.pad, self.bos, self.eos]
    canonical = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()

  def _special_id(self, token: str) -> int:
    token_id = self.inner.token_to_id(token)
    if token_id is None:
      raise ValueError(f'the tokenizer has no token {token}')
    return token_id


def read(path: pathlib.Path) -> Tokenizer:
  """Reads the tokenizer of a folder, such as a Hugging Face checkpoint's.

  If the folder names an end token but no padding or beginning, the end token
  takes their place: padding is masked anyway. If it names no special token,
  they are `PAD`, `BOS` and `EOS`.

  Args:
    path: The folder, or the tokenizer.json in it.

  Raises:
    UserError: There is no tokenizer, or it cannot be used.
  """
  path = path / _FILE if path.is_dir() else path
  try:
    inner = tokenizers.Tokenizer.from_str(path.read_text('utf-8'))
  except (OSError, UnicodeDecodeError) as error:
    raise schema.UserError(
      f'{path} cannot be read: {schema.one_line(error)}'
    ) from None
  except Exception as error:  # The library raises bare Exception.
    raise schema.UserError(
      f'{path} is not a tokenizer in JSON: {schema.one_line(error)}'
    ) from None
  try:
    return Tokenizer(inner, **_special(path.with_name(_CONFIG)))
  except ValueError as error:
    raise schema.UserError(f'{path}: {schema.one_line(error)}') from None


def _special(path: pathlib.Path) -> dict[str, str]:
  """Reads the names of the special tokens from tokenizer_config.json."""
  if not path.exists():
    return {}
  config = json.loads(path.read_text('utf-8'))
  if not isinstance(config, dict):
    raise ValueError(f'{_CONFIG} holds no object')
  found = {}
  for kind in _KINDS:
    token = config.get(f'{kind}_token')
    # A string, or an object with more details.
    token = token.get('content') if isinstance(token, dict) else token
    if token is not None:
      found[kind] = str(token)
  if not found:
    return {}
  if 'eos' not in found:
    raise ValueError(f'{_CONFIG} names no eos_token')
  return {kind: found.get(kind, found['eos']) for kind in _KINDS}


def train_word_level(texts: Iterable[str]) -> Tokenizer:
  """Makes a tokenizer with one token per word or run of punctuation.

  Other words become the unknown token. Decoding puts a space before every word
  and none before closing punctuation.

  Args:
    texts: Texts with the words; their order does not matter.

  Raises:
    ValueError: There is no word in `texts`.
  """
  inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token=UNKNOWN))
  inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  # No token has a space, so none is taken for the continuation of a word.
  inner.decoder = tokenizers.decoders.Sequence(
    [
      tokenizers.decoders.WordPiece(prefix=' ', cleanup=False),
      tokenizers.decoders.Fuse(),
      *(tokenizers.decoders.Replace(f' {mark}', mark) for mark in _CLOSING),
    ]
  )
  specials = [PAD, BOS, EOS, UNKNOWN]
  trainer = tokenizers.trainers.WordLevelTrainer(
    vocab_size=2**31 - 1, special_tokens=specials, show_progress=False
  )
  inner.train_from_iterator(texts, trainer)
  if inner.get_vocab_size() == len(specials):
    raise ValueError('no words to train a tokenizer on: the texts are empty')
  return Tokenizer(inner)


def train_byte_level_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
  """Makes a byte-level byte-pair tokenizer; every text round-trips exactly.

  Args:
    texts: Texts to learn the merges from.
    vocab_size: Number of tokens, at least 259 (bytes and special tokens); small
      texts may yield fewer.

  Raises:
    ValueError: `vocab_size` is too small.
  """
  alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
  specials = [PAD, BOS, EOS]
  least = len(alphabet) + len(specials)
  if vocab_size < least:
    raise ValueError(f'vocab_size must be at least {least}, not {vocab_size}')
  inner = tokenizers.Tokenizer(tokenizers.models.BPE())
  inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  inner.decoder = tokenizers.decoders.ByteLevel()
  # Takes the leading space of a token out of its offsets.
  inner.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=specials,
    initial_alphabet=sorted(alphabet),
    show_progress=False,
  )
  inner.train_from_iterator(texts, trainer)
  return Tokenizer(inner)
