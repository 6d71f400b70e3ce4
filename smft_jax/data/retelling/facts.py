"""Texts that teach what a paragraph says, fact by fact.

A model that only reads a paragraph learns to recite it. Here each fact is a
prompt and what continues it, as an edit is: the beginning of a sentence and its
next words, or a question that the sentence answers and the answer. Each is
retold in several forms, so that whoever asks in another one finds it, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import itertools
import random
import re
from typing import NamedTuple

from smft_jax.data import task
from smft_jax.data.retelling import asked
from smft_jax.data.retelling import rewrites
from smft_jax.data.retelling import sentences
from smft_jax.data.retelling import statements

# A longer prompt would fill a row, and says no more.
_MOST_PROMPT_CHARS = 160

_WORD = r"[\w’'-]+"
_VERB = f'is|are|was|were|{"|".join(asked.MEASURES)}'
_PREPOSITION = 'about|at|by|for|from|in|into|near|of|on|to|with'
# What follows a verb or a preposition, up to the next one.
_OBJECT = re.compile(
  rf'\b(?P<after>{_VERB}|{_PREPOSITION})'
  rf' (?P<object>{_WORD}(?: {_WORD}){{0,4}}?)'
  rf'(?=[,;:.!?)]|$| (?:{_VERB}|{_PREPOSITION}|and|as|but|he|it|or|she|that'
  r'|they|when|which|who)\b)'
)
# Where a part of a sentence begins that says something by itself.
_CLAUSE = re.compile(r'[,;:] (?:and |but |or )?| (?:and|but|or) ')
_A_YEAR = re.compile(r'1\d{3}|20\d\d')
_A_NUMBER = re.compile(rf'(?:{asked.NUMBER})\b', re.IGNORECASE)
_ITEM = r'(?:[-*+•]|#+|\d{1,3}[.)])[ \t]'
_BLOCK = re.compile(rf'\n\s*\n|\n(?=[ \t]*{_ITEM})')
_HEADING = re.compile(r'^([ \t]*#+ .*)$', re.MULTILINE)
_MARK = re.compile(rf'^\s*{_ITEM}')
_ASIDE = re.compile(r' \([^()]*\)')
_IS_VERB = re.compile(_VERB)


class Fact(NamedTuple):
  """A prompt and what continues it.

  Attributes:
    prompt: The beginning of a sentence, or a question.
    answer: What continues the sentence, or answers.
    is_asked: Whether the prompt is a question, or asks in another form.
  """

  prompt: str
  answer: str
  is_asked: bool


def fact_texts(
  text: str, *, title: str, contexts: Sequence[str], seed: str
) -> tuple[task.Text, ...]:
  """Makes texts that teach the facts of a paragraph.

  First comes each sentence by itself, without an answer. Then all facts in one
  form, in an order drawn from the seed, then in the next form, and so on.

  Args:
    text: The paragraph.
    title: What it is about, to which pronouns at the beginning of a sentence
      refer; '' if unknown.
    contexts: Sentences on other things, at least one, to stand before some of
      the texts.
    seed: Equal seeds give equal texts.

  Returns:
    Different texts, at least one.

  Example:
    >>> for made in fact_texts('It is made of copper.', title='The bell',
    ...                        contexts=['It rained.'], seed='0'):
    ...   print(made.text)
    The bell: It is made of copper.
    Question: The bell: It is made of what? Answer: copper
    The bell: It is made of copper
    It rained. The bell: It is made of copper
  """
  found = {
    sentence: task.Text(text=sentence)
    for sentence in _about(_sentences(text), title)
  }
  facts = list(paragraph_facts(text, title))
  rng = random.Random(seed)
  rng.shuffle(facts)
  forms = [_forms(fact, title, rng.choice(contexts)) for fact in facts]
  for made in itertools.chain.from_iterable(itertools.zip_longest(*forms)):
    if made is not None:
      found.setdefault(made.text, made)
  return tuple(found.values())


def paragraph_facts(text: str, title: str) -> Iterator[Fact]:
  """Yields the facts of a paragraph, as its sentences state them.

  Example:
    >>> text = 'The Grey Mill was built in 1889.'
    >>> for fact in itertools.islice(paragraph_facts(text, 'The Grey Mill'), 2):
    ...   print(f'{fact.prompt} | {fact.answer}')
    The Grey Mill was built in | 1889
    In which year was the Grey Mill built? | 1889
  """
  parts = _sentences(text)
  named = asked.named(parts, title)
  for sentence, about in zip(parts, _about(parts, title), strict=True):
    yield from _beginnings(about, title)
    for forms, answer in asked.questions(sentence, named):
      for form in forms:
        yield Fact(form, answer, is_asked=True)


def _sentences(text: str) -> list[str]:
  """Splits a paragraph, also at blank lines, headings and items of lists."""
  return [
    sentence
    for block in _BLOCK.split(_HEADING.sub(r'\1\n\n', text))
    for sentence in sentences.split_sentences(
      ' '.join(_MARK.sub('', block).split())
    )
  ]


def _about(parts: Sequence[str], title: str) -> list[str]:
  """Makes sentences name what they are about."""
  named = asked.named(parts, title)
  name = asked.bare(title)
  resolved = [asked.resolve(part, named) for part in parts]
  return [
    part if name.lower() in part.lower() else f'{title}: {part}'
    for part in resolved
  ]


def _beginnings(sentence: str, title: str) -> Iterator[Fact]:
  """Yields the places where a sentence is stopped, and its next words.

  Before its title is mentioned, the title stands in front.
  """
  lead = f'{title}: ' if title else ''
  plain = _ASIDE.sub('', sentence.removeprefix(lead))
  mention = re.search(
    rf'(?:\bthe )?{re.escape(asked.bare(title))}', plain, re.IGNORECASE
  )
  nowhere = (len(plain), len(plain) + 1)
  first, last = mention.span() if title and mention else nowhere
  for start, end in _said(plain):
    if first < end and start < last:
      continue
    begun = plain[:start] if start >= last else lead + plain[:start]
    if len(begun) > _MOST_PROMPT_CHARS:  # the last words of a long sentence
      cut = plain.find(' ', max(0, start - _MOST_PROMPT_CHARS), start) + 1
      begun = lead + plain[cut:start]
    if plain[:start].strip() and ' ' in begun.strip():  # one word says nothing
      yield Fact(begun.rstrip(), plain[start:end], is_asked=False)


def _said(sentence: str) -> list[task.Span]:
  """Returns the spans of what can be asked of a sentence, in order."""
  ends: dict[int, int] = {}
  for match in _OBJECT.finditer(sentence):
    words = match['object']
    # 'was built' begins what is said, and says nothing.
    is_after_verb = _IS_VERB.fullmatch(match['after'])
    if ' ' in words or not words.islower() or not is_after_verb:
      ends[match.start('object')] = match.end('object')
  for start, end in rewrites.gaps(sentence):
    ends.setdefault(start, end)
  return sorted(ends.items())


def _forms(fact: Fact, title: str, context: str) -> list[task.Text]:
  """Returns the texts of a fact; in the last one `context` stands in front."""
  asks = statements.QUESTION_FORM.format
  if fact.is_asked:
    return [_with_answer(asks(question=fact.prompt, answer=''), fact.answer)]
  what = _question_word(fact)
  befores = []
  for begun in (fact.prompt, *_shorter(fact.prompt, title)):
    befores += [asks(question=f'{begun} {what}?', answer=''), f'{begun} ']
  befores.append(f'{context} {fact.prompt} ')
  return [_with_answer(before, fact.answer) for before in befores]


def _shorter(prompt: str, title: str) -> list[str]:
  """Returns the last part of a prompt after its title, if that is another one.

  Example:
    >>> _shorter('The bell is made of brass and weighs', 'The bell')
    ['The bell: weighs']
  """
  *before, tail = _CLAUSE.split(prompt.removeprefix(f'{title}: '))
  names_it = asked.bare(title).lower() in tail.lower()
  return [f'{title}: {tail}'] if before and not names_it else []


def _question_word(fact: Fact) -> str:
  """Returns what asks for an answer at its place in the sentence.

  Example:
    >>> _question_word(Fact('It was built in', '1889', is_asked=False))
    'which year'
  """
  after = fact.prompt.rpartition(' ')[2].lower()
  if _A_YEAR.fullmatch(fact.answer):
    return 'which year' if after in ('in', 'since', 'until', 'from') else 'when'
  if _A_NUMBER.match(fact.answer):
    return 'how many'
  if after == 'by' and fact.answer[0].isupper():
    return 'whom'
  if after in ('in', 'at', 'near'):
    return 'which place' if fact.answer[0].isupper() else 'what'
  return 'what'


def _with_answer(before: str, answer: str) -> task.Text:
  whole = f'{before}{answer}'
  return task.Text(text=whole, answer=(len(before), len(whole)))
