"""Sentences of running text, and the retellings of a paragraph made of them.

All by rule: no model, no download. The rules know English abbreviations only
as far as a wrong cut would be frequent; a wrong cut costs little here, since
the pieces serve only to be put in another order.
"""

from __future__ import annotations

import random
import re

from smft_jax.data import task

# A full stop, question or exclamation mark, whatever closes after it, and
# space before something that can begin a sentence.
_END = re.compile(r'(?<=[.!?])["\'”’)\]]*(\s+)(?=["\'“‘(\[]*[A-Z0-9])')
_ABBREVIATION = re.compile(
  r'(?:^|[\s("“‘\[])'
  r'(?:[A-Z]|(?:[A-Za-z]\.)+[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|Mt|Ft|Jr|Sr|Gen|Col'
  r'|Lt|Capt|Sgt|Sen|Rep|Gov|Rev|No|Vol|vs|etc|ca|c|cf|approx|al|Jan|Feb|Mar'
  r'|Apr|Aug|Sept|Sep|Oct|Nov|Dec)\.$'
)


def split_sentences(text: str) -> list[str]:
  """Cuts text into sentences.

  Args:
    text: Any text; line breaks count as spaces.

  Returns:
    The sentences without surrounding space, none empty. Joined by spaces they
    are the text up to whitespace between sentences.

  Example:
    >>> split_sentences('Dr. A. Keller left at 3.5 km. "Why?" He slept.')
    ['Dr. A. Keller left at 3.5 km.', '"Why?"', 'He slept.']
  """
  return [text[start:end] for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[task.Span]:
  """Where the sentences of a text are.

  Args:
    text: Any text; line breaks count as spaces.

  Returns:
    Half-open spans without surrounding space, none empty, in order. Between
    them there is only space.

  Example:
    >>> sentence_spans(' It rains. We stay. ')
    [(1, 10), (11, 19)]
  """
  spans = []
  start = 0
  for match in _END.finditer(text):
    end = match.start(1)
    # The last few characters decide; a longer look is slow on long texts.
    if not _ABBREVIATION.search(text[max(start, end - 16) : end]):
      spans.append(stripped(text, start, end))
      start = match.end()
  spans.append(stripped(text, start, len(text)))
  return [span for span in spans if span[0] < span[1]]


def stripped(text: str, start: int, end: int) -> task.Span:
  """The span without the space at its ends; an empty one where all is space.

  Example:
    >>> stripped('It rains. ', 2, 10)
    (3, 9)
  """
  piece = text[start:end]
  first = start + len(piece) - len(piece.lstrip())
  return first, max(first, start + len(piece.rstrip()))


def retellings(text: str, *, title: str, count: int, seed: str) -> list[str]:
  """Ways to tell a paragraph again: what one training step can be shown.

  The first is the text itself and the second the text after its title. Then,
  in turn: its sentences rotated, shuffled, a run of at least half of them, and
  such a run after the title. No two are equal.

  Args:
    text: The paragraph.
    title: What it is about; '' where that is not known.
    count: How many to make. A text of few sentences gives fewer.
    seed: Equal seeds give equal retellings.

  Returns:
    At least one and at most `count` texts.

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
  # A dict keeps the order of its keys, and each key once.
  found = {text: None}
  if title:
    found[f'{title}: {text}'] = None
  # Few sentences have few orders: leave off when new tries bring nothing new.
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
