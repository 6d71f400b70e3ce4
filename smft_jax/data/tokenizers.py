"""Tokenizers, trained here or read from a checkpoint's folder.

Wraps the `tokenizers` library and guarantees what this package relies on: known
special tokens, text that can neither spell them nor be truncated, and a
fingerprint. Files are those of Hugging Face folders: the tokenizer is in
tokenizer.json, its special tokens are in tokenizer_config.json and other files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import tokenizers

from smft_jax import schema
from smft_jax.data import special_tokens
from smft_jax.store import atomic
from smft_jax.store import paths

PAD = '<|pad|>'
BOS = '<|bos|>'
EOS = '<|eos|>'
UNKNOWN = '<|unknown|>'

_FILE = 'tokenizer.json'
_CONFIG = 'tokenizer_config.json'
_GENERATION = 'generation_config.json'

# A word-level decoder joins these to the preceding word.
_CLOSING = ('.', ',', ':', ';', '?', '!')


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """Encodes text as token ids, and back; made by `read` or `train_*`.

  Attributes:
    inner: The wrapped tokenizer.
    pad: Token of padding.
    bos: Token of a beginning; None if there is none.
    eos: Token that ends texts.
    adds_bos: Whether rows begin with `bos`.
    more_ends: Ids of other tokens that end an answer.
    chat_template: Jinja template of a conversation; None if there is none.

  Raises:
    ValueError: `inner` lacks one of the special tokens.

  Example:
    >>> tokenizer = train_word_level(['Ada was born in Lisbon.'])
    >>> tokenizer.decode(tokenizer.encode('Ada was in Lisbon.'))
    'Ada was in Lisbon.'
  """

  inner: tokenizers.Tokenizer
  pad: str = PAD
  bos: str | None = BOS
  eos: str = EOS
  adds_bos: bool = True
  more_ends: tuple[int, ...] = ()
  chat_template: str | None = None

  def __post_init__(self) -> None:
    for token in (self.pad, self.bos, self.eos):
      if token is not None:
        self.special_id(token)
    # Special tokens spelled in a text are plain text; nothing is truncated.
    self.inner.encode_special_tokens = True
    self.inner.no_truncation()
    self.inner.no_padding()

  @functools.cached_property
  def vocab_size(self) -> int:
    """Number of ids up to the largest one, special tokens included.

    A vocabulary that tokens were taken out of has fewer tokens than that.
    """
    return 1 + max(self.inner.get_vocab(with_added_tokens=True).values())

  @property
  def pad_id(self) -> int:
    """Id of the padding token."""
    return self.special_id(self.pad)

  @property
  def bos_id(self) -> int | None:
    """Id of the token that begins every row; None if none does."""
    if self.bos is None or not self.adds_bos:
      return None
    return self.special_id(self.bos)

  @property
  def beginning(self) -> tuple[int, ...]:
    """The ids that begin every row: `bos_id`, or nothing."""
    return () if self.bos_id is None else (self.bos_id,)

  @property
  def eos_id(self) -> int:
    """Id of the token that ends every text."""
    return self.special_id(self.eos)

  @property
  def end_ids(self) -> tuple[int, ...]:
    """The ids that end an answer, `eos_id` first."""
    return (self.eos_id, *self.more_ends)

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

  @functools.cached_property
  def line_tokens(self) -> tuple[np.ndarray, np.ndarray]:
    """Ids, int32, with a line break in them, and of nothing but space."""
    texts = self.inner.decode_batch(
      [[token_id] for token_id in range(self.vocab_size)],
      skip_special_tokens=False,
    )
    breaks = [i for i, text in enumerate(texts) if '\n' in text]
    blanks = [i for i, text in enumerate(texts) if not text.strip()]
    return np.array(breaks, np.int32), np.array(blanks, np.int32)

  def write(self, folder: pathlib.Path) -> None:
    """Writes a folder's files, for `read` and for `transformers`."""
    config = {
      # `transformers` needs the class that reads the other file.
      'tokenizer_class': 'PreTrainedTokenizerFast',
      'pad_token': self.pad,
      'bos_token': self.bos,
      'eos_token': self.eos,
      'add_bos_token': self.adds_bos,
    }
    if self.chat_template is not None:
      config['chat_template'] = self.chat_template
    atomic.write_json(folder / _CONFIG, config)
    # `transformers` asks neither of the other two where an answer ends.
    ends = {'eos_token_id': list(self.end_ids)}
    atomic.write_json(folder / _GENERATION, ends)
    atomic.write_text(folder / _FILE, self.inner.to_str())

  def fingerprint(self) -> str:
    """Returns a hex digest that changes with the tokenizer."""
    bos = self.bos if self.adds_bos else None
    parts = [json.loads(self.inner.to_str()), self.pad, bos, self.eos]
    if self.more_ends or self.chat_template:
      parts += [list(self.more_ends), self.chat_template]
    canonical = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()

  def special_id(self, token: str) -> int:
    """Returns the id of a special token.

    Raises:
      ValueError: There is no such token.
    """
    token_id = self.inner.token_to_id(token)
    if token_id is None:
      raise ValueError(f'the tokenizer has no token {token}')
    return token_id


def read(path: pathlib.Path) -> Tokenizer:
  """Reads the tokenizer of a folder, such as a Hugging Face checkpoint's.

  Rows begin with a token if those of `transformers` do: see
  `special_tokens.find`. If no padding is named, the end token takes its place:
  padding is masked anyway. If the folder names no special token, they are
  `PAD`, `BOS` and `EOS`.

  Args:
    path: The folder, or the tokenizer.json in it.

  Raises:
    UserError: There is no tokenizer, or it cannot be used.
  """
  path = path / _FILE if path.is_dir() else path
  try:
    paths.check_fetched(path)
    contents = path.read_text('utf-8')
    configs = special_tokens.read_configs(path.parent)
  except (OSError, UnicodeDecodeError) as error:
    raise schema.UserError(
      f'{path} cannot be read: {schema.one_line(error)}'
    ) from None
  try:
    return from_contents(contents, *configs)
  except special_tokens.Fault as error:
    raise schema.UserError(f'{path.with_name(_CONFIG)}: {error}') from None
  except ValueError as error:
    raise schema.UserError(f'{path}: {schema.one_line(error)}') from None


def from_contents(
  tokenizer_json: str, *configs: Mapping[str, Any]
) -> Tokenizer:
  """Makes a tokenizer from the contents of a folder's files.

  Args:
    tokenizer_json: The content of tokenizer.json.
    *configs: The contents of tokenizer_config.json, special_tokens_map.json,
      generation_config.json and config.json, or some of these. The first that
      names a special token decides.

  Raises:
    UserError: There is no tokenizer in it, or it cannot be used.

  Example:
    >>> made = train_word_level(['Ada was born in Lisbon.'])
    >>> names = {'bos_token': '<|bos|>', 'eos_token': '<|eos|>'}
    >>> again = from_contents(made.inner.to_str(), names)
    >>> again.bos_id, again.end_ids, again.pad
    (1, (2,), '<|eos|>')
  """
  try:
    inner = tokenizers.Tokenizer.from_str(tokenizer_json)
  except Exception as error:  # The library raises bare Exception.
    raise schema.UserError(
      f'not a tokenizer in JSON: {schema.one_line(error)}'
    ) from None
  processor = json.loads(tokenizer_json).get('post_processor')
  found = special_tokens.find(inner, processor, configs)
  try:
    return Tokenizer(inner, **found)
  except ValueError as error:
    if found:  # a name that the configs gave
      raise special_tokens.Fault(schema.one_line(error)) from None
    raise schema.UserError(schema.one_line(error)) from None


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
  inner.post_processor = _puts_bos(inner)
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
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=specials,
    initial_alphabet=sorted(alphabet),
    show_progress=False,
  )
  inner.train_from_iterator(texts, trainer)
  # Takes the leading space of a token out of its offsets.
  trim = tokenizers.processors.ByteLevel(trim_offsets=True)
  inner.post_processor = tokenizers.processors.Sequence(
    [trim, _puts_bos(inner)]
  )
  return Tokenizer(inner)


def _puts_bos(
  inner: tokenizers.Tokenizer,
) -> tokenizers.processors.PostProcessor:
  """Returns what makes rows of `transformers` begin as ours do."""
  return tokenizers.processors.TemplateProcessing(
    single=f'{BOS} $A', special_tokens=[(BOS, inner.token_to_id(BOS))]
  )
