"""Encodes texts as rows of token ids, in numpy and without state.

A row is a beginning-of-sequence token, if the tokenizer adds one, then part or
all of one text.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from smft_jax import schema
from smft_jax.data import chat as chat_lib
from smft_jax.data import task
from smft_jax.data import tokenizers


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
  """Rows of different lengths, end to end; `len` is the number of rows.

  Attributes:
    tokens: int32 [total]; row r is `tokens[starts[r]:starts[r + 1]]`.
    loss_weights: float32 [total], as in `batches.Batch`.
    starts: int64 [rows + 1].
    sources: int64 [rows]; index of the text that a row belongs to, or of the
      first one if it is packed.
    segments: int32 [total], as in `batches.Batch`.
  """

  tokens: np.ndarray
  loss_weights: np.ndarray
  starts: np.ndarray
  sources: np.ndarray
  segments: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.sources)

  @property
  def lengths(self) -> np.ndarray:
    """int64 [rows]."""
    return np.diff(self.starts)

  @property
  def longest(self) -> int:
    """Length of the longest row; 0 without rows."""
    return int(self.lengths.max(initial=0))

  @property
  def counted(self) -> np.ndarray:
    """int64 [rows], tokens of each row that bear loss."""
    sums = np.cumsum([0, *(self.loss_weights != 0)])
    return np.diff(sums[self.starts])

  def check_length(self, length: int) -> None:
    """Raises ValueError if a row is longer than `length`."""
    if self.longest > length:
      raise ValueError(
        f'a row of {self.longest} tokens does not fit length {length}'
      )

  def take(self, rows: Sequence[int] | np.ndarray) -> Encoded:
    """Returns the rows with these indices in this order; they may repeat."""
    rows = np.asarray(rows, np.int64)
    parts = [slice(self.starts[r], self.starts[r + 1]) for r in rows]
    taken = _encoded(
      [self.tokens[part] for part in parts],
      [self.loss_weights[part] for part in parts],
      self.sources[rows],
    )
    if self.segments is None:
      return taken
    segments = [np.zeros(0, np.int32), *(self.segments[part] for part in parts)]
    return dataclasses.replace(taken, segments=np.concatenate(segments))

  def shared_beginning(self) -> tuple[np.ndarray, np.ndarray]:
    """Finds the beginning that saves most if it is computed once for all rows.

    Questions asked few-shot, or in a chat, begin alike.

    Returns:
      The tokens of the beginning, int32 [P], and which rows have it, bool
      [rows]. Of each of these at least one token is left that bears no loss,
      so that P is 0 for texts.
    """
    if not len(self):
      return self.tokens[:0], np.zeros(0, bool)
    mask = np.arange(self.longest) < self.lengths[:, None]
    tokens, bears_loss = np.full(mask.shape, -1), np.zeros(mask.shape, bool)
    tokens[mask], bears_loss[mask] = self.tokens, self.loss_weights != 0
    # If most rows begin alike, so does the middle one in lexical order.
    middle = tokens[np.lexsort(tokens.T[::-1])[len(self) // 2]]
    same = np.sum(np.cumprod(tokens == middle, axis=1), axis=1)
    before = np.where(
      bears_loss.any(axis=1), bears_loss.argmax(axis=1), self.lengths
    )
    shared = np.maximum(0, np.minimum(same, before - 1))
    saved = [length * np.sum(shared >= length) for length in shared]
    best = shared[np.argmax(saved)]
    return middle[:best].astype(np.int32), shared >= best

  def without_first(self, num_tokens: int) -> Encoded:
    """Returns the rows without their first tokens, which none may lack."""
    places = np.arange(len(self.tokens))
    kept = places - np.repeat(self.starts[:-1], self.lengths) >= num_tokens
    return dataclasses.replace(
      self,
      tokens=self.tokens[kept],
      loss_weights=self.loss_weights[kept],
      starts=self.starts - num_tokens * np.arange(len(self.starts)),
      segments=None if self.segments is None else self.segments[kept],
    )


def tokenize(
  texts: Sequence[task.Text],
  tokenizer: tokenizers.Tokenizer,
  *,
  max_length: int,
  context_weight: float = 1.0,
  answer_weight: float = 1.0,
) -> Encoded:
  """Encodes texts as rows: beginning, tokens of the text, end.

  A text too long for a row becomes several rows of about equal length. Each has
  a beginning and only the last an end, so every token of the text is predicted
  exactly once. If the tokenizer adds no beginning, the first token of a row has
  nothing before it and is not predicted: its weight is 0.

  Args:
    texts: Texts to encode.
    tokenizer: Tokenizer whose ids to use.
    max_length: Most tokens in a row, at least 2.
    context_weight: Loss weight of the tokens outside the answer.
    answer_weight: Loss weight of the answer's tokens and of the one after them,
      which ends the answer. A text without an answer has weight 1 throughout.

  Returns:
    At least one row per text, in the order of the texts.

  Raises:
    ValueError: `max_length` is below 2, or a weight is negative.

  Example:
    >>> tokenizer = tokenizers.train_word_level(['Ada lives in Porto.'])
    >>> text = task.Text(text='Ada lives in Porto.', answer=(13, 18))
    >>> rows = tokenize([text], tokenizer, max_length=16, context_weight=0.5)
    >>> rows.longest, rows.loss_weights.tolist()
    (7, [0.0, 0.5, 0.5, 0.5, 1.0, 1.0, 0.5])
  """
  if max_length < 2:
    raise ValueError(f'max_length must be at least 2, not {max_length}')
  weights = {'context_weight': context_weight, 'answer_weight': answer_weight}
  for name, weight in weights.items():
    if not weight >= 0:
      raise ValueError(f'{name} must be at least 0, not {weight}')
  bos, eos = np.array(tokenizer.beginning, np.int32), tokenizer.eos_id
  row_tokens, row_weights, sources = [], [], []
  encodings = tokenizer.encode_batch_with_offsets([t.text for t in texts])
  for source, (text, (ids, offsets)) in enumerate(
    zip(texts, encodings, strict=True)
  ):
    tokens = np.array([*ids, eos], np.int32)
    weighted = np.ones(len(tokens), np.float32)
    if text.answer is not None:
      weighted = np.where(
        _in_answer(text.answer, offsets), answer_weight, context_weight
      )
    pieces = -(-len(tokens) // (max_length - len(bos)))
    cuts = [piece * len(tokens) // pieces for piece in range(pieces + 1)]
    for part in map(slice, cuts, cuts[1:]):
      row_tokens.append(np.append(bos, tokens[part]))
      row_weights.append(_weights(bos, weighted[part]))
      sources.append(source)
  return _encoded(row_tokens, row_weights, sources)


def tokenize_answers(
  texts: Sequence[task.Text],
  tokenizer: tokenizers.Tokenizer,
  *,
  max_length: int,
  end: bool,
  whole: bool = False,
  chat: chat_lib.Chat | None = None,
) -> Encoded:
  """Encodes texts, one row each, with a loss on their answers only.

  A text too long for a row loses tokens at its start, never part of its answer
  and never all that is before it: the row is a beginning, if the tokenizer adds
  one, and the last tokens.

  Args:
    texts: Texts to encode, each with an answer.
    tokenizer: Tokenizer whose ids to use.
    max_length: Most tokens in a row, at least 2.
    end: Whether to append an end; it counts if it follows the answer.
    whole: Whether to refuse a text that is too long for a row.
    chat: Form of the conversation in which the answer replies to the text
      before it; None if it continues that text. A chat is never cut.

  Returns:
    Exactly one row per text. Loss weights are 1 at the tokens of the answer
    and at the one after them, and 0 elsewhere.

  Raises:
    UserError: `max_length` leaves no room for an answer or a chat.

  Example:
    >>> tokenizer = tokenizers.train_word_level(['Ada lives in Porto'])
    >>> text = task.Text(text='Ada lives in Porto', answer=(13, 18))
    >>> rows = tokenize_answers([text], tokenizer, max_length=4, end=True)
    >>> rows.longest, rows.loss_weights.tolist()
    (4, [0.0, 0.0, 1.0, 1.0])
  """
  bos = np.array(tokenizer.beginning, np.int32)
  eos_id = tokenizer.eos_id
  if chat is not None:  # whose template writes all special tokens
    bos, eos_id, whole = bos[:0], chat.end_id, True
  row_tokens, row_weights = [], []
  for text, (ids, offsets), answer in _with_answers(texts, tokenizer, chat):
    length = len(ids) + end
    tokens = np.array([*ids, eos_id], np.int32)[:length]
    counted = _in_answer(answer, offsets)[:length]
    first = max(0, length - (max_length - len(bos)))
    before = int(np.argmax(counted))
    if first and (whole or first + 1 - len(bos) > before):
      least = length + (len(bos) if whole else 1 - before)
      raise schema.UserError(
        f'max_length = {max_length} must be at least {least} to hold the'
        f' {"prompt and " if whole else ""}answer'
        f' {text.text[slice(*text.answer)][:40]!r}'
      )
    row_tokens.append(np.append(bos, tokens[first:]))
    row_weights.append(_weights(bos, counted[first:]))
  return _encoded(row_tokens, row_weights, np.arange(len(row_tokens)))


def tokenize_questions(
  questions: Sequence[task.Question],
  tokenizer: tokenizers.Tokenizer,
  *,
  max_length: int,
  whole: bool = False,
  chat: chat_lib.Chat | None = None,
) -> Encoded:
  """Encodes questions with their first answers, as `tokenize_answers` does."""
  return tokenize_answers(
    [question.full_text() for question in questions],
    tokenizer,
    max_length=max_length,
    end=True,
    whole=whole,
    chat=chat,
  )


def tokenize_choices(
  choices: Sequence[task.Choice],
  tokenizer: tokenizers.Tokenizer,
  *,
  max_length: int,
) -> Encoded:
  """Encodes each ending of choices, as `tokenize_answers` does."""
  return tokenize_answers(
    [text for choice in choices for text in choice.full_texts()],
    tokenizer,
    max_length=max_length,
    end=False,
  )


def tokenize_prompts(
  prompts: Sequence[str],
  tokenizer: tokenizers.Tokenizer,
  *,
  chat: chat_lib.Chat | None = None,
  answers: Sequence[str] | None = None,
) -> Encoded:
  """Encodes prompts to continue: a beginning if there is one, no end, no loss.

  Args:
    prompts: The prompts.
    tokenizer: Tokenizer whose ids to use.
    chat: Form of the conversation that asks the prompts; None if they are
      continued as they are.
    answers: Answers to put behind the prompts.

  Returns:
    Exactly one row per prompt.
  """
  answers = [''] * len(prompts) if answers is None else answers
  pairs = list(zip(prompts, answers, strict=True))
  bos = tokenizer.beginning
  if chat is None:
    texts = [
      f'{prompt} {answer}' if answer else prompt for prompt, answer in pairs
    ]
    encodings = tokenizer.encode_batch_with_offsets(texts)
  else:
    bos, encodings = (), [chat.encode(*pair) for pair in pairs]
  tokens = [np.array([*bos, *ids], np.int32) for ids, _ in encodings]
  weights = [np.zeros(len(row), np.float32) for row in tokens]
  return _encoded(tokens, weights, np.arange(len(tokens)))


def _with_answers(texts, tokenizer, chat):
  """Yields each text, its token ids and their spans, and its answer's span."""
  if chat is None:
    encodings = tokenizer.encode_batch_with_offsets([t.text for t in texts])
    for text, encoding in zip(texts, encodings, strict=True):
      yield text, encoding, text.answer
    return
  for text in texts:
    start, end = text.answer
    answer = text.text[start:end]
    yield text, chat.encode(text.text[:start], answer), (0, len(answer))


def _weights(bos: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Returns the weights of a row: its first token is never predicted."""
  row = np.append(np.zeros(len(bos), np.float32), weights)
  row[:1] = 0.0
  return row


def _in_answer(
  answer: task.Span, offsets: Sequence[tuple[int, int]]
) -> np.ndarray:
  """Marks the answer's tokens and the next one; the last entry is the end.

  A token that overlaps the answer belongs to it.
  """
  start, end = answer
  inside = np.array([s < end and e > start for s, e in offsets] + [False])
  return inside | np.append(False, inside[:-1])


def _encoded(
  tokens: Sequence[np.ndarray],
  weights: Sequence[np.ndarray],
  sources: Sequence[int] | np.ndarray,
) -> Encoded:
  lengths = [len(row) for row in tokens]
  return Encoded(
    tokens=np.concatenate([np.zeros(0, np.int32), *tokens]).astype(np.int32),
    loss_weights=np.concatenate([np.zeros(0), *weights]).astype(np.float32),
    starts=np.cumsum([0, *lengths], dtype=np.int64),
    sources=np.asarray(sources, np.int64),
  )
