"""Rewrites a paragraph by rule: clozes, questions, reorderings and quotes.

The rules are few and for English, and reuse the paragraph's own words. For
better rewrites, by a language model, see `data.augment`.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import itertools
import random
import re

from smft_jax.data import task
from smft_jax.data.retelling import asked
from smft_jax.data.retelling import sentences
from smft_jax.data.retelling import statements

_BLANK = '____'
_MONTH = (
  '(?:January|February|March|April|May|June|July|August|September|October'
  '|November|December)'
)
_DATE = (
  rf'\b{_MONTH} \d{{1,2}}(?:, \d{{4}})?\b'
  rf'|\b(?:\d{{1,2}} )?{_MONTH} \d{{4}}\b'
)
_NUMBER = r'(?<![\w.,$£€-])[$£€]?\d+(?:[.,]\d+)*(?:%|(?![\w-]))'
_CAPITALISED = r'[A-Z][\w’\'-]*\w'
_JOINED = rf'(?: of| of the| de| van| von)? (?:{_CAPITALISED}|\d+\b)'
_NAME = rf'\b(?:\d+(?:st|nd|rd|th) )?{_CAPITALISED}(?:{_JOINED})*'
_FIRST_WORD = re.compile(r'["\'“‘(\[]*([\w’\'-]*)')
_DIGIT = re.compile(r'\d')
_GAP = re.compile(f'{_DATE}|{_NAME}|{_NUMBER}')

# Capitalised only at the beginning of a sentence.
_OPENINGS = (
  'A About According After All Along Although Among An And Another Any As At'
  ' Because Before Between Both But By Despite Due During Each Early Every Few'
  ' Following For From Given He Her His How However I If In Instead Into Is It'
  ' Its Later Like Many Most Much My Near No Not Of On Once One Only Other Our'
  ' Over Several She Since So Some Such That The Their Then There These They'
  ' This Those Though Through Thus To Today Two Under Until Upon Was We When'
  ' Where Whether Which While Who With Within Without Yet You'
)
_NOT_A_NAME = frozenset(_OPENINGS.split())

# 'Ada Keller was a ...': a name and its definition.
_DEFINED = re.compile(
  rf'(?P<name>(?:The )?{_NAME}) (?P<verb>is|was|are|were)'
  r' (?P<answer>(?:a|an|the|one of) .+?)[.!]?$'
)
# 'The tower was built in 1889 ...': an event and its year.
_YEAR = re.compile(
  rf'(?P<name>(?:The )?{_NAME}) (?P<verb>was|were) (?P<done>(?!not )[a-z]+) in'
  r' (?P<answer>1\d{3}|20\d\d)\b(?!-|–)'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rewrite:
  """A rewrite of a paragraph, or of a part of it.

  Attributes:
    text: The rewrite.
    kind: Its rule: 'text', 'asked', 'cloze', 'question', 'order' or 'quote'.
    answer: Span of the answer; None if it has none.
  """

  text: str
  kind: str
  answer: task.Span | None = None


def rewrites(text: str, *, title: str, count: int, seed: str) -> list[Rewrite]:
  """Rewrites a paragraph in different texts, alternating between the kinds.

  The first is the text itself. Then come, in turn, until each is used up:

  - 'asked': a question that a sentence answers, see `asked`, in the form of
    evaluation, and the answer;
  - 'cloze': a sentence without a name, number or date, which follows it;
  - 'question': a question that a sentence is the answer to, and the sentence;
  - 'order': the sentences in another order, see `sentences.retellings`;
  - 'quote': a sentence in quotation marks, with its source.

  Args:
    text: The paragraph.
    title: As for `sentences.retellings`.
    count: Most rewrites to make; few sentences yield fewer, but at least one.
    seed: As for `sentences.retellings`.

  Raises:
    ValueError: `count` is below 1.

  Example:
    >>> text = 'Ada Keller was a painter. She left Lisbon in 1907.'
    >>> for made in rewrites(text, title='Ada Keller', count=5, seed='0'):
    ...   print(f'{made.kind}: {made.text}')
    text: Ada Keller was a painter. She left Lisbon in 1907.
    cloze: Ada Keller: She left Lisbon in ____. The missing words: 1907.
    question: What does the text about Ada Keller say? Ada Keller was a painter.
    order: Ada Keller: Ada Keller was a painter. She left Lisbon in 1907.
    quote: Ada Keller, as the text says: “She left Lisbon in 1907.”
  """
  if count < 1:
    raise ValueError(f'count must be at least 1, not {count}')
  parts = sentences.split_sentences(text)
  rng = random.Random(seed)
  orders = sentences.retellings(text, title=title, count=count, seed=seed)
  found = {text: Rewrite(text=text, kind='text')}  # ordered, without repeats
  rules = (_asked, _clozes, _questions, _quotes)
  kinds = [list(rule(parts, title)) for rule in rules]
  for made in kinds:
    rng.shuffle(made)
  kinds.insert(3, [Rewrite(text=o, kind='order') for o in orders[1:]])
  for round_of_kinds in itertools.zip_longest(*kinds):
    for rewrite in filter(None, round_of_kinds):
      found.setdefault(rewrite.text, rewrite)
  return list(found.values())[:count]


def _asked(parts: list[str], title: str) -> Iterator[Rewrite]:
  named = asked.named(parts, title)
  before, after = statements.QUESTION_FORM.split('{answer}')
  for sentence in parts:
    for forms, answer in asked.questions(sentence, named):
      for form in forms:
        yield _with_answer('asked', before.format(question=form), answer, after)


def _clozes(parts: list[str], title: str) -> Iterator[Rewrite]:
  for sentence in parts:
    for start, end in gaps(sentence):
      answer = sentence[start:end]
      # The rest of the sentence would give the answer away.
      if sentence.count(answer) > 1:
        continue
      about = f'{title}: ' if title else ''
      if answer.lower() in title.lower():
        about = ''
      cloze = f'{about}{sentence[:start]}{_BLANK}{sentence[end:]}'
      yield _with_answer('cloze', f'{cloze} The missing words: ', answer, '.')


def gaps(sentence: str) -> Iterator[task.Span]:
  """Finds the names, numbers and dates of a sentence.

  Example:
    >>> sentence = 'Ada Keller left Lisbon in 1907.'
    >>> [sentence[start:end] for start, end in gaps(sentence)]
    ['Ada Keller', 'Lisbon', '1907']
  """
  opener = _FIRST_WORD.match(sentence)
  assert opener is not None  # the word may be empty
  first, opening = opener[1], opener.start(1)
  is_name = re.split("['’]", first)[0] not in _NOT_A_NAME
  begin = opening if is_name else opener.end()
  for match in _GAP.finditer(sentence, begin):
    start, end = match.span()
    # Every first word is capitalised; 'B-52' is a name nevertheless.
    if start == opening and match.group() == first and not _DIGIT.search(first):
      continue
    if match.group().endswith(("'s", '’s')):
      end -= 2
    yield start, end


def _questions(parts: list[str], title: str) -> Iterator[Rewrite]:
  for sentence in parts:
    for pattern, before in (
      (_DEFINED, 'What {verb} {name}? '),
      (_YEAR, 'In which year {verb} {name} {done}? '),
    ):
      match = pattern.match(sentence)
      if match and _can_be_asked(match['name']):
        words = match.groupdict() | {'name': asked.within(match['name'])}
        yield _with_answer(
          'question',
          before.format(**words) + sentence[: match.start('answer')],
          match['answer'],
          sentence[match.end('answer') :],
        )
    if title:
      yield _with_answer(
        'question', f'What does the text about {title} say? ', sentence, ''
      )
      which = f'Which text says: “{sentence}”? The text about '
      yield _with_answer('question', which, title, '.')


def _quotes(parts: list[str], title: str) -> Iterator[Rewrite]:
  before = f'{title}, as the text says: “' if title else 'As the text says: “'
  for sentence in parts:
    yield _with_answer('quote', before, sentence, '”')


def _can_be_asked(name: str) -> bool:
  return name.removeprefix('The ').split()[0] not in _NOT_A_NAME


def _with_answer(kind: str, before: str, answer: str, after: str) -> Rewrite:
  start = len(before)
  return Rewrite(
    text=f'{before}{answer}{after}',
    kind=kind,
    answer=(start, start + len(answer)),
  )
