"""Splits text into sentences, and retells paragraphs by reordering them.

By rules for English, which know only frequent abbreviations. A wrong cut costs
little, since sentences are only reordered.
"""

from __future__ import annotations

import random
import re

from smft_jax.data import task

# A full stop, question or exclamation mark, closing marks, and space before a
# possible beginning of a sentence.
_END = re.compile(r'(?<=[.!?])["\'”’)\]]*(\s+)(?=["\'“‘(\[]*[A-Z0-9])')
_ABBREVIATION = re.compile(
  r'(?:^|[\s("“‘\[])'
  r'(?:[A-Z]|(?:[A-Za-z]\.)+[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|Mt|Ft|Jr|Sr|Gen|Col'
  r'|Lt|Capt|Sgt|Sen|Rep|Gov|Rev|No|Vol|vs|etc|ca|c|cf|approx|al|Jan|Feb|Mar'
  r'|Apr|Aug|Sept|Sep|Oct|Nov|Dec)\.$'
)


# Those of Latin, Chinese and Japanese, and Arabic script.
QUESTION_MARKS = ('?', '？', '؟')


def split_sentences(text: str) -> list[str]:
  """Splits text into sentences, stripped, none empty.

  Line breaks count as spaces.

  Example:
    >>> split_sentences('Dr. A. Keller left at 3.5 km. "Why?" He slept.')
    ['Dr. A. Keller left at 3.5 km.', '"Why?"', 'He slept.']
  """
  return [text[start:end] for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[task.Span]:
  """Returns the half-open spans of a text's sentences, in order.

  Spans are stripped and not empty; there is only space between them.

  Example:
    >>> sentence_spans(' It rains. We stay. ')
    [(1, 10), (11, 19)]
  """
  spans = []
  start = 0
  for match in _END.finditer(text):
    end = match.start(1)
    # The last few characters suffice; all of them would be slow.
    if not _ABBREVIATION.search(text[max(start, end - 16) : end]):
      spans.append(stripped(text, start, end))
      start = match.end()
  spans.append(stripped(text, start, len(text)))
  return [span for span in spans if span[0] < span[1]]


def stripped(text: str, start: int, end: int) -> task.Span:
  """Strips space from a span's ends; an empty span results if all is space."""
  piece = text[start:end]
  first = start + len(piece) - len(piece.lstrip())
  return first, max(first, start + len(piece.rstrip()))


def retellings(text: str, *, title: str, count: int, seed: str) -> list[str]:
  """Retells a paragraph by reordering its sentences.

  The first text is the paragraph itself, the second the paragraph after its
  title. Then, in turn: its sentences rotated, shuffled, a run of at least half
  of them, and a run after the title.

  Args:
    text: The paragraph.
    title: Its title; '' if unknown.
    count: Most texts to make; few sentences yield fewer, but at least one.
    seed: Equal seeds give equal retellings.

  Raises:
    ValueError: `count` is below 1.

  Example:
    >>> for telling in retellings('It rains. We stay. Ada reads.',
    ...                           title='A day', count=3, seed='0'):
    ...   print(telling)
    It rains. We stay. Ada reads.
    A day: It rains. We stay. Ada reads.
    Ada reads. It rains. We stay.
  """
  if count < 1:
    raise ValueError(f'count must be at least 1, not {count}')
  sentences = split_sentences(text)
  rng = random.Random(seed)
  found = {text: None}  # ordered, without repeats
  if title:
    found[f'{title}: {text}'] = None
  # Few sentences have few orders, so the number of attempts is limited.
  for attempt in range(8 * count):
    if len(found) >= count or len(sentences) < 2:
      break
    found[_retelling(sentences, title, attempt % 4, rng)] = None
  return list(found)[:count]


def _retelling(
  sentences: list[str], title: str, kind: int, rng: random.Random
) -> str:
  total = len(sentences)
  if kind == 0:
    start = rng.randrange(1, total)
    return ' '.join(sentences[start:] + sentences[:start])
  if kind == 1:
    return ' '.join(rng.sample(sentences, total))
  length = rng.randint((total + 1) // 2, total - 1)
  start = rng.randint(0, total - length)
  window = ' '.join(sentences[start : start + length])
  return f'{title}: {window}' if kind == 3 and title else window
