"""Cuts documents that are longer than a training sequence into pieces.

A question's answer is usually in one paragraph of a page. Lengths are in
characters, so pieces do not depend on the tokenizer; English has about four
characters a token.
"""

from __future__ import annotations

from collections.abc import Sequence
import re

from smft_jax.data import task
from smft_jax.data.retelling import sentences

_BLANK_LINES = re.compile(r'\n\s*\n')


def chunks(text: str, max_chars: int) -> list[task.Span]:
  r"""Cuts a document into pieces of at most `max_chars` characters.

  Cuts at blank lines, paragraphs that are too long between sentences, sentences
  that are too long at spaces, and longer words anywhere. Joins neighbors that
  fit together.

  Args:
    text: The document.
    max_chars: Most characters of a piece, inner space included.

  Returns:
    Half-open spans into `text`, in order, none empty, none with space at its
    ends. There is only space between them; a text of only space has none.

  Raises:
    ValueError: `max_chars` is below 1.

  Example:
    >>> text = 'It rains. We stay.\n\nAda reads.\n\nBo sings.'
    >>> [text[start:end] for start, end in chunks(text, 21)]
    ['It rains. We stay.', 'Ada reads.\n\nBo sings.']
  """
  if max_chars < 1:
    raise ValueError(f'max_chars must be at least 1, not {max_chars}')
  pieces = []
  for start, end in _paragraphs(text):
    if end - start <= max_chars:
      pieces.append((start, end))
      continue
    # Joined separately, so that a long paragraph begins a piece.
    parts = []
    for first, last in sentences.sentence_spans(text[start:end]):
      parts += _cut(text, start + first, start + last, max_chars)
    pieces += _joined(parts, max_chars)
  return _joined(pieces, max_chars)


def chunk_of(
  spans: Sequence[task.Span], text: str, answers: Sequence[str]
) -> int:
  r"""Finds the first chunk that contains one of a question's answers.

  Ignores case, and treats line breaks as spaces. Whole words are preferred: an
  answer may be part of a word ('us' in 'because') only if no chunk has one as
  whole words.

  Args:
    spans: The chunks, see `chunks`.
    text: The document.
    answers: Accepted answers; empty ones are ignored.

  Returns:
    Its index; 0 if none contains an answer.

  Example:
    >>> text = 'It rains because of June.\n\nThe US was cold.'
    >>> chunk_of(chunks(text, 25), text, ['us'])
    1
  """
  words = [' '.join(answer.split()).casefold() for answer in answers]
  found = '|'.join(re.escape(word) for word in words if word)
  if not found:
    return 0
  folded = [' '.join(text[s:e].split()).casefold() for s, e in spans]
  for pattern in (rf'(?<!\w)(?:{found})(?!\w)', found):
    for index, chunk in enumerate(folded):
      if re.search(pattern, chunk):
        return index
  return 0


def _paragraphs(text: str) -> list[task.Span]:
  """Splits at blank lines, without surrounding space."""
  cuts = [match.span() for match in _BLANK_LINES.finditer(text)]
  starts = [0, *(end for _, end in cuts)]
  ends = [*(start for start, _ in cuts), len(text)]
  spans = [
    sentences.stripped(text, start, end)
    for start, end in zip(starts, ends, strict=True)
  ]
  return [span for span in spans if span[0] < span[1]]


def _cut(text: str, start: int, end: int, max_chars: int) -> list[task.Span]:
  """Cuts a sentence that is too long at spaces, or else anywhere."""
  spans: list[task.Span] = []
  for match in re.compile(r'\S+').finditer(text, start, end):
    word, word_end = match.span()
    if spans and word_end - spans[-1][0] <= max_chars:
      spans[-1] = (spans[-1][0], word_end)
      continue
    spans += [
      (first, min(first + max_chars, word_end))
      for first in range(word, word_end, max_chars)
    ]
  return spans


def _joined(spans: Sequence[task.Span], max_chars: int) -> list[task.Span]:
  """Joins neighbors that fit together."""
  joined: list[task.Span] = []
  for start, end in spans:
    if joined and end - joined[-1][0] <= max_chars:
      joined[-1] = (joined[-1][0], end)
    else:
      joined.append((start, end))
  return joined
