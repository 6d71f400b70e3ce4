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
from smft_jax.data import encoded
from smft_jax.data import task
from smft_jax.data import tokenizers
from smft_jax.data.encoded import Encoded as Encoded


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
  ranked: list[np.ndarray] = []
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
    in_subject = _in_subject(text.subject, offsets)
    pieces = -(-len(tokens) // (max_length - len(bos)))
    cuts = [piece * len(tokens) // pieces for piece in range(pieces + 1)]
    for part in map(slice, cuts, cuts[1:]):
      row_tokens.append(np.append(bos, tokens[part]))
      row_weights.append(_weights(bos, weighted[part]))
      ranked.append(
        np.append(np.repeat(not text.subject, len(bos)), in_subject[part])
      )
      sources.append(source)
  rows = encoded.join(row_tokens, row_weights, sources)
  if any(text.subject for text in texts):
    rows = dataclasses.replace(rows, ranked=np.concatenate(ranked).astype(bool))
  return rows


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
  return encoded.join(row_tokens, row_weights, np.arange(len(row_tokens)))


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
  return encoded.join(tokens, weights, np.arange(len(tokens)))


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


def _in_subject(
  subject: Sequence[task.Span], offsets: Sequence[tuple[int, int]]
) -> np.ndarray:
  """Marks the tokens that overlap spans; the last entry is the end."""
  if not subject:
    return np.ones(len(offsets) + 1, bool)
  starts, ends = np.array([*offsets, (0, 0)], np.int64).T
  spans = np.array(subject, np.int64)
  return np.any((starts < spans[:, 1:]) & (ends > spans[:, :1]), axis=0)


def _in_answer(
  answer: task.Span, offsets: Sequence[tuple[int, int]]
) -> np.ndarray:
  """Marks the answer's tokens and the next one; the last entry is the end.

  A token that overlaps the answer belongs to it.
  """
  start, end = answer
  inside = np.array([s < end and e > start for s, e in offsets] + [False])
  return inside | np.append(False, inside[:-1])
