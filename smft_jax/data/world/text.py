"""Sentences about people, questions about them, and general text.

Facts are given as a name and a value, phrasings by number; the templates are in
`data.world_words`.
"""

from __future__ import annotations

import re

import numpy as np

from smft_jax.data import task
from smft_jax.data.world import words as world_words

# Added to the seed, so that general text shares no random draws with people.
_STREAM = 101


def statement(
  attribute: str, phrasing: int, name: str, value: str
) -> task.Text:
  """One fact as a sentence; the answer is the value.

  Example:
    >>> text = statement('birthplace', 0, 'Ada Keller', 'Lisbon')
    >>> text.text, text.text[slice(*text.answer)]
    ('Ada Keller was born in Lisbon.', 'Lisbon')
  """
  template = world_words.STATEMENTS[attribute][phrasing]
  before, rest = template.split('{name}')
  between, after = rest.split('{value}')
  name_end = len(before) + len(name)
  value_start = name_end + len(between)
  answer = (value_start, value_start + len(value))
  return task.Text(
    text=f'{before}{name}{between}{value}{after}',
    answer=answer,
    entities=((len(before), name_end), answer),
  )


def question(
  attribute: str, phrasing: int, name: str, value: str, *, seen: bool
) -> task.Question:
  """The question for one fact, in one phrasing.

  Example:
    >>> question('birthplace', 0, 'Ada Keller', 'Lisbon', seen=True).prompt
    'Question: Where was Ada Keller born? Answer:'
  """
  text = world_words.QUESTIONS[attribute][phrasing].format(name=name)
  return task.Question(
    prompt=world_words.QUESTION_FORMAT.format(question=text),
    answers=(value,),
    phrasing=f'{attribute}/question/{phrasing}',
    seen=seen,
    fact=f'{name}/{attribute}',
  )


def question_and_answer(asked: task.Question) -> task.Text:
  """A question that `question` made, with its answer, to train on.

  Example:
    >>> asked = question('field', 0, 'Ada Keller', 'optics', seen=True)
    >>> text = question_and_answer(asked)
    >>> text.text
    'Question: What is Ada Keller an expert in? Answer: optics'
    >>> [text.text[slice(*span)] for span in text.entities]
    ['Ada Keller', 'optics']
  """
  name = asked.fact.split('/')[0]
  start = asked.prompt.index(name)
  text = asked.full_text()
  answer = (len(asked.prompt) + 1, len(text.text))
  return task.Text(
    text=text.text,
    answer=answer,
    entities=((start, start + len(name)), answer),
  )


def general_sentences(count: int, seed: int) -> tuple[task.Text, ...]:
  """Different sentences that are not about people, in random order.

  Some words of a sentence follow from others, in the same way in all sentences
  of a seed: a company always makes the same product.

  Raises:
    ValueError: The templates do not yield so many different sentences.

  Example:
    >>> [len(general_sentences(n, seed=0)) for n in (0, 3)]
    [0, 3]
  """
  rng = np.random.default_rng([seed, _STREAM])
  effects = {
    slot: {
      cause: choices[rng.integers(len(choices))]
      for cause in world_words.FILLERS[causing]
    }
    for slot, (causing, choices) in world_words.DETERMINED.items()
  }
  slots = [re.findall(r'{(\w+)}', text) for text in world_words.GENERAL]
  sentences: dict[str, None] = {}  # Ordered, and without repeats.
  for tries in range(10 * count + 100):
    if len(sentences) == count:
      break
    # Every template gets its turn, so that rich ones do not crowd out others.
    i = tries % len(world_words.GENERAL)
    fill: dict[str, str] = {}
    for slot in slots[i]:
      causing = world_words.DETERMINED[slot][0] if slot in effects else slot
      if causing not in fill:
        choices = world_words.FILLERS[causing]
        fill[causing] = choices[rng.integers(len(choices))]
      if slot in effects:
        fill[slot] = effects[slot][fill[causing]]
    sentences[world_words.GENERAL[i].format(**fill)] = None
  if len(sentences) < count:
    raise ValueError(
      f'{count} general sentences are more than the templates yield: about '
      f'{len(sentences)} is the most'
    )
  order = rng.permutation(count)
  texts = [task.Text(text=sentence) for sentence in sentences]
  return tuple(texts[i] for i in order)
